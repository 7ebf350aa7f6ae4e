"""Events that come from elsewhere: what is checked before the log is asked to take them. Pure.

A body is believed when it decodes, is canonical, and fits its replica's chain; the last is the log's to judge. An event
whose time is further ahead than the bound is refused, as it would drag every clock after it. Events that were written
together are handed on together, so a group is held back until its last event is there, unless it grows beyond what
memory is to hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from .clock import MAX_TIME, to_millis
from .conflict_list import OPEN, Disputed
from .errors import EventForked
from .events import Event, Head, canonical, decode
from .fold import State
from .frames import FrameRefused
from .ports import Record
from .replay import Sealed
from .schema import Schema
from .session import ClockAhead
from .values import DEPTH, INT_MAX, INT_MIN
from .vector import MAX_SEQ, includes, is_replica

GROUP_EVENTS = 100_000
GROUP_BYTES = 64 << 20
"""A group of events that were written together is taken in whole up to this size, and in parts beyond it."""


class Taken(msgspec.Struct):
    """What came of events that were taken in: how many were new, the records that were written apart, and those of them
    whose conflict is open."""

    events: int = 0
    merged: set[tuple[str, str]] = msgspec.field(default_factory=set[tuple[str, str]])
    open: set[tuple[str, str]] = msgspec.field(default_factory=set[tuple[str, str]])

    def add(self, other: Taken) -> None:
        """Counts in what came of further events."""
        self.events += other.events
        self.merged |= other.merged
        self.open = (self.open - other.merged) | other.open


class Intake:
    """The events of one peer on their way into the log; `now` is our wall clock in Unix milliseconds."""

    def __init__(self, peer: str, now: int, max_skew: int) -> None:
        self._peer = peer
        self._now = now
        self._max_skew = max_skew
        self._held: list[tuple[Event, bytes]] = []
        self._size = 0
        self._names: set[str] = set()
        self._begun: dict[str, int] = {}
        """The replicas of which a group has begun and not ended, with the seq that ends it."""

    def take(self, bodies: Sequence[bytes]) -> Sealed | None:
        """The events that may be applied now, those held back before included; None when there are none.

        Raises `FrameRefused` and `ClockAhead`.
        """
        whole, held = 0, self._held
        for body in bodies:
            event = self.event(body)
            held.append((event, body))
            self._size += len(body)
            end = self._begun.get(event.replica, 0)
            if event.seq < event.batch:
                self._begun[event.replica] = max(end, event.batch)
            elif event.seq >= end:
                self._begun.pop(event.replica, None)
            if not self._begun:
                whole = len(held)
        if len(held) > GROUP_EVENTS or self._size > GROUP_BYTES:
            whole = len(held)
        return self._hand_on(whole)

    def rest(self) -> Sealed | None:
        """What is left of a group whose end the sender does not have."""
        return self._hand_on(len(self._held))

    def _hand_on(self, count: int) -> Sealed | None:
        ready, self._held = self._held[:count], self._held[count:]
        self._size = sum(len(body) for _, body in self._held)
        if not ready:
            return None
        bodies = [body for _, body in ready]
        return Sealed([event for event, _ in ready], bodies, [sha256(body).digest() for body in bodies])

    def event(self, body: bytes) -> Event:
        """The event that a body is, if it may be taken in. Raises `FrameRefused` and `ClockAhead`."""
        try:
            event = decode(body)
            whole = canonical(event) == body
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameRefused(f"it is no event: {error}") from None
        if not whole or not self._makes_sense(event):
            raise FrameRefused(f"event {event.replica}:{event.seq} is not one that a replica writes")
        ahead = to_millis(event.time) - self._now
        if ahead > self._max_skew:
            raise ClockAhead(f"event {event.replica}:{event.seq} from {self._peer}", ahead, self._max_skew)
        return event

    def _makes_sense(self, event: Event) -> bool:
        """Whether the log, the folders and a version token can hold the event exactly."""
        if not (0 < event.seq <= event.batch <= MAX_SEQ and 0 <= event.time <= MAX_TIME):
            return False
        values = event.data.values()
        if not _PLAIN.issuperset(map(type, values)) and not all(map(is_json, values)):
            return False
        names = self._names
        for replica, seq in event.context.items():
            if not 0 < seq <= MAX_SEQ or (replica not in names and not self._is_name(replica)):
                return False
        return event.replica in names or self._is_name(event.replica)

    def _is_name(self, replica: str) -> bool:
        if not is_replica(replica):
            return False
        self._names.add(replica)
        return True


_PLAIN = {str, bool, type(None)}


def is_json(value: Any, depth: int = 0) -> bool:
    """Whether a decoded value is one of those that events hold: JSON types, 64-bit integers, finite numbers."""
    kind = type(value)
    if depth > DEPTH + 1:
        return False
    if kind in _PLAIN:
        return True
    if kind is int:
        return bool(INT_MIN <= value <= INT_MAX)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(type(name) is str and is_json(item, depth + 1) for name, item in value.items())
    return kind is list and all(is_json(item, depth + 1) for item in value)


def unknown(run: Sealed, heads: Mapping[str, Head]) -> Sealed:
    """The events of a run that a log with these heads lacks, each once, however often it is told.

    Raises `EventForked` where its newest is another.
    """
    fresh = []
    known = dict(heads)
    for index, event in enumerate(run.events):
        head = known.get(event.replica)
        if head is None or event.seq > head.seq:
            fresh.append(index)
            known[event.replica] = Head(event.seq, run.hashes[index])
        elif event.seq == head.seq and run.hashes[index] != head.hash:
            raise EventForked(event.replica, event.seq, head.hash.hex(), run.hashes[index].hex())
    if len(fresh) == len(run.events):
        return run
    return Sealed(
        [run.events[index] for index in fresh],
        [run.bodies[index] for index in fresh],
        [run.hashes[index] for index in fresh],
    )


def taken_of(
    events: Sequence[Event],
    before: Mapping[Record, State],
    disputes: Mapping[Record, Disputed],
    schemas: Mapping[str, Schema],
) -> Taken:
    """What came of events that were folded into the states `before`: a record is merged when one of its events had not
    seen all of what was there. `disputes` is what they did to the conflict list."""
    taken = Taken(len(events))
    for event in events:
        record = event.record
        state = before.get(record)
        if state is not None and not includes(event.context, state.version):
            taken.merged.add(record)
    for record in taken.merged:
        schema = schemas.get(record[0])
        entries = disputes[record].live if record in disputes else ()
        if schema is not None and any(entry.status(schema.policy) == OPEN for entry in entries):
            taken.open.add(record)
    return taken
