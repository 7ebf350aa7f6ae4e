"""What changed between two moments: plain functions over the log and the tables, in one visit to the store each.

What is compared is what a view of each moment shows. Only records of which one moment has an event that the other has
not can differ, and those events are known by their dots: what lies between the two vectors. So the cost goes with what
changed, not with the archive. Where so much lies between that its records could not be held in memory, all records are
gone through in their order instead; so they are, of a collection, when its fields or its strategy changed in between,
since that can settle or show records otherwise that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from .conflict import same
from .decide import settled_branches
from .errors import CollectionUnknown
from .events import ARCHIVE
from .fold import decode_state
from .moment import Cut, Moment
from .past import Name, Past, find_cut, schemas_at
from .ports import Changelog, Tables
from .record import Record, find_record
from .schema import Schema, to_data

HELD = 20_000
"""Events between two moments whose records are held in memory; beyond, all records are gone through."""

PAGE = 200
"""Records compared in one visit."""

_DOTS = 500


class Change(msgspec.Struct, frozen=True):
    """A field before and after."""

    old: Any
    new: Any


class Difference(msgspec.Struct, frozen=True):
    """A record that is not what it was: `created`, `changed` or `deleted`, with its fields that differ.

    Or a definition, whose key is empty and whose fields are the properties that differ: it is `defined`.
    """

    kind: str
    collection: str
    key: str
    fields: dict[str, Change]


class Sides(msgspec.Struct):
    """Two moments, what was defined at each, and what may differ.

    `touched` are the records with an event in between, None for all there are; `names` the collections to look at.
    """

    cuts: tuple[Cut, Cut]
    schemas: tuple[dict[str, Schema], dict[str, Schema]]
    touched: list[Name] | None
    names: list[str]


def _between(one: Mapping[str, int], other: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for replica in sorted({*one, *other}):
        low, high = sorted((one.get(replica, 0), other.get(replica, 0)))
        yield from ((replica, seq) for seq in range(low + 1, high + 1))


def _touched(one: Mapping[str, int], other: Mapping[str, int], log: Changelog) -> list[Name] | None:
    dots = _between(one, other)
    found: set[Name] = set()
    count = 0
    while part := list(islice(dots, _DOTS)):
        count += len(part)
        if count > HELD:
            return None
        found |= {event.record for event in log.at(sorted(log.positions(part)))}
    return sorted(found)


def sides(
    moments: tuple[Moment, Moment], record: tuple[str, str | None], now: int, log: Changelog, tables: Tables
) -> Sides:
    """What there is to compare; `record` is a collection or a record of one, empty for everything.

    Raises as `cut`, and `CollectionUnknown` for one that was defined at neither moment.
    """
    old, new = (find_cut(moment, now, log, tables) for moment in moments)
    schemas = schemas_at(old, log, tables), schemas_at(new, log, tables)
    collection, key = record
    known = {*schemas[0], *schemas[1]}
    if collection and collection not in known:
        raise CollectionUnknown(collection, sorted(known))
    names = [collection] if collection else sorted(known - {ARCHIVE})
    if key is None:
        return Sides((old, new), schemas, _touched(old.vector, new.vector, log), names)
    schema = schemas[1].get(collection) or schemas[0][collection]
    return Sides((old, new), schemas, [(collection, schema.key_text(key))], names)


def _shows_otherwise(old: Schema | None, new: Schema | None) -> bool:
    """Whether records that nobody wrote may look otherwise under another definition."""
    if old is None or new is None:
        return old is not new
    one, other = old.collection, new.collection
    return (one.fields, one.key, one.strategy, one.steps) != (other.fields, other.key, other.strategy, other.steps)


def definition(found: Sides, name: str) -> list[Difference]:
    """What changed in the definition of a collection, if anything did."""
    old, new = ({} if name not in schemas else to_data(schemas[name].collection) for schemas in found.schemas)
    fields = {
        field: Change(old.get(field), new.get(field))
        for field in {**old, **new}
        if not same(old.get(field), new.get(field))
    }
    return [Difference("defined", name, "", fields)] if fields else []


def page(found: Sides, name: str, after: str, log: Changelog, tables: Tables) -> tuple[list[Difference], str | None]:
    """The next records of a collection that differ, by key as text, and where the page after begins.

    A branch that keep-both shows comes after the record beside which it stands.
    """
    otherwise = _shows_otherwise(*(schemas.get(name) for schemas in found.schemas))
    if found.touched is not None and (not otherwise or len(found.touched) == 1 == len(found.names)):
        keys = [key for collection, key in found.touched if collection == name and key > after][:PAGE]
        rows = tables.load([(name, key) for key in keys])
    else:
        listed = dict(tables.records((name, after), PAGE))
        rows = {record: data for record, data in listed.items() if record[0] == name}
        keys = [key for _, key in rows]
    differences: list[Difference] = []
    pasts = [Past(cut, log, tables) for cut in found.cuts]
    then = [past.of(rows) for past in pasts]
    for record in sorted((name, key) for key in keys):
        old, new = (states.get(record) for states in then)
        if record in rows and old == new and not otherwise:
            continue
        shown = {record[1]: None}
        for past, states, schemas in zip(pasts, then, found.schemas, strict=True):
            if record in states and name in schemas:
                state = decode_state(states[record])
                shown |= dict.fromkeys(settled_branches(state, record, schemas[name], past.history))
        own = tables.load([(name, key) for key in shown])
        for key in shown:
            if key == record[1] or (name, key) not in own:
                differences += _compared(found, pasts, (name, key))
    return differences, keys[-1] if len(keys) == PAGE else None


def _compared(found: Sides, pasts: Sequence[Past], record: Name) -> list[Difference]:
    """How one record, or branch, differs."""
    name, key = record
    old_schema, new_schema = (schemas.get(name) for schemas in found.schemas)
    old, new = (_shown(past, schema, key) for past, schema in zip(pasts, (old_schema, new_schema), strict=True))
    if old is None and new is None:
        return []
    before, after = (record.values if record is not None else {} for record in (old, new))
    blank = {**_blank(new_schema), **_blank(old_schema)} if old is not None and new is not None else {}
    fields = {}
    for field in {**after, **before}:
        change = Change(before.get(field, blank.get(field)), after.get(field, blank.get(field)))
        if old is None or new is None or not same(change.old, change.new):
            fields[field] = change
    kind = "created" if old is None else "deleted" if new is None else "changed"
    return [Difference(kind, name, key, fields)] if fields else []


def _blank(schema: Schema | None) -> dict[str, Any]:
    return schema.load({}) if schema is not None else {}


def _shown(past: Past, schema: Schema | None, key: str) -> Record | None:
    """A record that a view shows, and None for one that is deleted."""
    record = find_record(schema, key, past.load, past.history) if schema is not None else None
    return record if record is not None and not record.deleted else None
