"""Three replicas that take the releases of a real history in different orders and meet in different ways.

Everything goes through the engine's public interface, in real archives. What the truth has to say is worked out beside
it (see `truth.py`): before each import, which events it has to write; at the end, everything that can be read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

import refold
from refold.opening import system_clock

from .look import Found, complaints_about, look
from .truth import Dispute, Seen, same

NAME = "places"
MANUAL = ("name",)
"""Fields whose conflicts wait for somebody; meanwhile the last write holds in them too."""

CLOCKS = {"harbour": 0, "ridge": 90_000, "valley": -90_000}
"""The replicas, and by how many milliseconds their clocks are wrong."""

PATTERNS = ("apart", "pair", "directory", "chain")
BATCH = 1000
RESOLVED = 3

Values = Mapping[str, Any]
Release = Mapping[str, Values]


class Outcome(msgspec.Struct):
    """What was compared, and what was not as it had to be."""

    seed: str
    releases: list[str]
    story: list[str] = []
    events: int = 0
    records: int = 0
    rows: int = 0
    cells: int = 0
    disputes: int = 0
    conflicts: dict[str, int] = {}
    complaints: list[str] = []


class Side:
    """One replica: its engine, what it has to have seen, and where it stands."""

    def __init__(self, engine: refold.Engine, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.seen = Seen(engine.replica)
        self.seq = 0
        self.complaints: list[str] = []

    def expect(self, event: refold.Event, present: bool, data: Values | None) -> None:
        """Takes in an event that was written here, and complains where it is not as it has to be."""
        key, known = event.key, self.seen.records.get(event.key, {})
        self.seq += 1
        if (event.replica, event.seq) != (self.seen.name, self.seq):
            self.complaints.append(f"{event.replica}:{event.seq} should be {self.seen.name}:{self.seq}")
        if event.context != self.seen.vector(key):
            self.complaints.append(f"{key}: context {event.context} for {self.seen.vector(key)}")
        if any(write.time >= event.time for write in known.values()):
            self.complaints.append(f"{key}: {event.replica}:{event.seq} is no later than what its author had seen")
        if data is not None and not equal(event.data, data):
            self.complaints.append(f"{key}: {event.replica}:{event.seq} wrote {event.data} for {dict(data)}")
        if present != (event.kind is not refold.Kind.DELETE):
            self.complaints.append(f"{key}: {event.replica}:{event.seq} is a {event.kind}")
        self.seen.wrote((event.replica, event.seq), event.time, key, present, event.data)

    async def take(self, release: Release) -> int:
        """Makes the records those of a release; how many events that had to write."""
        written = 0
        gone = [key for key in self.seen.records if key and key not in release and self.seen.values(key) is not None]
        wanted: list[tuple[str, Values | None]] = [*release.items(), *((key, None) for key in gone)]
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            async with self.engine.batch(actor=f"{self.seen.name}-import") as batch:
                for key, values in part:
                    if values is None:
                        batch.delete(NAME, key)
                    else:
                        batch.put(NAME, values)
            for (key, values), event in zip(part, batch.events, strict=True):
                change = self.change(key, values)
                if (change is None) != (event is None):
                    self.complaints.append(f"{key}: {event} was written for {change}")
                if event is not None:
                    self.expect(event, values is not None, change)
                    written += 1
        return written

    def change(self, key: str, values: Values | None) -> Values | None:
        """What an event has to say so that a record becomes so; None when it is so already."""
        known = self.seen.values(key)
        if values is None:
            return {} if known is not None else None
        if known is None:
            return values
        changed = {name: value for name, value in values.items() if not same(known[name], value)}
        return changed or None

    async def resolve(self, chance: random.Random) -> int:
        """Settles a few conflicts that wait here, by one of their sides."""
        waiting = [conflict async for conflict in self.engine.conflicts("open")]
        chosen = chance.sample(sorted(waiting, key=lambda one: (one.key, one.id)), min(RESOLVED, len(waiting)))
        for conflict in chosen:
            side = chance.choice(next(iter(conflict.sides.values())))
            for event in await self.engine.resolve(conflict.id, take=side.dot, actor="registrar"):
                self.expect(event, True, None)
        return len(chosen)


def equal(one: Values, other: Values) -> bool:
    """Whether two records have the same fields with the same values."""
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def collection(release: Release) -> refold.Collection:
    """The collection that a release's records fit: numbers may be null, all else is text."""
    sample = list(release.values())
    numbers = {name for row in sample for name, value in row.items() if not isinstance(value, str)}
    fields = {
        name: refold.Field(
            "float" if name in numbers else "str",
            null=name in numbers,
            strategy="manual" if name in MANUAL else None,
        )
        for name in sample[0]
    }
    return refold.Collection(name=NAME, key="icao", folder="{country}/{subd}", fields=fields)


def orders(count: int, chance: random.Random) -> list[list[int]]:
    """An order of the releases for each replica, no two alike where there are enough of them."""
    found: list[list[int]] = []
    while len(found) < len(CLOCKS):
        order = chance.sample(range(count), count)
        if order not in found or count < 3:
            found.append(order)
    return found


