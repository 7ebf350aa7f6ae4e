"""Rules between records that a write of ours must leave true: references that lead somewhere, and values held once.

They bind what is written here and never what comes by sync, where breaking them is an open conflict. A group is judged
as a whole, by what its records are before and after it: so parents and children may stand in it in any order, and two
records may swap a value. Refused is what breaks a rule anew: taking a value that another record holds, setting a
reference to what is not there, removing what others refer to. A record that came to us broken can be written otherwise.

Where requests are answered each by itself, a record whose writes break a rule counts as it was before, and the others
are judged again, until none is broken that counts as written. So what rested on a refused write is refused with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .conflict_list import Record
from .decide import Request, settled_values
from .errors import ReferenceMissing, ReferredTo, RuleBroken, UniqueTaken
from .events import Event
from .fold import State, decode_state
from .references import references
from .schema import Schema
from .unique import Holder, UniqueValue, coded, holdings
from .values import show

NAMED = 3
"""Referrers that an error names."""


class Beside(Protocol):
    """What stands beside the records that are written: the part of `Tables` that rules ask."""

    def load(self, records: Iterable[Record]) -> dict[Record, bytes]:
        """See `Tables.load`."""

    def holders(self, values: Sequence[UniqueValue], limit: int) -> dict[UniqueValue, list[Holder]]:
        """See `Tables.holders`."""

    def referrers(self, target: Record, through: Sequence[tuple[str, str]], limit: int) -> list[Record]:
        """See `Tables.referrers`."""


class Stand(NamedTuple):
    """A record as rules see it: whether it is there, the unique values it holds, and the records that must be there
    because it refers to them, by field."""

    present: bool = False
    holds: Mapping[UniqueValue, Any] = {}
    refers: Mapping[str, Record] = {}


class Broken(NamedTuple):
    """What a record's writes break, and the field they break it with; none when they remove the record."""

    field: str
    error: RuleBroken


def has_rules(schemas: Mapping[str, Schema]) -> bool:
    """Whether there is any rule between records."""
    return any(schema.unique or schema.refusing for schema in schemas.values())


def foreseen(schemas: Mapping[str, Schema], requests: Iterable[Request]) -> tuple[set[Record], list[UniqueValue]]:
    """The records that requests refer to which must be there, and the unique values that they may take."""
    targets: set[Record] = set()
    values: dict[UniqueValue, None] = {}
    for request in requests:
        schema = schemas.get(request.collection)
        if schema is None or not (schema.unique or schema.refusing):
            continue
        targets.update(_refers(schema, request.values).values())
        taken = [field for field in schema.unique if request.values.get(field) is not None]
        values.update(dict.fromkeys(coded(schema.name, field, request.values[field]) for field in taken))
    return targets, list(values)


def _refers(schema: Schema, values: Mapping[str, Any]) -> dict[str, Record]:
    found = references(schema, values) if schema.refusing else {}
    return {field: target for field, target in found.items() if field in schema.refusing}


