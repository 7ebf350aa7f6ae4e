"""Commands that write: init, define, import, put, patch, delete."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import click

import refold
from refold import Engine, Event
from refold.batch import schema_for
from refold.errors import ArchiveExists, DefinitionRefused, StorageFailed
from refold.references import Defined
from refold.schema import Schema, from_toml
from refold_adapters.importing import BATCH, Plan, Report, import_file
from refold_adapters.record_files import FORMATS
from refold_adapters.settings import FILE, load_settings
from refold_adapters.wording import Wording

from .context import Settled, pass_settled, perform
from .events import event_document
from .options import assignments, json_object, preconditions, speech, wording
from .output import document, progress, safe, say, write

_SETTINGS = """\
# Settings of this archive that are not history. What is commented out is the default.
[archive]
# changelog = "changelog.db"
# tables = "tables.db"
# folders = true

[cli]
# actor = ""            # who writes, unless --actor or REFOLD_ACTOR says so; the user's name when not set
# batch_size = 1000     # rows of an import that are one commit
"""


def _definitions(path: Path) -> None:
    """Raises `DefinitionRefused` or `StorageFailed` when the file defines nothing, before anything is made."""
    try:
        from_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageFailed(str(path), "reading", str(error)) from error
    except UnicodeDecodeError as error:
        raise DefinitionRefused("", f"{path} is not UTF-8: {error}") from error


@click.command()
@click.option("--collections", type=click.Path(path_type=Path), metavar="FILE.toml", help="Define these at once.")
@click.option("--replica", envvar="REFOLD_REPLICA", metavar="ID", help="The id to write under; random otherwise.")
@wording
@speech
@pass_settled
def init(
    settled: Settled, /, collections: Path | None, replica: str | None, time: int | None, **who: str | None
) -> int:
    """Create an archive."""
    if collections is not None:
        _definitions(collections)
    root = settled.root
    if (root / load_settings(root).changelog).exists():
        raise ArchiveExists(str(root))
    who["actor"] = settled.actor(who["actor"])

    async def work() -> None:
        async with refold.open(root, replica=replica, time=time) as engine:
            events = Defined()
            if collections is not None:
                events = await engine.define(collections, **who)
            await asyncio.to_thread(_write_settings, root)
            names = [event.collection for event in events]
            if settled.json:
                document({"path": str(root), "replica": engine.replica, "collections": names})
            elif not settled.quiet:
                defined = f", with {', '.join(names)}" if names else ""
                write(f"created {safe(str(root))} as replica {engine.replica}{defined}\n")
                if collections is not None:
                    _warn(events)

    return perform(work)


def _write_settings(root: Path) -> None:
    with contextlib.suppress(FileExistsError), (root / FILE).open("x", encoding="utf-8") as file:
        file.write(_SETTINGS)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.toml")
@wording
@speech
@pass_settled
def define(settled: Settled, /, file: Path, time: int | None, **who: str | None) -> int:
    """Define collections, or change their definitions; what is so already is left alone."""
    settled.must_exist()
    who["actor"] = settled.actor(who["actor"])

    async def work() -> None:
        async with settled.writing(time) as engine:
            events = await engine.define(file, **who)
            if settled.json:
                documents = [event_document(event) for event in events]
                document({"events": documents, **_relations(events)})
            elif not settled.quiet:
                names = ", ".join(event.collection for event in events)
                write(f"defined {names}\n" if names else "nothing changed\n")
                _warn(events)

    return perform(work)


def _relations(events: Defined) -> dict[str, Any]:
    """What is told of references beside a definition."""
    undefined = [{"collection": name, "field": field, "references": target} for name, field, target in events.undefined]
    return {"cycles": events.cycles, "undefined": undefined}


def _warn(events: Defined) -> None:
    for circle in events.cycles:
        told = f"{circle[0]} refers to itself" if len(circle) == 1 else f"{', '.join(circle)} refer to each other"
        say(f"note: {told}, so no order has all parents first")
    for name, field, target in events.undefined:
        say(f"note: field {field!r} of {name} refers to {target}, which is not defined yet")


SHOWN = 20
"""Failed rows that are shown to people who did not ask for more."""


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[Path]:
    """The file itself, or what comes through stdin or a pipe as a file, since it may have to be read twice."""
    if str(path) != "-" and (path.is_file() or not path.exists() or path.is_dir()):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, contextlib.ExitStack() as stack:
        copy = Path(folder) / path.name.replace("-", "stdin")
        source = sys.stdin.buffer if str(path) == "-" else stack.enter_context(path.open("rb"))
        with copy.open("wb") as file:
            shutil.copyfileobj(source, file)
        yield copy


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@click.command(name="import")
@click.argument("collection")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", metavar="FIELD", help="The key of a collection that is not defined yet.")
@click.option("--folder", metavar="TEMPLATE", help="Its folders, such as '{country}/{subd}'; its name otherwise.")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="What FILE is; seen from its name or start.")
@click.option("--encoding", default="utf-8", show_default=True, help="How FILE spells its characters.")
@click.option("--delete-missing", is_flag=True, help="Delete the records that FILE does not have.")
@click.option("--add-fields", is_flag=True, help="Define the columns that the collection lacks.")
@click.option("--neutralised", is_flag=True, help="FILE's formulas were made safe with an apostrophe; take it off.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    envvar="REFOLD_BATCH_SIZE",
    help=f"Rows that are one commit; {BATCH} otherwise.",
)
@wording
@speech
@pass_settled
def import_(
    settled: Settled, /, collection: str, file: Path, time: int | None, batch_size: int | None, **options: Any
) -> int:
    """Bring a collection to the state of a CSV, JSON Lines or JSON FILE (- for stdin).

    Rows that are so already write nothing, others only the fields that differ. A collection that is not defined is
    inferred, given its --key. Rows that cannot be taken are listed, harm no other, and make the exit code 3.
    """
    settled.must_exist()
    try:
        "".encode(options["encoding"])
    except LookupError:
        why = f"{options['encoding']!r} is no encoding of text"
        raise click.BadParameter(why, param_hint="--encoding") from None
    words = Wording(settled.actor(options.pop("actor")), options.pop("reason"))
    batch = batch_size or settled.cli().batch_size or BATCH

    async def work(path: Path) -> int:
        async with settled.writing(time) as engine:
            with progress(quiet=settled.quiet, of_bytes=True) as bars:
                bars.total(collection, await asyncio.to_thread(_size, path))
                plan = Plan(path=path, batch=batch, **options)
                report = await import_file(engine, collection, plan, words, lambda done: bars(collection, done))
        return _tell(settled, report)

    with _on_disk(file) as path:
        return perform(lambda: work(path))


def _tell(settled: Settled, report: Report) -> int:
    failed = len(report.failed) + report.unlisted
    if settled.json:
        document(report)
    else:
        if not settled.quiet:
            counts = (
                f"{getattr(report, name)} {name}" for name in ("read", "created", "updated", "deleted", "unchanged")
            )
            write(f"{', '.join(counts)}, {failed} failed\n")
        shown = report.failed if settled.verbose else report.failed[:SHOWN]
        for error in shown:
            say(f"row {error.row}: {safe(error.message)}" if error.row is not None else safe(error.message))
        if failed > len(shown):
            say(f"and {failed - len(shown)} more rows; -v shows them")
    return 3 if failed else 0


def _write_one(
    settled: Settled,
    collection: str,
    time: int | None,
    options: dict[str, Any],
    act: Callable[[Engine, Schema, dict[str, Any]], Awaitable[Event | None]],
) -> int:
    settled.must_exist()
    options["actor"] = settled.actor(options["actor"])

    async def work() -> None:
        async with settled.writing(time) as engine:
            event = await act(engine, schema_for(engine.schemas, collection), options)
        if settled.json:
            document({"event": event_document(event) if event is not None else None})
        elif not settled.quiet:
            if event is None:
                write("nothing changed\n")
            else:
                write(f"{event.kind}d {event.collection} {safe(event.key)}\n")

    return perform(work)


@click.command()
@click.argument("collection")
@click.argument("values", nargs=-1, required=True)
@preconditions
@wording
@speech
@pass_settled
def put(settled: Settled, /, collection: str, values: tuple[str, ...], time: int | None, **options: Any) -> int:
    """Make a record so: create it, or write the fields that differ.

    VALUES are field=text, read by the type of the field (an empty text is null where that is allowed), or field:=json;
    or one JSON object, or - to read that from stdin.
    """
    given = json_object(values[0]) if len(values) == 1 and values[0].lstrip()[:1] in {"{", "-"} else None

    async def act(engine: Engine, schema: Schema, options: dict[str, Any]) -> Event | None:
        return await engine.put(collection, given if given is not None else assignments(schema, values), **options)

    return _write_one(settled, collection, time, options, act)


@click.command()
@click.argument("collection")
@click.argument("key")
@click.argument("values", nargs=-1, required=True)
@preconditions
@wording
@speech
@pass_settled
def patch(
    settled: Settled, /, collection: str, key: str, values: tuple[str, ...], time: int | None, **options: Any
) -> int:
    """Change fields of a record that is there; VALUES as for put."""
    given = json_object(values[0]) if len(values) == 1 and values[0].lstrip()[:1] in {"{", "-"} else None

    async def act(engine: Engine, schema: Schema, options: dict[str, Any]) -> Event | None:
        changes = given if given is not None else assignments(schema, values)
        return await engine.patch(collection, key, changes, **options)

    return _write_one(settled, collection, time, options, act)


@click.command()
@click.argument("collection")
@click.argument("key")
@preconditions
@wording
@speech
@pass_settled
def delete(settled: Settled, /, collection: str, key: str, time: int | None, **options: Any) -> int:
    """Delete a record; its history stays."""

    async def act(engine: Engine, schema: Schema, options: dict[str, Any]) -> Event | None:
        return await engine.delete(schema.name, key, **options)

    return _write_one(settled, collection, time, options, act)


COMMANDS = [init, define, import_, put, patch, delete]
