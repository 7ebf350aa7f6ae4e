"""The union of what several sources hold: as much of it as proves itself and can stand in one log.

Everything found goes into a scratch database. Replica by replica it is judged which events count (`chains`); what
counts is then put in the order (time, replica, seq), which is a causal one since a clock that has seen an event gives
later times, and each event is taken if all that it had seen was taken before it. Where an order was broken by a clock
that lied, what was passed over is tried again. What is taken is the longest causally closed set of proved events; what
is not is told by name, and kept.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from refold.decide import BEGAN
from refold.events import Event, decode
from refold.vector import VectorError, parse_vector
from refold_adapters.folders.lines import line_of

from .chains import Fork, doubt, walk
from .scratch import Scratch
from .source import Damage, Found, Known, Source

_BATCH = 500

Range = tuple[str, int, int]
"""Dots of one replica: its id, the first and the last seq."""


class Verdict(msgspec.Struct):
    """What can be recovered and what cannot.

    `have` is the version vector of what is taken. `missing` are dots that are known to have been written and of which
    no source has a proved event. `blocked` counts proved events that cannot stand in a log, since they come after
    something that is missing. Of `forks`, by replica, the chain ends before the fork.
    """

    have: dict[str, int] = {}
    events: int = 0
    missing: list[Range] = []
    blocked: int = 0
    forks: dict[str, Fork] = {}
    unproved: list[Range] = []
    disagreed: list[Range] = []

    @property
    def whole(self) -> bool:
        """Whether everything that is known to have been written is taken, and nobody disagrees."""
        return not (self.missing or self.blocked or self.forks or self.disagreed)


class Union:
    """What sources hold, gathered and judged. Blocking, for a thread."""

    def __init__(self, sources: Sequence[Source], scratch: Scratch) -> None:
        self._sources = sources
        self._scratch = scratch
        self._last: dict[str, int] = {}

    def gather(self, tell: Callable[[str, int], None]) -> None:
        """Reads every source. Raises `StorageFailed`."""
        count = 0
        for number, source in enumerate(self._sources):
            items = source.events()
            while page := list(islice(items, _BATCH)):
                known = [item for item in page if isinstance(item, Known) and _is_sane(item)]
                damage = [item for item in page if isinstance(item, Damage)]
                found = [item for item in page if isinstance(item, Found)]
                self._scratch.put(found, known, damage, number)
                for item in known:
                    self._remember(item.replica, item.seq)
                for each in damage:
                    if each.finding.replica is not None and each.finding.seq is not None:
                        self._remember(each.finding.replica, each.finding.seq)
                count += len(page)
                tell("reading", count)

    def _remember(self, replica: str, seq: int) -> None:
        self._last[replica] = max(seq, self._last.get(replica, 0))

    def judge(self, prefer: int | None = None) -> Verdict:
        """What can be recovered; `prefer` is the number of the source whose branch counts where there is a fork."""
        verdict = Verdict()
        ends: dict[str, int] = {}
        for replica in self._scratch.replicas():
            self._scratch.reject(doubt(self._scratch.dots(replica, backwards=True)))
            waiting: list[int] = []
            chain = walk(self._scratch.dots(replica), waiting.append, 0 if prefer is None else 1 << prefer)
            self._scratch.reject(waiting)
            if chain.end:
                verdict.have[replica] = chain.end
            verdict.missing += [(replica, first, last) for first, last in chain.missing]
            verdict.unproved += [(replica, seq, seq) for seq in chain.unproved]
            verdict.disagreed += [(replica, seq, seq) for seq in chain.disagreed]
            if chain.fork is not None:
                verdict.forks[replica] = chain.fork
            if chain.fork is None and not chain.preferred:
                ends[replica] = chain.last
        self._scratch.limit(verdict.have)
        self._close(verdict)
        self._look_behind(verdict)
        self._add_tails(verdict, ends)
        return verdict

    def _close(self, verdict: Verdict) -> None:
        """Takes what can be taken; what proved events had seen is known to have been written."""
        taken: dict[str, int] = {}
        for event, _ in self._ordered(taken):
            verdict.events += 1
            self._note_seen(event)
        verdict.have = taken
        self._scratch.limit(taken)

    def _note_seen(self, event: Event) -> None:
        for replica, seq in event.context.items():
            self._remember(replica, seq)
        self._remember(event.replica, event.batch)
        try:
            began = parse_vector(event.meta.get(BEGAN, ""))
        except VectorError:
            return
        for replica, seq in began.items():
            self._remember(replica, seq)

    def _look_behind(self, verdict: Verdict) -> None:
        """Counts what is proved but cannot be taken, and notes which records it is about."""
        page: list[Event] = []
        for entry in self._scratch.others():
            if entry.rejected:
                continue
            event = decode(entry.body)
            verdict.blocked += 1
            self._note_seen(event)
            page.append(event)
            if len(page) == _BATCH:
                self._scratch.add_records(page)
                page = []
        self._scratch.add_records(page)

    def _add_tails(self, verdict: Verdict, ends: dict[str, int]) -> None:
        found = set(self._scratch.replicas())
        for replica, last in self._last.items():
            end = ends.get(replica, 0)
            if last > end and (replica in ends or replica not in found):
                _add_range(verdict.missing, (replica, end + 1, last))
        verdict.missing.sort()

    def events(self) -> Iterator[tuple[Event, bytes]]:
        """What is taken, in a causal order."""
        return self._ordered({})

    def _ordered(self, have: dict[str, int]) -> Iterator[tuple[Event, bytes]]:
        """What counts and had seen nothing that is missing; `have` is brought along."""
        left = progress = True
        while left and progress:
            left = progress = False
            for entry in self._scratch.counting():
                event = decode(entry.body)
                if event.seq <= have.get(event.replica, 0):
                    continue
                if event.seq > have.get(event.replica, 0) + 1 or any(
                    have.get(replica, 0) < seq for replica, seq in event.context.items()
                ):
                    left = True
                    continue
                have[event.replica] = event.seq
                progress = True
                yield event, entry.body

    def left_out(self, verdict: Verdict) -> Iterator[bytes]:
        """Lines that keep what is not taken: events that prove themselves as in events.jsonl, so that a later recovery
        can take them up; anything else with why, and its bytes in base64."""
        for entry in self._scratch.others():
            event = decode(entry.body)
            if entry.rejected:
                dot = {"replica": event.replica, "seq": event.seq, "hash": entry.hash.hex()}
                why = "nothing vouches for it where another event stands, or stood"
                yield self._kept(why, self._labels(entry.sources), dot, entry.body)
            else:
                yield line_of(event, entry.hash)
        if verdict.whole:
            return
        for source, finding, raw in self._scratch.damaged(verdict.have):
            yield self._kept(f"{finding.kind}: {finding.detail}", [self._sources[source].label], {}, raw)

    def _kept(self, why: str, sources: list[str], dot: dict[str, object], body: bytes) -> bytes:
        told = {"left_out": why, "sources": sources, **dot, "bytes": b64encode(body).decode()}
        return msgspec.json.encode(told) + b"\n"

    def _labels(self, sources: int) -> list[str]:
        return [source.label for number, source in enumerate(self._sources) if sources >> number & 1]


def _is_sane(item: Known) -> bool:
    return 0 < item.seq < 1 << 63 and len(item.hash) in (0, 32)


def _add_range(ranges: list[Range], new: Range) -> None:
    """Adds dots that come after those of their replica that are there."""
    replica, first, last = new
    for index, (name, start, end) in enumerate(ranges):
        if name == replica and end == first - 1:
            ranges[index] = name, start, last
            return
    ranges.append(new)


def format_ranges(ranges: Iterable[Range]) -> list[str]:
    """Dots as people and files read them: `office:7`, `office:9-12`."""
    return [f"{name}:{first}" + (f"-{last}" if last > first else "") for name, first, last in ranges]
