"""Writers of histories for tests: replicas that see what they are shown and write events with true contexts.

A scribe knows a causally closed set of events, so the context it states is that of a real writer. The clock is an
argument and may be wrong by as much as a test likes: nothing that is derived may depend on it but ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from refold.clock import HybridClock
from refold.events import GENESIS, Event, Head, Kind, decode, seal
from refold.fold import State, fold, latest
from refold.ports import Changelog, Record
from refold.schema import Collection, to_data

E = TypeVar("E", bound=BaseException)

START = 1_700_000_000_000
"""Where the clocks of tests start, in Unix milliseconds."""


class Ticks:
    """A clock that goes on by `step` milliseconds each time it is read; `now` may be set."""

    def __init__(self, now: int = START, step: int = 1) -> None:
        self.now = now
        self.step = step

    def __call__(self) -> int:
        self.now += self.step
        return self.now


class Scribe:
    """One replica: the events it has seen, the chain it has written."""

    def __init__(self, replica: str, now: Callable[[], int] | None = None) -> None:
        self.replica = replica
        self.head = Head(0, GENESIS)
        self.states: dict[Record, State] = {}
        self.seen: dict[tuple[str, int], Event] = {}
        self.clock = HybridClock(now or Ticks())

    def write(
        self,
        collection: str,
        key: str,
        data: Mapping[str, Any] | None = None,
        kind: Kind | None = None,
        **fields: Any,
    ) -> Event:
        """The next event: a create or update with `data`, a delete without."""
        state = self.states.get((collection, key))
        if kind is None:
            present = state is not None and latest(state)[1]
            kind = Kind.DELETE if data is None else Kind.UPDATE if present else Kind.CREATE
        seq = self.head.seq + 1
        told: dict[str, Any] = {"actor": "", "version": 1, "batch": seq, "request_id": None, "meta": {}, **fields}
        event = Event(
            replica=self.replica,
            seq=seq,
            time=self.clock.tick(),
            kind=kind,
            collection=collection,
            key=key,
            data=dict(data or {}),
            context=dict(state.version) if state is not None else {},
            prev=self.head.hash,
            **told,
        )
        self.head = Head(seq, event.hash)
        self.see([event])
        return event

    def define(self, collection: Collection) -> Event:
        """The event that defines a collection, in full."""
        return self.write(collection.name, "", to_data(collection), Kind.DEFINE)

    def see(self, events: Iterable[Event]) -> None:
        """Takes in events of others, given in a causal order; known ones are left out."""
        for event in events:
            if (event.replica, event.seq) not in self.seen:
                self.seen[event.replica, event.seq] = event
                self.states[event.record] = fold(self.states.get(event.record), event)
                self.clock.observe(event.time)


def append(log: Changelog, events: Sequence[Event]) -> list[Event]:
    """Appends events as one run; the same events with their positions."""
    sealed = [seal(event) for event in events]
    first = log.append(events, [body for body, _ in sealed], [digest for _, digest in sealed])
    return [decode(body, first + offset) for offset, (body, _) in enumerate(sealed)]


def caught(kind: type[E], function: Callable[..., object], *arguments: Any) -> E:
    """The error of this kind that the call raises; AssertionError when it raises none."""
    try:
        function(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