class Rules:
    """The rules of one commit, and what its groups have done to the records under them so far.

    `states` are those of all records that were asked for, None for one that never was; `values` are the unique values
    that the requests may take, looked for at once. `limit` is how many records the commit may touch.
    """

    def __init__(
        self,
        schemas: Mapping[str, Schema],
        beside: Beside,
        states: Mapping[Record, State | None],
        values: Sequence[UniqueValue],
        limit: int,
        history: Callable[[Record], Sequence[Event]],
    ) -> None:
        self._schemas, self._beside, self._history, self._limit = schemas, beside, history, limit
        self._through: dict[str, list[tuple[str, str]]] = {}
        for schema in schemas.values():
            for field, target in schema.refusing.items():
                self._through.setdefault(target, []).append((schema.name, field))
        self._ruled = {schema.name for schema in schemas.values() if schema.unique or schema.refusing}
        self._ruled |= self._through.keys()
        self._states = dict(states)
        self._holders: dict[UniqueValue, list[Holder]] = {}
        self._look_for(values)
        self._written: dict[Record, Stand] = {}
        self._holding: dict[UniqueValue, set[Record]] = {}
        self._referring: dict[Record, set[Record]] = {}
        self._group = _Group(self, {})

    def judge(self, before: Callable[[Record], State | None], after: Mapping[Record, State]) -> dict[Record, Broken]:
        """What a group breaks, by record, that leaves these states; in the order in which it wrote them first."""
        drafts = {
            record: (self._written.get(record) or self._stand(record, before(record)), self._stand(record, state))
            for record, state in after.items()
            if record[1] and record[0] in self._ruled
        }
        self._group = _Group(self, drafts)
        return self._group.broken()

    def accept(self) -> None:
        """The group that was judged last is written."""
        for record, (was, now) in self._group.drafts.items():
            self._written[record] = now
            for value in was.holds:
                self._holding.get(value, set()).discard(record)
            for target in was.refers.values():
                self._referring.get(target, set()).discard(record)
            for value in now.holds:
                self._holding.setdefault(value, set()).add(record)
            for target in now.refers.values():
                self._referring.setdefault(target, set()).add(record)

    def _stand(self, record: Record, state: State | None) -> Stand:
        schema = self._schemas.get(record[0])
        if schema is None or state is None:
            return Stand()
        values, present = settled_values(state, record, schema, self._history)
        if not present:
            return Stand()
        held = holdings(record[1], schema, state, values) if schema.unique else {}
        return Stand(True, {value: values[value.field] for value in held}, _refers(schema, values))

    def is_present(self, record: Record) -> bool:
        """Whether a record is there that the group does not touch."""
        if record in self._written:
            return self._written[record].present
        if record not in self._states:
            found = self._beside.load([record])
            self._states[record] = decode_state(found[record]) if record in found else None
        return self._stand(record, self._states[record]).present

    def _look_for(self, values: Sequence[UniqueValue]) -> None:
        if values:
            self._holders |= {value: [] for value in values} | self._beside.holders(values, self._limit + 1)

    def holder(self, value: UniqueValue, group: Collection[Record]) -> str | None:
        """The key of a record outside the group that holds a value."""
        if value not in self._holders:
            self._look_for([value])
        stored = [(value.collection, holder.key) for holder in self._holders[value]]
        others = [record for record in stored if record not in self._written]
        others += sorted(self._holding.get(value, ()))
        return next((key for collection, key in others if (collection, key) not in group), None)

    def referrers(self, target: Record, group: Collection[Record]) -> list[Record]:
        """Some records outside the group that need one to be there."""
        through = self._through.get(target[0], ())
        stored = self._beside.referrers(target, through, self._limit + NAMED) if through else []
        others = {record for record in stored if record not in self._written}
        others |= self._referring.get(target, set())
        return sorted(record for record in others if record not in group)


class _Group:
    """The records of one group under rules, each as it stood before and as it stands after; `undone` broke a rule."""

    def __init__(self, rules: Rules, drafts: Mapping[Record, tuple[Stand, Stand]]) -> None:
        self.rules, self.drafts = rules, drafts
        self.undone: dict[Record, Broken] = {}
        self.places = {record: place for place, record in enumerate(drafts)}
        self.holding: dict[UniqueValue, list[Record]] = {}
        self.referring: dict[Record, list[Record]] = {}
        for record, (was, now) in drafts.items():
            for value in {*was.holds, *now.holds}:
                self.holding.setdefault(value, []).append(record)
            for target in {*was.refers.values(), *now.refers.values()}:
                self.referring.setdefault(target, []).append(record)

    def broken(self) -> dict[Record, Broken]:
        """See `Rules.judge`."""
        settled = False
        while not settled:
            settled = True
            for record in self.drafts:
                found = self.breaks(record) if record not in self.undone else None
                if found is not None:
                    self.undone[record] = found
                    settled = False
        return self.undone

    def counted(self, record: Record) -> Stand:
        """How a record of the group counts."""
        return self.drafts[record][record not in self.undone]

    def breaks(self, record: Record) -> Broken | None:
        """What the writes of a record break."""
        was, now = self.drafts[record]
        for field, target in now.refers.items():
            if was.refers.get(field) != target and not self.is_present(target):
                return Broken(field, ReferenceMissing(*record, field, *target))
        for value, shown in now.holds.items():
            holder = self.holder(value, record) if value not in was.holds else None
            if holder is not None:
                return Broken(value.field, UniqueTaken(*record, value.field, show(shown), holder))
        referrers = self.referrers(record) if was.present and not now.present else []
        if not referrers:
            return None
        named = [f"{collection} {key!r}" for collection, key in referrers[:NAMED]]
        return Broken("", ReferredTo(*record, named + ["others"] * (len(referrers) > NAMED)))

    def is_present(self, record: Record) -> bool:
        """Whether a record is there once the group is written."""
        return self.counted(record).present if record in self.drafts else self.rules.is_present(record)

    def holder(self, value: UniqueValue, taker: Record) -> str | None:
        """The key of another record that holds a value, or took it earlier in the group."""
        for record in self.holding.get(value, ()):
            if record != taker and value in self.counted(record).holds:
                first = value in self.drafts[record][0].holds or self.places[record] < self.places[taker]
                if first:
                    return record[1]
        return self.rules.holder(value, self.drafts)

    def referrers(self, target: Record) -> list[Record]:
        """Some records that need one to be there."""
        own = [record for record in self.referring.get(target, ()) if target in self.counted(record).refers.values()]
        return own + self.rules.referrers(target, self.drafts)
