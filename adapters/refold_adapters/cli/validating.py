"""The command that says which records are not as their collection wants them: validate."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import click

from refold import Engine
from refold_adapters.record_files import FORMATS
from refold_adapters.validating.validating import Invalid, Plan, Validation

from .context import Settled, pass_settled, perform
from .options import speech
from .output import cell, document, progress, say, write

INVALID = 4


@click.command()
@click.argument("target", metavar="FILE|COLLECTION")
@click.option("--collection", metavar="NAME", help="The collection that a FILE's records are of.")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="What FILE is; seen from its name otherwise.")
@click.option("--encoding", default="utf-8", show_default=True, metavar="NAME", help="How FILE spells its characters.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one record is looked at.",
)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes at most; as many as processors, or 4.")
@speech
@pass_settled
def validate(
    settled: Settled,
    /,
    target: str,
    collection: str | None,
    kind: str | None,
    encoding: str,
    time_limit: float,
    jobs: int | None,
) -> int:
    """Check every record of a FILE or a COLLECTION against its definition, and tell all that is wrong with each.

    Nothing is written. Exit code 4 when a record is not as it should be.
    """
    root = settled.root.absolute()

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            async with settled.reading() as engine:
                name = _collection(engine, target, collection)
                path = None if collection is None and target in engine.schemas else Path(target)
                plan = Plan(collection=name, path=path, kind=kind, encoding=encoding, limit=time_limit, jobs=jobs or 0)
                look = Validation(engine, root, plan, bars)
                async with aclosing(look.run()) as found:
                    async for invalid in found:
                        _tell(settled, invalid)
        if settled.json:
            document({"ok": not look.invalid, "collection": name, "checked": look.checked, "invalid": look.invalid})
        elif not settled.quiet:
            say(f"checked {look.checked} records, {look.invalid} are not as they should be")
        return INVALID if look.invalid else 0

    return perform(work)


def _collection(engine: Engine, target: str, stated: str | None) -> str:
    if stated is not None:
        return stated
    if target in engine.schemas:
        return target
    if len(engine.schemas) == 1:
        return next(iter(engine.schemas))
    raise click.UsageError(f"{target} is no collection; of a file, say with --collection which it is of")


def _tell(settled: Settled, invalid: Invalid) -> None:
    if settled.json:
        document(invalid)
        return
    where = f"row {invalid.row}" if invalid.row is not None else f"record {cell(invalid.key)}"
    for error in invalid.errors:
        field = f"{cell(error.field)}: " if error.field is not None else ""
        write(f"{where}: {error.code}: {field}{cell(error.message)}\n")


COMMANDS = [validate]
