"""The conflict list: what a run of events adds to it, and what it tells of each conflict. Pure.

A conflict is *live* while its sides stand in the record's state, settled by a strategy or waiting for a person. It is
closed by the first event that writes the field anew and had seen sides that disagree: a person's resolution, or any
later edit. A closed conflict stays on the list, so no losing value ever goes out of sight.

Both are functions of the event set (invariant 4). What is live is read off the state. What an event x closes is read
off the state that the events in x's context make, which is the same wherever and whenever x arrives: when x had seen
all that stands, that is the state itself; otherwise it is folded from the record's history. A conflict that is closed
field by field stands on the list once for each set of fields; of several events that closed the same fields of it
without knowing each other, the first by (time, replica, seq) counts.

Fields and values are those of the collection's current schema version: `schemas` says how they are read. So a list is
made anew for a collection whose steps change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .conflict import Conflict, ConflictKind, Disagreements, Policy, Side, conflict_id, disagreements, settle
from .events import Event, Kind
from .fold import State, fold, is_concurrent, latest
from .schema import Schema
from .vector import covers, includes

Record = tuple[str, str]
Schemas = Mapping[str, Schema]
Rank = tuple[int, str, int]

OPEN, SETTLED, RESOLVED = "open", "settled", "resolved"
RESOLVES = "conflict"
"""In the meta of an event that was written to settle a conflict: the conflict's id."""

DERIVED = (ConflictKind.DEPENDENCY, ConflictKind.UNIQUE, ConflictKind.CONVERSION)
"""Kinds that are read off the records as they are settled now, and leave the list when it is no longer so."""

STATUSES = (OPEN, SETTLED, RESOLVED)
"""A conflict waits for a person; a strategy chose; an event that had seen both sides wrote anew."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One conflict as the list names it: the fields that disagree (none for presence), the time, replica and seq of
    the event that closed it, and whether that event was written to settle it."""

    id: str
    kind: ConflictKind
    collection: str
    key: str
    fields: list[str]
    closer: Rank | None = None
    by_hand: bool = False

    def status(self, policy: Policy) -> str:
        """How it stands under a policy."""
        if self.closer is not None:
            return RESOLVED
        if self.kind in DERIVED:
            return OPEN
        manual = any(policy.of(name) == "manual" for name in self.fields or [""])
        return OPEN if manual else SETTLED


class Quality(msgspec.Struct):
    """How many conflicts of a kind are on the list, by how they ended.

    `open`: a person is to settle it. `settled`: a strategy did, and it stands. `replaced`: a strategy did, and a later
    edit, by somebody who had seen both sides, wrote the field anew, as edits do. `resolved`: a person did.
    """

    open: int = 0
    settled: int = 0
    replaced: int = 0
    resolved: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.open + self.settled + self.replaced + self.resolved

    @property
    def automatic(self) -> float | None:
        """The share that needed nobody, 0 to 1; None where there was no conflict."""
        return (self.settled + self.replaced) / self.total if self.total else None


class Tally(msgspec.Struct, frozen=True):
    """How many rows of the list are alike: of one kind, collection and set of fields, and with one status."""

    kind: str
    collection: str
    is_definition: bool
    fields: tuple[str, ...]
    status: str
    by_hand: bool
    count: int


def quality(tallies: Iterable[Tally], schemas: Mapping[str, Any]) -> dict[str, Quality]:
    """The quality of each kind of conflict on a list.

    One that was closed by an edit that settles no conflict by name counts as resolved where the policy, as it is now,
    leaves the field to a person, and as replaced where it names a strategy.
    """
    found: dict[str, Quality] = {}
    for tally in tallies:
        one = found.setdefault(tally.kind, Quality())
        schema = None if tally.is_definition else schemas.get(tally.collection)
        policy = schema.policy if schema is not None else Policy()
        manual = any(policy.of(name) == "manual" for name in tally.fields or ("",))
        name = tally.status
        if name == RESOLVED and not tally.by_hand and not manual:
            name = "replaced"
        setattr(one, name, getattr(one, name) + tally.count)
    return dict(sorted(found.items()))


