"""What a set of events means, by the definitions: worked out from the events alone, without the code that is judged.

Events of a record are numbered, and sets of them are the bits of a number; `seen[i]` are those that event i had seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from refold.events import Event, Kind

Rank = tuple[int, str, int]
Named = tuple[str, str, tuple[str, ...]]
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Dispute(NamedTuple):
    """A disagreement: its id, its kind, its fields, and the event that closed it first, if one did."""

    id: str
    kind: str
    fields: tuple[str, ...]
    closer: Rank | None


def rank(event: Event) -> Rank:
    """Where an event stands among those that had not seen it."""
    return event.time, event.replica, event.seq


class RecordTruth:
    """The events of one record, in the order of their ranks, and who of them had seen whom."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = sorted(events, key=rank)
        self.everything = (1 << len(self.events)) - 1
        self.seen = [
            sum(1 << i for i, one in enumerate(self.events) if event.context.get(one.replica, 0) >= one.seq)
            for event in self.events
        ]
        self.writers: dict[str, int] = {"": self.everything}
        for index, event in enumerate(self.events):
            for name in event.data:
                self.writers[name] = self.writers.get(name, 0) | 1 << index

    def standing(self, view: int, name: str) -> list[Event]:
        """The writes of a field (of presence, without a name) in a view that no other of them had seen."""
        writes = view & self.writers.get(name, 0)
        overruled = 0
        for index in _bits(writes):
            overruled |= self.seen[index]
        return [self.events[index] for index in _bits(writes & ~overruled)]

    def split(self, view: int, names: Sequence[str]) -> dict[str, list[Event]]:
        """The fields whose standing writes in a view do not say the same."""
        standing = {name: self.standing(view, name) for name in names}
        return {
            name: group for name, group in standing.items() if len({_encode(_said(event, name)) for event in group}) > 1
        }

    def disputes(self) -> list[Dispute]:
        """Every disagreement that stands, and every one that an event had seen and closed."""
        closed: dict[Named, Rank] = {}
        for index, event in enumerate(self.events):
            for named in _disputes(self.split(self.seen[index], ["", *event.data])):
                closed[named] = min(closed.get(named, rank(event)), rank(event))
        live = _disputes(self.split(self.everything, list(self.writers)))
        return [Dispute(*one, None) for one in live] + [Dispute(*one, closer) for one, closer in closed.items()]

    def value(self, name: str, strategy: str) -> Any:
        """What a field is (whether the record is present, without a name) under a strategy."""
        group = self.standing(self.everything, name)
        said = [_said(event, name) for event in group]
        if len({_encode(value) for value in said}) < 2:
            return said[-1] if said else None
        known = [value for value in said if value is not None]
        match strategy:
            case "first-write-wins":
                return said[0]
            case "keep-both" if not name:
                return True
            case "max" if name:
                return max(known)
            case "min" if name:
                return min(known)
            case "sum" if name:
                return self._sum(name)
            case "union" if name and len(known) == len(said):
                return sorted({member for value in known for member in value})
            case _:
                return said[-1]

    def _sum(self, name: str) -> int:
        added: dict[int, int] = {}
        for index in _bits(self.writers[name]):
            before = sum(added[one] for one in _bits(self.seen[index]) if one in added)
            added[index] = (self.events[index].data[name] or 0) - before
        return sum(added.values())


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def _said(event: Event, name: str) -> Any:
    return event.data[name] if name else event.kind is not Kind.DELETE


def _disputes(split: Mapping[str, list[Event]]) -> list[Named]:
    names = tuple(sorted(name for name in split if name))
    fields = {(event.replica, event.seq) for name, group in split.items() if name for event in group}
    found: list[Named] = [(_id(fields), "concurrent-modification", names)] if fields else []
    if "" in split:
        found.append((_id({(event.replica, event.seq) for event in split[""]}), "deletion-conflict", ()))
    return found


def _id(dots: set[tuple[str, int]]) -> str:
    return sha256(_encode(sorted(dots))).hexdigest()[:16]


def records(events: Sequence[Event]) -> dict[tuple[str, str], RecordTruth]:
    """The truth of every record that the events are about."""
    own: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        own.setdefault((event.collection, event.key), []).append(event)
    return {record: RecordTruth(group) for record, group in own.items()}


class Held(NamedTuple):
    """A field of a record that is there: what it is now, and the write that says so."""

    record: tuple[str, str]
    field: str
    spec: Mapping[str, Any]
    value: Any
    by: Event


def _held(truths: Mapping[tuple[str, str], RecordTruth]) -> Iterator[Held]:
    """Every value that is not null of every record that is there, by the definitions as they are."""
    for record, truth in truths.items():
        definition = truths.get((record[0], ""))
        if not record[1] or definition is None:
            continue
        usual = definition.value("strategy", "last-write-wins")
        if not truth.value("", usual):
            continue
        for name in sorted(definition.writers):
            if name.startswith("field:"):
                spec, field = definition.value(name, "last-write-wins"), name.removeprefix("field:")
                writes = truth.standing(truth.everything, field)
                value = truth.value(field, spec.get("strategy") or usual)
                if value is not None and writes:
                    says = [event for event in writes if _encode(event.data[field]) == _encode(value)]
                    yield Held(record, field, spec, value, (says or writes)[-1])


def relations(truths: Mapping[tuple[str, str], RecordTruth]) -> dict[Dispute, list[Event]]:
    """References that lead to no record, and unique values that several records hold, each with the writes it is of."""
    held = list(_held(truths))
    there = {one.record for one in held}
    found: dict[Dispute, list[Event]] = {}
    groups: dict[tuple[str, str, bytes], list[Event]] = {}
    for one in held:
        target = one.spec.get("references")
        if target is not None and (target, str(one.value)) not in there:
            found[_about(one.field, "dependency-conflict", [one.by])] = [one.by]
        if one.spec.get("unique"):
            groups.setdefault((one.record[0], one.field, _encode(one.value)), []).append(one.by)
    for (_, field, _), writes in groups.items():
        if len(writes) > 1:
            writes.sort(key=rank)
            found[_about(field, "unique-conflict", writes[:2])] = writes
    return found


def _about(field: str, kind: str, writes: Sequence[Event]) -> Dispute:
    dots = sorted((event.replica, event.seq) for event in writes)
    return Dispute(sha256(_encode([field, dots])).hexdigest()[:16], kind, (field,), None)


def at_odds_with_time(events: Sequence[Event]) -> Iterator[str]:
    """Events that are not later than what they had seen, or that say they had not seen their own writer's."""
    newest: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: (event.replica, event.seq)):
        before = newest.get(event.replica)
        if before is not None and before.time >= event.time:
            yield f"{event.replica}:{event.seq} is not later than the event before it"
        newest[event.replica] = event
    for truth in records(events).values():
        for index, event in enumerate(truth.events):
            if truth.seen[index] >> index:
                yield f"{event.replica}:{event.seq} is not later than what it had seen"
            for one in truth.events:
                if one.replica == event.replica and event.context.get(one.replica, 0) < one.seq < event.seq:
                    yield f"{event.replica}:{event.seq} had not seen {one.replica}:{one.seq} of its own writer"
