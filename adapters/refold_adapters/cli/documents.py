"""Commands about the files that records point to: scan, prune."""

from __future__ import annotations

import asyncio

import click
import msgspec

from refold_adapters.documents import (
    Cleared,
    DocumentFinding,
    ScanReport,
    clear_missing,
    record,
    scan,
)
from refold_adapters.documents.scanning import scanning
from refold_adapters.wording import Wording

from .context import Settled, pass_settled, perform
from .options import speech, wording
from .output import cell, document, pairs, progress, say, write

PARTLY = 3


@click.command(name="scan")
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
@click.option("--full", is_flag=True, help="Read every document, also where size, time and inode are as they were.")
@click.option("--record", "records", is_flag=True, help="Write new hashes and new places into the records.")
@wording
@speech
@pass_settled
def scan_(
    settled: Settled,
    /,
    collections: tuple[str, ...],
    actor: str | None,
    reason: str | None,
    time: int | None,
    *,
    full: bool,
    records: bool,
) -> int:
    """Compare the files that records point to with what records say of them.

    Exit code 3 when there is anything to tell. Files are never touched, and those that are as they were when they were
    read last are not read again.
    """
    root = settled.root.absolute()
    words = Wording(settled.actor(actor), reason if reason is not None else "scan")

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            if records:
                async with (
                    settled.writing(time) as engine,
                    scanning(engine, root, collections, full=full, progress=bars) as look,
                ):
                    await record(look, engine, words)
                    report = await asyncio.to_thread(look.conclude)
                    await engine.settled()
            else:
                async with settled.reading() as engine:
                    report = await scan(engine, root, collections, full=full, progress=bars)
        _tell(settled, report)
        return 0 if report.ok else PARTLY

    return perform(work)


def _tell(settled: Settled, report: ScanReport) -> None:
    if settled.json:
        document({"ok": report.ok, **msgspec.structs.asdict(report)})
        return
    for found in report.findings:
        write(_line(found) + "\n")
    for note in report.notes:
        say(f"note: {cell(note)}")
    if settled.quiet:
        return
    rows = [(name, str(getattr(report, name))) for name in ("documents", "files", "read", "bytes")]
    rows += [("recorded", str(report.recorded))] if report.recorded else []
    rows += [(kind.removeprefix("document-"), str(count)) for kind, count in report.counts.items()]
    pairs([*rows, ("not listed", str(report.unlisted))] if report.unlisted else rows)


def _line(found: DocumentFinding) -> str:
    where = f" ({cell(found.collection)} {cell(found.key)})" if found.collection is not None else ""
    places = f": {', '.join(map(cell, found.places))}" if found.places else ""
    return f"{found.kind}: {cell(found.path)}: {cell(found.detail)}{places}{where}"


@click.command()
@click.argument("collections", nargs=-1, required=True, metavar="COLLECTION...")
@click.option("--missing", is_flag=True, help="Clear references to files that are missing.")
@click.option("--write/--dry-run", "writes", default=False, help="Clear them, or only say which, which is the default.")
@click.option("--force", is_flag=True, help="Also when more than half of all documents are missing.")
@wording
@speech
@pass_settled
def prune(
    settled: Settled,
    /,
    collections: tuple[str, ...],
    actor: str | None,
    reason: str | None,
    time: int | None,
    *,
    missing: bool,
    writes: bool,
    force: bool,
) -> int:
    """Take out of records what points to files that are not there, as events. No file is touched.

    Exit code 3 when a reference could not be cleared.
    """
    if not missing:
        raise click.UsageError("say --missing: references to files that are missing are what can be cleared")
    words = Wording(settled.actor(actor), reason if reason is not None else "the file is missing")
    root = settled.root.absolute()

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            async with (
                settled.writing(time) if writes else settled.reading() as engine,
                scanning(engine, root, collections, progress=bars) as look,
            ):
                report = await clear_missing(look, engine, words, write=writes, force=force)
                await engine.settled()
        _tell_cleared(settled, report)
        return 0 if report.ok else PARTLY

    return perform(work)


def _tell_cleared(settled: Settled, report: Cleared) -> None:
    if settled.json:
        document({"ok": report.ok, **msgspec.structs.asdict(report)})
        return
    for found in report.findings:
        write(f"{'cleared' if report.write else 'would clear'}: {_line(found)}\n")
    for found in report.refused:
        write(f"refused: {_line(found)}\n")
    if settled.quiet:
        return
    pairs(
        [
            ("documents", str(report.documents)),
            ("missing", str(report.missing)),
            ("cleared" if report.write else "would be cleared", str(report.cleared)),
        ]
    )
    if not report.write:
        say("nothing was changed; --write clears them")


COMMANDS = [scan_, prune]
