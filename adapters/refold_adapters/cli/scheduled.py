"""The commands that schedulers run: export, verify, restore, on a refold archive or on an older tool's.

What does the work is imported once it is known what is wanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .context import Settled, pass_settled
from .older import TwoWays, older
from .options import DurationType, MomentType, against, at_option, speech

if TYPE_CHECKING:
    from refold.moment import Moment

PARTS = ("log", "tables", "folders")
FORMATS = ("csv", "jsonl", "json")


@click.command(cls=TwoWays)
@click.argument("collection", required=False)
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Write records out in this format.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="To this file, not stdout.")
@click.option("--neutralise", is_flag=True, help="Make formulas in CSV safe for spreadsheets; import takes it off.")
@at_option
@older
@speech
@pass_settled
def export(
    settled: Settled,
    /,
    collection: str | None,
    kind: str | None,
    output: Path | None,
    at: Moment | None,
    *,
    neutralise: bool,
) -> int:
    """Bring the folders up to date; or, with --format, write the records of a COLLECTION to stdout or a file.

    With --config, or --db and --archive, write the rows of an older tool's table into its folders. Exit code 3 when
    some could not be.
    """
    from .exporting import settle_folders, write_records

    if kind is None:
        if collection is not None or output is not None or neutralise:
            raise click.UsageError("say in which --format the records are to be written")
        if at is not None:
            raise click.UsageError("the folders show what is now; `restore -o NEW --at` makes them as they were")
        return settle_folders(settled)
    if collection is None:
        raise click.UsageError("say which COLLECTION is to be written")
    return write_records(settled, collection, kind, output, at, neutralise=neutralise)


@click.command(cls=TwoWays)
@click.option("--witness", "witnesses", multiple=True, metavar="PATH|URL", help="Who knows the log; may be repeated.")
@click.option("--documents", is_flag=True, help="Also read every file that records point to.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Only this part; may be repeated.")
@click.option(
    "--budget",
    type=DurationType(),
    metavar="TIME",
    help="Only so long (30s, 10m, 2h), what was checked longest ago first.",
)
@older
@speech
@pass_settled
def verify(
    settled: Settled, /, witnesses: tuple[str, ...], only: tuple[str, ...], budget: int | None, *, documents: bool
) -> int:
    """Check the log's chain, tables and folders against the log, and the log against those who remember it.

    Exit code 4 when anything is found. With --config, or --db and --archive, check the folders of an older tool, and
    its table against them.
    """
    from .verifying import run_verify

    return run_verify(settled, witnesses, only, budget, documents=documents)


@click.command(cls=TwoWays)
@click.option(
    "--from", "origin", type=click.Choice(("log", "folders")), default="log", show_default=True, help="The source."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="NEW", help="Make a new archive there.")
@click.option("--in-place", is_flag=True, help="Make tables and folders anew here; from folders, also the log.")
@click.option("--folders", "only_folders", is_flag=True, help="Make only the folders anew, here.")
@click.option("--at", type=MomentType(), help="Up to this moment only; needs -o.")
@click.option("--replica", metavar="ID", help="The id that the new log writes under; random otherwise.")
@click.option("--dry-run", is_flag=True, help="Only say what would be made and what would change; write nothing.")
@against
@older
@speech
@pass_settled
def restore(
    settled: Settled,
    /,
    origin: str,
    output: Path | None,
    in_place: bool,
    only_folders: bool,
    at: Moment | None,
    replica: str | None,
    dry_run: bool,
    receipt: Path | None,
) -> int:
    """Bring the archive back by replay, and verify it. Exit code 4 when the result does not verify.

    With --against alone, nothing is made: the archive is proved to be what a receipt says. With --config, or --db and
    --archive, bring back an older tool's database from its folders.
    """
    if only_folders:
        from .rebuilding import rebuilt

        others = (in_place, dry_run, output is not None, at is not None, replica is not None, receipt is not None)
        if any(others) or origin != "log":
            raise click.UsageError("--folders makes the folders anew here, from the log, and takes no other option")
        return rebuilt(settled, "folders")
    from .restoring import prove, restored

    if receipt is not None and not in_place and output is None:
        if dry_run or at is not None or replica is not None or origin != "log":
            raise click.UsageError("--against alone looks at the log that is here, and takes no other option")
        return prove(settled, receipt)
    if in_place == (output is not None):
        raise click.UsageError("say -o NEW for a new archive, or --in-place to make tables and folders anew here")
    if in_place and at is not None:
        raise click.UsageError("--at needs -o NEW: nothing is ever removed from a log")
    if in_place and receipt is not None:
        raise click.UsageError("--against needs -o NEW, or stands alone")
    if in_place and origin == "log" and replica is not None:
        raise click.UsageError("--replica names the owner of a new log; in place, from the log, it stays")
    target = output.absolute() if output is not None else None
    return restored(settled, target, origin=origin, at=at, replica=replica, receipt=receipt, dry_run=dry_run)


COMMANDS = [export, verify, restore]
