"""The last judgement: everyone must agree with everyone, and with what the events mean by the definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refold.conflict import Conflict, ConflictKind
from refold.engine import Engine
from refold.events import Event, Kind
from refold.values import TYPES
from refold.verdict import Finding

from .truth import Dispute, RecordTruth, at_odds_with_time, rank, records, relations

if TYPE_CHECKING:
    from .world import World

Seen = dict[str, Any]


async def judge(world: World) -> None:
    """Looks at every replica, once all have met, and complains of what is wrong."""
    looks = []
    for machine in world.machines:
        if machine.engine is None:
            world.complain(f"{machine.label} is not up")
            return
        looks.append(await machine.process.spawn(_look(machine.engine)))
    first = looks[0]
    for look, machine in zip(looks, world.machines, strict=True):
        followed = machine.disk.projection.events
        if world.plan.setting.follows and [event.hash for event in followed] != [event.hash for event in look["log"]]:
            world.complain(f"{machine.label}: the projection that follows does not hold what the log does")
        if look["findings"]:
            world.complain(f"{machine.label} is not sound: {look['findings'][0]}")
        for what in ("vector", "events", "digest", "records", "conflicts"):
            if look[what] != first[what]:
                world.complain(f"{what} differ: {first[what]} and, on {machine.label}, {look[what]}")
    for complaint in _against_truth(first["log"], first["records"], first["list"]):
        world.complain(complaint)
    for complaint in world.ledger.judge(first["log"]):
        world.complain(complaint)
    world.note(f"all at {first['vector']}, digest {first['digest']}, {len(first['list'])} conflicts")


async def _look(engine: Engine) -> Seen:
    """What one replica says when asked."""
    report = await engine.verify()
    events = [event async for event in engine.events()]
    conflicts = [conflict async for conflict in engine.conflicts()]
    found = {}
    for name, key in sorted({event.record for event in events if event.key}):
        record = await engine.get(name, key) if name in engine.schemas else None
        found[name, key] = record and (record.version, record.deleted, record.values)
    checkpoint = await engine.checkpoint()
    if engine.position != len(events):
        report.findings.append(Finding("position", f"{engine.position} is told, {len(events)} events are there"))
    return {
        "findings": report.findings,
        "log": events,
        "events": sorted(event.hash for event in events),
        "vector": dict(sorted(checkpoint.vector.items())),
        "digest": await engine.digest(),
        "records": found,
        "list": conflicts,
        "conflicts": [_told(conflict) for conflict in conflicts],
    }


def _told(conflict: Conflict) -> tuple[Any, ...]:
    sides = {name: [(side.dot, side.value) for side in group] for name, group in conflict.sides.items()}
    closer = conflict.settled_by and (conflict.settled_by.replica, conflict.settled_by.seq)
    named = conflict.id, conflict.kind, conflict.collection, conflict.key
    return *named, conflict.status, sides, conflict.outcome, closer


def _against_truth(events: Sequence[Event], found: Mapping[Any, Any], listed: Sequence[Conflict]) -> Iterator[str]:
    yield from at_odds_with_time(events)
    truths = records(events)
    between = relations(truths)
    wanted = {dispute for truth in truths.values() for dispute in truth.disputes()} | between.keys()
    told = {
        Dispute(
            one.id,
            str(one.kind),
            tuple(sorted(name for name in one.sides if name)),
            rank(one.settled_by) if one.settled_by is not None else None,
        )
        for one in listed
    }
    if wanted != told or len(told) != len(listed):
        yield f"conflicts by definition {sorted(wanted - told, key=str)}, on the list {sorted(told - wanted, key=str)}"
    by_dot = {(event.replica, event.seq): event for event in events}
    for conflict in listed:
        yield from _visible(conflict, by_dot)
    writes = {dispute.id: [(event.replica, event.seq) for event in group] for dispute, group in between.items()}
    for conflict in listed:
        sides = [side.dot for group in conflict.sides.values() for side in group]
        if sides != writes.get(conflict.id, sides):
            yield f"conflict {conflict.id} is of {writes[conflict.id]} by definition, and is told of {sides}"
    for (name, key), truth in truths.items():
        if key:
            yield from _record(truth, truths[name, ""], found[name, key], f"{name} {key}")


def _visible(conflict: Conflict, events: Mapping[tuple[str, int], Event]) -> Iterator[str]:
    """Whether each side of a conflict is an event that is there, and says what the side says."""
    for name, group in conflict.sides.items():
        for side in group:
            event = events.get(side.dot)
            if event is None or side.value != _wrote(event, name, conflict.kind):
                yield f"conflict {conflict.id}: {side} is not what {event} wrote"
    if (
        conflict.kind is not ConflictKind.DEPENDENCY
        and len({side.dot for group in conflict.sides.values() for side in group}) < 2
    ):
        yield f"conflict {conflict.id} has a single side"


def _wrote(event: Event, name: str, kind: ConflictKind) -> Any:
    """What a side of a conflict says that this event wrote."""
    if kind is ConflictKind.UNIQUE:
        return event.key if name in event.data else None
    return event.data.get(name) if name else event.kind is not Kind.DELETE


def _record(truth: RecordTruth, definition: RecordTruth, found: Any, what: str) -> Iterator[str]:
    """Whether a record is what the standing writes and the policy make of it."""
    if found is None:
        yield f"{what} is not there"
        return
    _, deleted, values = found
    usual = definition.value("strategy", "last-write-wins")
    if truth.value("", usual) is deleted:
        yield f"{what} is {'deleted' if deleted else 'present'}, by definition it is not"
    for name in definition.writers:
        if name.startswith("field:"):
            spec = definition.value(name, "last-write-wins")
            field = name.removeprefix("field:")
            wanted = truth.value(field, spec.get("strategy") or usual)
            if wanted is not None:
                wanted = TYPES[spec["type"]].load(wanted)
            if values.get(field) != wanted:
                yield f"{what}: {field} is {values.get(field)!r}, by definition {wanted!r}"