def meetings(pattern: str, chance: random.Random) -> Iterator[tuple[int, int | None]]:
    """Who meets whom, one after the other; None is the directory."""
    order = chance.sample(range(len(CLOCKS)), len(CLOCKS))
    match pattern:
        case "pair":
            yield order[0], order[1]
        case "directory":
            yield from ((number, None) for number in order)
        case "chain":
            yield from ((order[0], order[1]), (order[1], order[2]))
        case "all":
            yield from ((order[0], order[1]), (order[1], order[2]), (order[0], order[1]))


async def replay(root: Path, history: Mapping[str, Release], seed: str) -> Outcome:
    """Replays a history in `root`, and compares all that came of it with the truth."""
    outcome = Outcome(seed, list(history))
    chance = random.Random(seed)
    releases = list(history.values())
    share, shared = root / "share", Seen("share")
    share.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(opened(root / name, wrong)) for name, wrong in CLOCKS.items()]
        sides = [Side(engine, root / engine.replica) for engine in engines]
        wanted = collection({key: row for release in releases for key, row in release.items()})
        for side in sides:
            (event,) = await side.engine.define(wanted)
            side.expect(event, True, None)
        plan, start = orders(len(releases), chance), chance.randrange(len(PATTERNS))
        for number in range(len(releases)):
            turns = [(side, order[number]) for side, order in zip(sides, plan, strict=True)]
            taken = await asyncio.gather(*(side.take(releases[which]) for side, which in turns))
            whole = ", ".join(
                f"{side.seen.name} takes {outcome.releases[which]} ({count:,} events)"
                for (side, which), count in zip(turns, taken, strict=True)
            )
            pattern = PATTERNS[(start + number) % len(PATTERNS)]
            await _meet(sides, pattern, chance, share, shared)
            settled = await sides[chance.randrange(len(sides))].resolve(chance)
            outcome.story.append(f"{whole}; then they meet: {pattern}; {settled} conflicts are resolved")
            await _compare_values(sides, outcome)
        await _meet(sides, "all", chance, share, shared)
        await _compare(sides, outcome)
    return outcome


def opened(root: Path, wrong: int) -> AbstractAsyncContextManager[refold.Engine]:
    """An archive named after its replica, whose clock is wrong by so many milliseconds."""
    return refold.open(root, replica=root.name, actor="oracle", clock=lambda: system_clock() + wrong)


async def _meet(sides: Sequence[Side], pattern: str, chance: random.Random, share: Path, shared: Seen) -> None:
    for number, other in meetings(pattern, chance):
        side = sides[number]
        if other is None:
            await side.engine.sync(f"dir://{share}")
            side.seen.meet(shared)
        else:
            await side.engine.sync(sides[other].engine)
            side.seen.meet(sides[other].seen)


async def _compare_values(sides: Sequence[Side], outcome: Outcome) -> None:
    """Holds what each replica says now, before all have met, to what it has to have seen."""
    for side in sides:
        found = {record.key: dict(record.values) async for record in side.engine.find(NAME)}
        truth = _truth(side)
        wrong = [key for key in found.keys() | truth.keys() if not equal(found.get(key, {}), truth.get(key, {}))]
        side.complaints += [f"{key}: {found.get(key)} for {truth.get(key)}" for key in sorted(wrong)]
        outcome.complaints += [f"{side.seen.name}: {complaint}" for complaint in side.complaints]
        side.complaints.clear()


def _truth(side: Side) -> dict[str, dict[str, Any]]:
    return {key: values for key in side.seen.records if key and (values := side.seen.values(key)) is not None}


async def _compare(sides: Sequence[Side], outcome: Outcome) -> None:
    """Holds all that can be read of each replica to the truth, and the replicas to each other."""
    digests = set()
    for side in sides:
        await side.engine.settled()
        report = await side.engine.verify()
        truth, disputes = _truth(side), side.seen.disputes()
        found = await look(side.engine, side.root, NAME)
        wrong = complaints_about(found, side.seen, truth, disputes, MANUAL)
        wrong += [str(finding) for finding in report.findings]
        outcome.complaints += [f"{side.seen.name}: {complaint}" for complaint in [*side.complaints, *wrong]]
        digests.add((await side.engine.digest(), found.fingerprint, len(side.seen.writes)))
        _count(outcome, found, disputes)
    if len(digests) != 1:
        outcome.complaints.append(f"the replicas differ: {sorted(digests)}")


def _count(outcome: Outcome, found: Found, disputes: Sequence[Dispute]) -> None:
    outcome.events += len(found.events)
    outcome.records += len(found.records)
    outcome.rows += len(found.rows)
    outcome.cells += len(found.cells)
    for conflict in found.conflicts:
        outcome.conflicts[conflict.status] = outcome.conflicts.get(conflict.status, 0) + 1
    outcome.disputes += len(disputes)