class Disputed(msgspec.Struct):
    """What a run of events does to one record's entries: those that are live after it, with what disagrees in them, and
    those it closed. `listed` tells whether any were live before."""

    live: list[Entry] = []
    sides: Disagreements = ({}, [])
    closed: list[Entry] = []
    listed: bool = False


class ConflictQuery(msgspec.Struct, frozen=True):
    """Which conflicts to list; empty texts stand for any. `after` is the id that the page before ended with."""

    status: str = ""
    kind: str = ""
    collection: str = ""
    key: str = ""
    id: str = ""
    limit: int = 500
    after: str = ""


class Listed(msgspec.Struct, frozen=True):
    """One row of the list."""

    entry: Entry
    status: str


def read_state(schemas: Schemas, record: Record, state: State) -> State:
    """A record's state as the current schema version has it; that of a definition as it is."""
    schema = schemas.get(record[0]) if record[1] else None
    return state if schema is None else schema.read(state)


def read_event(schemas: Schemas, event: Event) -> Event:
    """An event as the current schema version has it."""
    schema = schemas.get(event.collection)
    return event if schema is None else schema.read_event(event)


def _entry(record: Record, kind: ConflictKind, sides: Mapping[str, Sequence[Side]]) -> Entry:
    return Entry(conflict_id(sides), kind, *record, sorted(name for name in sides if name))


def live_entries(record: Record, state: State) -> list[Entry]:
    """The conflicts that stand in a record's state."""
    return _entries(record, _found(state))


def _found(state: State) -> Disagreements:
    return disagreements(state) if is_concurrent(state) else ({}, [])


def _entries(record: Record, found: Disagreements) -> list[Entry]:
    fields, presence = found
    entries = [_entry(record, ConflictKind.DELETION, {"": presence})] if presence else []
    return entries + ([_entry(record, ConflictKind.CONCURRENT_MODIFICATION, fields)] if fields else [])


def disputes_of(state: State, dot: tuple[str, int]) -> list[str]:
    """The ids of the conflicts live in a record's state that the event with this dot is a side of."""
    if not is_concurrent(state):
        return []
    fields, presence = disagreements(state)
    kinds: list[dict[str, list[Side]]] = [fields, {"": presence} if presence else {}]
    return [conflict_id(sides) for sides in kinds if any(side.dot == dot for group in sides.values() for side in group)]


def closed_sides(event: Event, seen: State) -> Disagreements:
    """The disagreements that an event closes, given the state of what it had seen: of fields, and of presence."""
    if not is_concurrent(seen):
        return {}, []
    fields, presence = disagreements(seen)
    return {name: sides for name, sides in fields.items() if name in event.data}, presence


def _closed(event: Event, seen: State) -> list[Entry]:
    entries = _entries(event.record, closed_sides(event, seen))
    closer = event.time, event.replica, event.seq
    return [msgspec.structs.replace(entry, closer=closer, by_hand=RESOLVES in event.meta) for entry in entries]


def folded(events: Iterable[Event]) -> State | None:
    """The state that events of one record make; None for none."""
    state = None
    for event in events:
        state = fold(state, event)
    return state


def seen_state(context: Mapping[str, int], history: Iterable[Event]) -> State | None:
    """The state that those events of a record make which a context covers; None when it covers none."""
    return folded(event for event in history if covers(context, event.replica, event.seq))


