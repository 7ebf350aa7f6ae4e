"""Commands that bring an archive back or take records out of it: restore, export."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from refold import Record
from refold.batch import schema_for
from refold.errors import StorageFailed
from refold.moment import Moment
from refold.schema import Schema
from refold.values import TYPES
from refold_adapters.csv_cells import encode_rows
from refold_adapters.folders.content import DATA, EVENTS, META
from refold_adapters.folders.disk import INDEX
from refold_adapters.record_files import FORMATS
from refold_adapters.recovery import RestoreReport, prove_against, read_receipt, rehearse, restore
from refold_adapters.settings import FILE, load_settings

from .context import Settled, pass_settled, perform
from .options import MomentType, against, at_option, speech
from .output import cell, document, json_text, pairs, progress, say, write
from .reading import looked_at, note, pages
from .rebuilding import rebuilt
from .verifying import describe


@click.command(name="restore")
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
@speech
@pass_settled
def restore_(
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

    With --against alone, nothing is made: the archive is proved to be what a receipt says.
    """
    if only_folders:
        others = (in_place, dry_run, output is not None, at is not None, replica is not None, receipt is not None)
        if any(others) or origin != "log":
            raise click.UsageError("--folders makes the folders anew here, from the log, and takes no other option")
        return rebuilt(settled, "folders")
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
    if dry_run:
        return perform(lambda: _rehearse(settled, target, origin, at))
    actor = settled.actor(None)

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            expected = await asyncio.to_thread(read_receipt, receipt) if receipt is not None else None
            report = await restore(
                settled.root,
                target,
                origin=origin,
                at=at,
                replica=replica,
                actor=actor,
                against=expected,
                progress=bars,
            )
        tell_restored(settled, report)
        return 0 if report.ok else 4

    return perform(work)


async def _rehearse(settled: Settled, target: Path | None, origin: str, at: Moment | None) -> None:
    with progress(quiet=settled.quiet) as bars:
        found = await rehearse(settled.root, target, origin=origin, at=at, progress=bars)
    if settled.json:
        document({"dry_run": True, **msgspec.structs.asdict(found)})
        return
    note(found.skipped)
    rows = [("would restore", cell(found.path)), ("from", found.origin), ("events", str(found.events))]
    for name in ("created", "changed", "deleted", "defined"):
        count = getattr(found, name)
        rows += [(name, str(count))] if count is not None else []
    rows += [("lacking", cell(dots)) for dots in found.lacking]
    rows += [("other files in", cell(folder)) for folder in found.folders]
    pairs([*rows, ("written", "nothing")])


def prove(settled: Settled, path: Path) -> int:
    """Proves the archive against a receipt; the exit code."""
    settled.must_exist()

    async def work() -> int:
        receipt = await asyncio.to_thread(read_receipt, path)
        findings = await prove_against(settled.root, receipt)
        if settled.json:
            told = {"events": receipt.events, "digest": receipt.digest, "receipt_hash": receipt.hash}
            document({"ok": not findings, "findings": findings, **told})
            return 4 if findings else 0
        for finding in findings:
            write(describe(finding) + "\n")
        if not findings and not settled.quiet:
            write(f"proved: {receipt.events} events, digest {receipt.digest}\n")
        return 4 if findings else 0

    return perform(work)


def tell_restored(settled: Settled, report: RestoreReport) -> None:
    """Says what a restore made."""
    if settled.json:
        document({"ok": report.ok, **msgspec.structs.asdict(report)})
        return
    for skipped in report.skipped:
        say(f"note: {cell(skipped)}")
    for finding in report.findings:
        write(describe(finding) + "\n")
    if settled.quiet:
        return
    rows = [
        ("restored" if report.ok else "not in order", cell(report.path)),
        ("replica", report.replica),
        ("events", str(report.events)),
        ("records", str(report.records)),
        ("folders", str(report.folders)),
        ("bytes", str(report.bytes)),
        ("digest", report.digest),
        *([("with this note", report.digest_after)] if report.digest_after != report.digest else []),
        ("seconds", str(report.seconds)),
    ]
    if report.receipt is not None:
        rows.append(("receipt", f"{report.receipt}, {report.receipt_hash}"))
    pairs([*rows, ("old log", cell(report.kept))] if report.kept else rows)


