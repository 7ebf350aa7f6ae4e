"""Random causal histories, and what they mean by the definition: slow, and written without looking at the fold."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Any

from hypothesis import strategies as st

from refold.events import Event, Kind
from refold.fold import State, Write
from refold.schema import Collection, Field
from refold.testing import Scribe

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "n": st.none() | st.integers(-3, 3) | st.just(2**63 - 1),
    "x": st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e300, -1e300, 1e-300]),
    "s": st.sampled_from(["", "a", "b", "ä"]),
    "tags": st.lists(st.sampled_from([1, 1.0, True, "1", None]), max_size=2),
    "price": st.sampled_from(["0", "1.10", "1.1", "-12345678901234567890123456789.01", "1E+5"]),
}
RECORDS = ["1", "2"]
SPEC = {
    "id": Field("str"),
    "n": Field("int", null=True),
    "x": Field("float", null=True),
    "s": Field("str", null=True),
    "tags": Field("json", null=True),
    "price": Field("decimal", null=True),
}
THINGS = Collection(name="things", key="id", fields=SPEC)


@st.composite
def histories(
    draw: st.DrawFn,
    *,
    fields: Sequence[str] = tuple(FIELDS),
    records: Sequence[str] = RECORDS,
    max_steps: int = 14,
) -> list[Event]:
    """What two to five replicas write, each knowing its own events and what it was shown of the others'.

    A replica is shown a prefix of what another knows, in the order that one learnt it; that is causally closed. Clocks
    are off by little, so that times tie, or by much. The events come in an order in which they may have happened.
    """
    clocks = draw(st.lists(st.integers(1, 3) | st.integers(1, 10**12), min_size=2, max_size=5))
    scribes = [Scribe("edcba"[number], _stuck(now)) for number, now in enumerate(clocks)]
    values = st.fixed_dictionaries({}, optional={name: FIELDS[name] for name in fields})
    whose = st.sampled_from(scribes)
    events: list[Event] = []
    for _ in range(draw(st.integers(1, max_steps))):
        scribe = draw(whose)
        action = draw(st.sampled_from(["write", "write", "write", "delete", "see", "see all"]))
        if action in {"see", "see all"}:
            shown = list(draw(whose).seen.values())
            scribe.see(shown if action == "see all" else shown[: draw(st.integers(0, len(shown)))])
        else:
            key = draw(st.sampled_from(records))
            data = draw(values) if action == "write" else None
            events.append(scribe.write("things", key, data, Kind.RESOLVE if data == {} else None))
    return events


def _stuck(now: int) -> Any:
    return lambda: now


def reordered(events: Sequence[Event], random: Random) -> list[Event]:
    """Another causal order of the same events."""
    waiting, order = list(events), []
    known: dict[str, int] = {}
    while waiting:
        ready = [
            event
            for event in waiting
            if event.seq == known.get(event.replica, 0) + 1
            and all(known.get(replica, 0) >= seq for replica, seq in event.context.items())
        ]
        event = random.choice(ready)
        waiting.remove(event)
        known[event.replica] = event.seq
        order.append(event)
    return order


def with_repeats(events: Sequence[Event], random: Random) -> list[Event]:
    """The same events, some of them told again at some later point."""
    order: list[Event] = []
    for event in events:
        order.append(event)
        order += random.sample(order, random.randint(0, min(2, len(order))))
    return order


def saw(later: Event, earlier: Event) -> bool:
    """earlier ≺ later."""
    return later.context.get(earlier.replica, 0) >= earlier.seq


def rank(event: Event) -> tuple[int, str, int]:
    return event.time, event.replica, event.seq


def maximal(writes: Sequence[Event]) -> list[Event]:
    """The writes that no other of them had seen, first written first."""
    return sorted((one for one in writes if not any(saw(other, one) for other in writes)), key=rank)


def writes_of(events: Sequence[Event], field: str) -> list[Event]:
    return [event for event in events if field in event.data]


def meaning(events: Sequence[Event]) -> State:
    """The state of one record by definition: of every field, and of presence, the maximal writes."""
    left: dict[tuple[str, int], dict[str, Any]] = {}
    for field in {field for event in events for field in event.data}:
        for event in maximal(writes_of(events, field)):
            left.setdefault((event.replica, event.seq), {})[field] = event.data[field]
    presence = {(event.replica, event.seq) for event in maximal(events)}
    version: dict[str, int] = {}
    for event in events:
        version[event.replica] = max(version.get(event.replica, 0), event.seq)
    kept = [event for event in sorted(events, key=rank) if (event.replica, event.seq) in {*left, *presence}]
    return State(version, [_write(event, left, presence) for event in kept])


def _write(event: Event, left: dict[tuple[str, int], dict[str, Any]], presence: set[tuple[str, int]]) -> Write:
    dot = event.replica, event.seq
    present = event.kind is not Kind.DELETE if dot in presence else None
    return Write(event.time, event.replica, event.seq, present, left.get(dot, {}))


def total_of(writes: Sequence[Event], field: str) -> Fraction:
    """The sum of what each write added to the total of all that it had seen, in exact numbers."""
    added: dict[tuple[str, int], Fraction] = {}

    def of(event: Event) -> Fraction:
        dot = event.replica, event.seq
        if dot not in added:
            added[dot] = number(event.data[field]) - sum((of(one) for one in writes if saw(event, one)), Fraction())
        return added[dot]

    return sum((of(event) for event in writes), Fraction())


def number(value: Any) -> Fraction:
    return Fraction(str(value)) if value is not None else Fraction()