def disputes(
    events: Sequence[Event],
    before: Mapping[Record, State],
    after: Mapping[Record, State],
    history: Callable[[Sequence[Record]], Sequence[Event]],
    schemas: Schemas,
) -> dict[Record, Disputed]:
    """What a run of events does to the list, by record; records whose entries stay as they are are left out.

    `history` gives the events of some records that stand before the run; it is asked for those records only that one
    of the events had not seen all of. `schemas` are those that hold after the run.
    """
    apart: dict[Record, list[Event]] = {}
    found: dict[Record, Disputed] = {}
    earlier: dict[Record, list[Event]] = {}
    for event in events:
        earlier.setdefault((event.collection, event.key), []).append(event)
    for record, own in earlier.items():
        state = before.get(record)
        if state is None and len(own) == 1:
            continue
        for event in own:
            if state is not None:
                if not includes(event.context, state.version):
                    apart.setdefault(record, []).append(event)
                elif len(state.writes) > 1 and is_concurrent(standing := read_state(schemas, record, state)):
                    closed = _closed(read_event(schemas, event), standing)
                    found.setdefault(record, Disputed()).closed.extend(closed)
            if event is not own[-1]:
                state = fold(state, event)
    for record, closed in _closed_unseen(apart, earlier, history, schemas):
        found.setdefault(record, Disputed()).closed.extend(closed)
    for record, state in after.items():
        sides = _found(read_state(schemas, record, state)) if len(state.writes) > 1 else ({}, [])
        listed = record in before and any(_found(read_state(schemas, record, before[record])))
        if listed or record in found or any(sides):
            disputed = found.setdefault(record, Disputed())
            disputed.live, disputed.sides, disputed.listed = _entries(record, sides), sides, listed
    return found


def _closed_unseen(
    apart: Mapping[Record, Sequence[Event]],
    run: Mapping[Record, Sequence[Event]],
    history: Callable[[Sequence[Record]], Sequence[Event]],
    schemas: Schemas,
) -> Iterator[tuple[Record, list[Entry]]]:
    """What those events of a run close that had not seen all that stood, read off the history of their records."""
    past: dict[Record, list[Event]] = {record: [] for record in apart}
    for event in history(sorted(apart)) if apart else ():
        past[event.record].append(event)
    for record, late in apart.items():
        known = [*past[record], *run[record]]
        for event in late:
            seen = [other for other in known if covers(event.context, other.replica, other.seq)]
            state = folded(seen) if len(seen) > 1 else None
            read = read_state(schemas, record, state) if state is not None else None
            closed = _closed(read_event(schemas, event), read) if read is not None else []
            if closed:
                yield record, closed


def describe(
    entry: Entry, status: str, state: State, policy: Policy, history: Sequence[Event], schemas: Schemas
) -> Conflict | None:
    """All there is to say of one conflict; None when the state and the history do not have it."""
    record = entry.collection, entry.key
    state = read_state(schemas, record, state)
    closer = None
    if entry.closer is None:
        read = [read_event(schemas, event) for event in history]
        found = next((one for one in settle(*record, state, policy, read).conflicts if one.id == entry.id), None)
        if found is None:
            return None
        sides, strategy, outcome = found.sides, found.strategy, found.outcome
    else:
        closer = next((event for event in history if (event.time, event.replica, event.seq) == entry.closer), None)
        seen = seen_state(closer.context, history) if closer is not None else None
        if closer is None or seen is None:
            return None
        told = read_event(schemas, closer).data
        fields, presence = closed_sides(read_event(schemas, closer), read_state(schemas, record, seen))
        sides = {"": presence} if entry.kind is ConflictKind.DELETION else fields
        strategy = "+".join(sorted({policy.of(name) for name in sides}))
        outcome = {name: told[name] if name else closer.kind is not Kind.DELETE for name in sides}
    dots = {side.dot for group in sides.values() for side in group}
    events = sorted(
        (event for event in history if (event.replica, event.seq) in dots),
        key=lambda event: (event.time, event.replica, event.seq),
    )
    return Conflict(
        entry.id,
        entry.kind,
        *record,
        sides,
        strategy,
        outcome,
        status == OPEN,
        status,
        common_base(list(sides), events, history, schemas),
        events,
        closer,
    )


def common_base(
    fields: Sequence[str], sides: Sequence[Event], history: Sequence[Event], schemas: Schemas
) -> dict[str, Any]:
    """What the fields were in what all sides had seen; fields that were not there are left out."""
    state = folded(event for event in history if all(covers(side.context, event.replica, event.seq) for side in sides))
    if state is None:
        return {}
    values, present = latest(read_state(schemas, history[0].record, state))
    return {name: values[name] if name else present for name in fields if not name or name in values}