@click.command()
@click.argument("collection", required=False)
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Write records out in this format.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="To this file, not stdout.")
@click.option("--neutralise", is_flag=True, help="Make formulas in CSV safe for spreadsheets; import takes it off.")
@at_option
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
    """Bring the folders up to date; or, with --format, write the records of a COLLECTION to stdout or a file."""
    if kind is None:
        if collection is not None or output is not None or neutralise:
            raise click.UsageError("say in which --format the records are to be written")
        if at is not None:
            raise click.UsageError("the folders show what is now; `restore -o NEW --at` makes them as they were")
        return perform(lambda: _folders(settled))
    if collection is None:
        raise click.UsageError("say which COLLECTION is to be written")

    async def work() -> None:
        if output is not None and await asyncio.to_thread(_is_own, settled.root, output):
            raise click.UsageError(f"{output} is a file of the archive itself")
        async with settled.reading() as engine:
            source = engine if at is None else await looked_at(engine, at)
            writer = _Writer(schema_for(source.schemas, collection), kind, neutralise=neutralise)
            count = await _write_out(writer, pages(source.find(collection)), output)
        if settled.json and output is not None:
            document({"collection": collection, "records": count, "file": str(output)})
        elif not settled.quiet:
            say(f"wrote {count} records")

    return perform(work)


def _is_own(root: Path, path: Path) -> bool:
    """Whether writing to `path` would replace the log, what was made of it, or the settings."""
    settings = load_settings(root)
    path = path.resolve()
    databases = (settings.changelog, settings.tables, INDEX)
    is_own = path.name.startswith(databases) or path.name in (FILE, DATA, META, EVENTS)
    return is_own and path.is_relative_to(root.resolve())


async def _folders(settled: Settled) -> None:
    async with settled.writing() as engine:
        await engine.settled()
        status = await engine.status()
    if settled.json:
        document({"position": status.position, "projections": status.projections})
    elif not settled.quiet:
        for projection in status.projections:
            write(f"{projection.name} {projection.state} at position {projection.position}\n")


class _Writer:
    """Spells pages of records in one format; all three are what import reads."""

    def __init__(self, schema: Schema, kind: str, *, neutralise: bool) -> None:
        self._schema = schema
        self._kind = kind
        self._neutralise = neutralise
        self._first = True
        self._texts = [TYPES[field.type].text for field in schema.collection.fields.values()]
        self._is_text = [field.type == "str" for field in schema.collection.fields.values()]

    def start(self) -> str:
        """What stands before the first record."""
        if self._kind == "csv":
            return encode_rows([self._schema.columns], neutralise=False)
        return "[\n" if self._kind == "json" else ""

    def end(self) -> str:
        """What stands after the last."""
        return ("]\n" if self._first else "\n]\n") if self._kind == "json" else ""

    def page(self, records: Sequence[Record]) -> str:
        """Some records."""
        if self._kind == "csv":
            rows = (self._cells(record) for record in records)
            return encode_rows(rows, neutralise=self._neutralise, text=self._is_text)
        lines = [json_text(record.values) for record in records]
        if self._kind == "jsonl":
            return "".join(line + "\n" for line in lines)
        lead = "" if self._first else ",\n"
        self._first = False
        return lead + ",\n".join(lines)

    def _cells(self, record: Record) -> list[str | None]:
        stored = self._schema.store(record.values)
        return [
            None if value is None else text(value) for value, text in zip(stored.values(), self._texts, strict=True)
        ]


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A new file that takes the name of `path` once it is whole."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise StorageFailed(str(path), "writing", str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


async def _write_out(writer: _Writer, records: AsyncIterator[list[Any]], output: Path | None) -> int:
    count = 0
    if output is None:
        sys.stdout.flush()
        await asyncio.to_thread(write, writer.start())
        async for page in records:
            count += len(page)
            await asyncio.to_thread(lambda part: write(writer.page(part)), page)
        await asyncio.to_thread(write, writer.end())
        return count
    replacing = _replacing(output)
    file = await asyncio.to_thread(replacing.__enter__)
    try:
        await asyncio.to_thread(file.write, writer.start())
        async for page in records:
            count += len(page)
            await asyncio.to_thread(lambda part: file.write(writer.page(part)), page)
        await asyncio.to_thread(file.write, writer.end())
    except BaseException as error:
        await asyncio.to_thread(replacing.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(replacing.__exit__, None, None, None)
    return count


COMMANDS = [restore_, export]
