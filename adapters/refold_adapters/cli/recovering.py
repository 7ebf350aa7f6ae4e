"""The command that brings an archive back from whatever is left: recover."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from refold_adapters.recovery import RecoveryReport, read_receipt, recover

from .context import Settled, pass_settled, perform
from .options import against, speech
from .output import cell, document, pairs, progress, say, write
from .verifying import describe

_STOPPED, _PARTLY = 4, 3


@click.command(name="recover")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="NEW", help="Make the new archive there.")
@click.option("--dry-run", is_flag=True, help="Only say what could be recovered; make nothing.")
@click.option("--partial", is_flag=True, help="Go on where events are missing; what comes after them is kept aside.")
@click.option("--prefer", metavar="SOURCE", help="Where sources hold different histories of one id, take this one's.")
@click.option("--replica", metavar="ID", help="The id that the new archive writes under; random otherwise.")
@against
@speech
@pass_settled
def recover_(
    settled: Settled,
    /,
    sources: tuple[str, ...],
    output: Path | None,
    dry_run: bool,
    partial: bool,
    prefer: str | None,
    replica: str | None,
    receipt: Path | None,
) -> int:
    """Make a new archive of all that proves itself in several SOURCES, however damaged each is.

    A SOURCE is an archive, or what is left of one; folders of one; a shared directory; a single changelog.db or
    events.jsonl. Exit code 4 when something is missing or contradictory, and nothing was made; with --partial 3.
    """
    if not dry_run and output is None:
        raise click.UsageError("say -o NEW for the new archive, or --dry-run to see what could be recovered")
    if dry_run and receipt is not None:
        raise click.UsageError("--dry-run makes nothing that could be proved --against a receipt")
    target = output.absolute() if output is not None and not dry_run else None
    actor = settled.actor(None)

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            expected = await asyncio.to_thread(read_receipt, receipt) if receipt is not None else None
            report = await recover(
                list(sources),
                target,
                partial=partial,
                prefer=prefer,
                replica=replica,
                actor=actor,
                against=expected,
                progress=bars,
            )
        _tell(settled, report)
        if not report.published and not (report.dry_run and report.whole):
            return _STOPPED
        return 0 if report.whole else _PARTLY

    return perform(work)


def _tell(settled: Settled, report: RecoveryReport) -> None:
    if settled.json:
        document({"ok": report.ok and report.whole, "whole": report.whole, **msgspec.structs.asdict(report)})
        return
    for source in report.sources:
        for finding in source.findings:
            say(f"note: {cell(source.label)}: {describe(finding)}")
        if source.damage > len(source.findings):
            say(f"note: {cell(source.label)}: {source.damage - len(source.findings)} findings more")
    _say_what_is_not_whole(report)
    for finding in report.findings:
        write(describe(finding) + "\n")
    if settled.quiet:
        return
    rows = [(cell(each.label), f"{each.events} events, {each.used} used, {each.alone} nowhere else")
            for each in report.sources]  # fmt: skip
    rows += [("events", str(report.events))]
    if report.published:
        rows += [
            ("recovered", cell(report.path)),
            ("replica", report.replica),
            ("records", str(report.records)),
            ("folders", str(report.folders)),
            ("digest", report.digest),
            ("with this note", report.digest_after),
            ("receipt", f"{report.receipt}, {report.receipt_hash}"),
        ]
    pairs([*rows, ("seconds", str(report.seconds))])


def _say_what_is_not_whole(report: RecoveryReport) -> None:
    for fork in report.forks:
        say(f"error: {cell(fork.dot)} was written in different ways; nobody can tell which is right:")
        for digest, labels in fork.branches.items():
            say(f"  {digest} in {cell(', '.join(labels))}")
        say("hint: take the history of one of them with --prefer SOURCE; the other is kept aside")
    if report.missing_count:
        more = report.missing_count > sum(map(_size, report.missing))
        say(f"missing: {report.missing_count} events: {', '.join(map(cell, report.missing))}{' …' if more else ''}")
    if report.touched_count:
        shown = ", ".join(map(cell, report.touched[:20]))
        say(f"touched: {report.touched_count} records: {shown}{' …' if report.touched_count > 20 else ''}")
    if report.left_out:
        say(f"left out: {report.left_out} events that come after something missing")
    if report.disagreed:
        say(f"disagreed: something remembers another event as {', '.join(map(cell, report.disagreed))}")
    if report.unproved:
        say(f"note: nothing but its place vouches for {', '.join(map(cell, report.unproved))}")
    if not report.whole and not report.published and not report.forks:
        say("hint: add a source that has what is missing, or go on without it with --partial; nothing was made")


def _size(dots: str) -> int:
    first, _, last = dots.rpartition(":")[2].partition("-")
    return int(last or first) - int(first) + 1


COMMANDS = [recover_]
