"""Recovery: the union of what several sources hold becomes a new archive, or it is told why not.

By default it stops where anything is missing or contradictory, and nothing is made. `partial` goes on with the longest
causally closed set of events that prove themselves; what comes after something missing cannot stand in a log, and is
kept byte for byte in left-out.jsonl in the new archive, from which a later recovery takes it up when the missing comes
to light.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from refold.opening import random_id, system_clock
from refold.ports import Changelog, Clock
from refold_adapters.settings import FILE

from .building import Making, beside, build, measure
from .copying import Tell, append_all
from .kinds import LEFT_OUT, SourceRefused, path_of, sources_of
from .receipt import Receipt
from .report import LISTED, ForkReport, RecoveryReport, SourceReport
from .scratch import Scratch
from .source import Source
from .union import Union, Verdict, format_ranges


class _Recovery:
    """One recovery; its blocking parts, for a thread."""

    def __init__(self, sources: list[Source], scratch: Scratch, report: RecoveryReport, tell: Tell) -> None:
        self.sources = sources
        self.union = Union(sources, scratch)
        self.scratch = scratch
        self.report = report
        self.tell = tell
        self.verdict = Verdict()

    def look(self, prefer: int | None) -> None:
        """Reads all sources, and reports what can be recovered."""
        self.union.gather(self.tell)
        self.verdict = verdict = self.union.judge(prefer)
        report = self.report
        report.events = verdict.events
        report.vector = verdict.have
        report.missing = format_ranges(verdict.missing[:LISTED])
        report.missing_count = sum(last - first + 1 for _, first, last in verdict.missing)
        report.unproved = format_ranges(verdict.unproved[:LISTED])
        report.disagreed = format_ranges(verdict.disagreed[:LISTED])
        report.left_out = verdict.blocked
        touched, report.touched_count = self.scratch.records(LISTED)
        report.touched = [f"{collection} {key}".rstrip() for collection, key in touched]
        report.forks = [
            ForkReport(
                f"{replica}:{fork.seq}",
                {digest.hex(): self._labels(bits) for digest, bits in sorted(fork.branches.items())},
            )
            for replica, fork in verdict.forks.items()
        ]
        counts = self.scratch.counts(len(self.sources))
        for number, source in enumerate(self.sources):
            events, used, alone = counts[number]
            runs = format_ranges(self.scratch.runs(number, LISTED))
            findings, damage = self.scratch.findings(number, LISTED)
            report.sources.append(
                SourceReport(source.name, source.label, source.kind, events, used, alone, runs, damage, findings)
            )

    def _labels(self, sources: int) -> list[str]:
        return [source.label for number, source in enumerate(self.sources) if sources >> number & 1]

    def fill(self, log: Changelog) -> None:
        """Brings what can be recovered into a new log."""
        append_all(log, self.union.events(), self.tell)

    def keep_left_out(self, place: Path) -> None:
        """Writes what could not go into the log beside it, durably, if there is anything."""
        lines = self.union.left_out(self.verdict)
        first = next(lines, None)
        if first is None:
            return
        with (place / LEFT_OUT).open("wb") as file:
            file.write(first)
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())


async def recover(
    names: list[str],
    target: Path | None,
    *,
    partial: bool = False,
    prefer: str | None = None,
    replica: str | None = None,
    actor: str = "",
    against: Receipt | None = None,
    progress: Tell = lambda what, done: None,
    new_id: Callable[[], str] = random_id,
    clock: Clock = system_clock,
) -> RecoveryReport:
    """Makes a new archive at `target` of everything that proves itself in the sources, given by paths or URLs.

    Where something is missing, or `prefer` (one of the names) settles no fork, nothing is made unless `partial`; a fork
    that is not settled is never passed over. Nothing is made either where the result is not what the receipt `against`
    says. Without a target it only looks. The report says what was found; the new
    archive is there when it is `published`. Raises `SourceRefused`, `ArchiveExists`, `StorageFailed`.
    """
    started = time.monotonic()
    sources = await asyncio.to_thread(sources_of, names)
    if prefer is not None and prefer not in names:
        raise SourceRefused(prefer, "it is none of the sources")
    report = RecoveryReport(path=str(target or ""), origin="recovery", dry_run=target is None)
    scratch = await asyncio.to_thread(Scratch)
    try:
        doing = _Recovery(sources, scratch, report, progress)
        await asyncio.to_thread(doing.look, names.index(prefer) if prefer is not None else None)
        if not any(source.events for source in report.sources):
            raise SourceRefused(", ".join(names), "there is no event in it")
        if target is not None and report.events and not report.forks and (partial or report.whole):
            settings = await asyncio.to_thread(_settings, names)
            await _make(doing, Making(target, replica or new_id(), settings, actor, clock, against))
    finally:
        await asyncio.to_thread(scratch.__exit__, None, None, None)
    report.seconds = round(time.monotonic() - started, 3)
    return report


async def _make(doing: _Recovery, making: Making) -> None:
    async def keep() -> None:
        await asyncio.to_thread(doing.keep_left_out, beside(making.target))

    root = await build(making, doing.fill, doing.report, doing.tell, keep)
    doing.report.published = doing.report.ok
    await asyncio.to_thread(measure, root, doing.report)


def _settings(names: list[str]) -> Path | None:
    """The first source that has settings which go along."""
    return next((path for path in map(path_of, names) if (path / FILE).is_file()), None)
