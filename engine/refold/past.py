"""What stood at a moment: plain functions over the log and the tables, in one visit to the store each.

A state is a function of the record's events, so what it was is folded from those of them that belong to the moment.
Most records need not even that: when all that a state has seen belongs to the moment, it is the state of then. So one
record costs its own history and no other, and a list costs the histories of those that changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .conflict import same
from .decide import settled_branches
from .errors import FieldUnknown
from .events import TAGS, Event, canonical, decode, is_event
from .fold import DIGEST_MODULUS, State, decode_state, encode_state, fold, state_hash
from .moment import AtVector, Cut, Moment, cut, named
from .ports import Changelog, Tables
from .record import Record, load_record
from .replay import schema_of
from .schema import Schema
from .vector import includes

Name = tuple[str, str]
START = "", ""
"""Stands before every record."""

PAGE = 200
"""Records looked at in one visit."""

_EVENTS = 1000


class Past:
    """The states of records, and their histories, as they were when a moment's events were all there was."""

    def __init__(self, cut: Cut, log: Changelog, tables: Tables) -> None:
        self._cut = cut
        self._log = log
        self._tables = tables

    def load(self, records: Sequence[Name]) -> dict[Name, bytes]:
        """The states of those records that there were then, as `Tables.load` gives those of now."""
        return self.of(self._tables.load(records))

    def of(self, found: Mapping[Name, bytes]) -> dict[Name, bytes]:
        """What these states of now were then; records that were not there yet are left out."""
        then: dict[Name, bytes] = {}
        changed = []
        for record, data in found.items():
            if includes(self._cut.vector, decode_state(data).version):
                then[record] = data
            elif not (is_event(data) and not decode(data).context):
                changed.append(record)
        states: dict[Name, State] = {}
        newest: dict[Name, Event] = {}
        for event in self._events(changed) if changed else ():
            states[event.record] = fold(states.get(event.record), event)
            newest[event.record] = event
        return then | {record: encode_state(state, canonical(newest[record])) for record, state in states.items()}

    def _events(self, records: Sequence[Name]) -> Iterable[Event]:
        positions = self._tables.history(records)
        for start in range(0, len(positions), _EVENTS):
            for event in self._log.at(positions[start : start + _EVENTS]):
                if self._cut.has(event):
                    yield event

    def history(self, record: Name) -> list[Event]:
        """The events of a record that belong to the moment, in the order of the log."""
        return list(self._events([record]))


def find_cut(moment: Moment, now: int, log: Changelog, tables: Tables) -> Cut:
    """The cut of a moment, as far as the tables have come, which may be behind the log. Raises as `cut`."""

    def tags() -> dict[str, dict[str, int]]:
        data = tables.load([TAGS]).get(TAGS)
        return named(decode_state(data) if data is not None else None)

    folded = tables.checkpoint().vector
    found = cut(moment, log, tags, now)
    if includes(folded, found.vector):
        return found
    both = {replica: min(seq, folded.get(replica, 0)) for replica, seq in found.vector.items()}
    upto = cut(AtVector({replica: seq for replica, seq in both.items() if seq}), log, tags, now)
    return msgspec.structs.replace(upto, moment=moment)


def schemas_at(cut: Cut, log: Changelog, tables: Tables) -> dict[str, Schema]:
    """What was defined at a moment."""
    defined = {(name, ""): data for name, data in tables.definitions().items()}
    then = Past(cut, log, tables).of(defined)
    return {name: schema_of(name, decode_state(data)) for (name, _), data in sorted(then.items())}


def opening(moment: Moment, now: int, log: Changelog, tables: Tables) -> tuple[Cut, dict[str, Schema]]:
    """The cut of a moment and what was defined then."""
    found = find_cut(moment, now, log, tables)
    return found, schemas_at(found, log, tables)


class Found(msgspec.Struct):
    """One page of a collection at a moment; `after` is where the next one begins, None behind the last.

    `beside` are branches that keep-both shows and whose place in the order of keys is yet to come: those of records
    whose key begins the key that the page ended with, so they are few.
    """

    records: list[Record]
    after: str | None
    beside: list[Record]


def fits(schema: Schema, where: Mapping[str, Any]) -> Callable[[Record], bool]:
    """Whether a record's fields equal some values. Raises `FieldUnknown`, `ValueRefused`."""
    for name in where:
        if name not in schema.types:
            raise FieldUnknown(schema.name, name, list(schema.columns))
    stored = schema.load(schema.store({name: value for name, value in where.items() if value is not None}))
    wanted = {name: stored[name] if value is not None else None for name, value in where.items()}
    return lambda record: all(same(record.values[name], value) for name, value in wanted.items())


def page(cut: Cut, schema: Schema, after: str, beside: Sequence[Record], log: Changelog, tables: Tables) -> Found:
    """The records of a collection that were present at a moment, by key as text, from behind `after` on."""
    past = Past(cut, log, tables)
    rows = tables.records((schema.name, after), PAGE)
    own = {record: data for record, data in rows if record[0] == schema.name}
    then = past.of(own)
    records: list[Record] = []
    waiting = list(beside)
    for name in own:
        passed = [branch for branch in waiting if branch.key < name[1] or (branch.key == name[1] and name not in then)]
        waiting = [branch for branch in waiting if branch.key > name[1]]
        records += passed
        if name not in then:
            continue
        record = load_record(schema, name[1], then[name], past.history)
        records += [] if record.deleted else [record]
        if schema.keeps_both:
            keys = settled_branches(decode_state(then[name]), name, schema, past.history)
            waiting += [load_record(schema, key, then[name], past.history) for key in keys]
            waiting.sort(key=lambda branch: branch.key)
    if len(own) < PAGE:
        return Found(records + waiting, None, [])
    return Found(records, rows[-1][0][1], waiting)


def digest_page(cut: Cut, after: Name, log: Changelog, tables: Tables) -> tuple[int, Name | None]:
    """The share that the next records have in the digest of a moment, and the last of them; None when none was left."""
    rows = dict(tables.records(after, PAGE))
    then = Past(cut, log, tables).of(rows)
    total = sum(state_hash(*record, data) for record, data in then.items())
    return total % DIGEST_MODULUS, max(rows, default=None)
