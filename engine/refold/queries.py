"""What can be asked of an archive in one visit to its store: plain functions over the log and the tables.

Each reads one moment, so what it returns fits together. `Reader` runs them where the store reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec

from .blame import Blame
from .blame import blame as blamed
from .conflict import Conflict, ConflictKind, Policy
from .conflict_list import DERIVED, ConflictQuery, Entry, Listed, describe
from .conversions import describe_conversion
from .decide import settled_values
from .events import Checkpoint, Event, Head, decode
from .fold import State, decode_state
from .moment import vector_at
from .ports import Changelog, Query, Tables
from .record import Record, find_record, load_record, stored_values
from .references import describe_dangling
from .replay import events_after, load_schemas, newest_time
from .schema import Schema
from .unique import SHOWN, clash, coded, describe_clash

READ_BATCH = 500
"""Events or records fetched from the store at once."""

CHAIN_BATCH = 2000
"""Events fetched at once that are hashed and not decoded in full."""


def standing(log: Changelog, tables: Tables) -> tuple[str, Mapping[str, Schema], Checkpoint, int]:
    """Whose log it is, what is defined, how far the tables have come, and the newest time in the log."""
    return log.replica(), load_schemas(tables), tables.checkpoint(), newest_time(log)


def record(schema: Schema, key: str, log: Changelog, tables: Tables) -> Record | None:
    """A record, or a branch that keep-both shows beside one; None when it never was."""

    def history(record: tuple[str, str]) -> Sequence[Event]:
        return log.at(tables.history([record]))

    return find_record(schema, key, tables.load, history)


def blame(schema: Schema, key: str, log: Changelog, tables: Tables) -> Blame | None:
    """Who made a record what it is; None when it never was."""
    return blamed(schema, key, tables.load, lambda record: log.at(tables.history([record])), log)


def _derived(entry: Entry, state: State, schema: Schema, history: Sequence[Event]) -> Conflict | None:
    values, _ = settled_values(state, (entry.collection, entry.key), schema, lambda record: history)
    if entry.kind is ConflictKind.CONVERSION:
        conflict = describe_conversion(entry, schema, state, values)
    else:
        conflict = describe_dangling(entry, schema.read(state), values)
    if conflict is None:
        return None
    dots = {side.dot for sides in conflict.sides.values() for side in sides}
    return msgspec.structs.replace(conflict, events=[event for event in history if event.dot in dots])


def _clash(entry: Entry, state: State, schema: Schema, log: Changelog, tables: Tables) -> Conflict | None:
    """A unique conflict with those that hold the value, whom its first holder leads to."""

    def history(record: tuple[str, str]) -> Sequence[Event]:
        return log.at(tables.history([record]))

    values, _ = settled_values(state, (entry.collection, entry.key), schema, history)
    value = coded(schema.name, entry.fields[0], values.get(entry.fields[0]))
    holders = tables.holders([value], SHOWN).get(value, [])
    if clash(value, holders) != entry:
        return None
    events = log.at(sorted(log.positions([(holder.replica, holder.seq) for holder in holders])))
    return describe_clash(entry, value, holders, events)


def states(records: Sequence[tuple[str, str]], _log: Changelog, tables: Tables) -> dict[tuple[str, str], bytes]:
    """The states of records that ever were."""
    return tables.load(records)


def conflicts(
    query: ConflictQuery, schemas: Mapping[str, Schema], strategy: str | None, log: Changelog, tables: Tables
) -> tuple[list[Listed], list[Conflict]]:
    """One page of the conflict list, as entries and described in full."""
    page = _whole(tables.conflicts(query), query.limit)
    states = tables.load({(listed.entry.collection, listed.entry.key) for listed in page})
    found = []
    for listed in page:
        record = listed.entry.collection, listed.entry.key
        schema = schemas.get(record[0])
        policy = schema.policy if schema is not None and record[1] else Policy()
        history = log.at(tables.history([record]))
        status = listed.status
        if strategy is not None:
            policy = Policy(strategy, {}, policy.types)
            status = listed.entry.status(policy)
        if listed.entry.kind is ConflictKind.UNIQUE and schema is not None:
            held = _clash(listed.entry, decode_state(states[record]), schema, log, tables)
            found += [held] if held is not None else []
            continue
        if listed.entry.kind in DERIVED and schema is not None:
            conflict = _derived(listed.entry, decode_state(states[record]), schema, history)
            found += [conflict] if conflict is not None else []
            continue
        conflict = describe(listed.entry, status, decode_state(states[record]), policy, history, schemas)
        if conflict is not None:
            found.append(conflict)
    return page, found


def _whole(page: list[Listed], limit: int) -> list[Listed]:
    """The page without its last id if more of that id may follow: a live conflict and closed ones can have the same."""
    if len(page) < limit or page[0].entry.id == page[-1].entry.id:
        return page
    return [listed for listed in page if listed.entry.id != page[-1].entry.id]


def find(schema: Schema, query: Query, log: Changelog, tables: Tables) -> list[tuple[tuple[Any, ...], Record]]:
    """One page of records that are present, each with where it stands in the order."""
    return [
        (rank, load_record(schema, key, data, lambda record: log.at(tables.history([record]))))
        for rank, key, data in tables.find(query, schema)
    ]


def stored_fields(
    schema: Schema, names: Sequence[str], query: Query, log: Changelog, tables: Tables
) -> tuple[tuple[Any, ...] | None, list[tuple[Any, ...]]]:
    """One page of records that are present: where it ends, and of each the key and some fields as they are stored."""
    blanks = [(name, schema.blank[name]) for name in names]
    found = tables.find(query, schema)
    rows = []
    for _, key, data in found:
        values, _ = stored_values(schema, key, decode_state(data), lambda record: log.at(tables.history([record])))
        rows.append((key, *[values.get(name, blank) for name, blank in blanks]))
    return found[-1][0] if found else None, rows


def events(after: int, log: Changelog, _tables: Tables) -> list[Event]:
    """The next events after a position."""
    return events_after(log, after, READ_BATCH)


def bodies(after: int, end: int, log: Changelog, _tables: Tables) -> list[tuple[int, bytes]]:
    """The canonical bytes of the next events after a position, up to an end."""
    return log.bodies(after, max(0, min(CHAIN_BATCH, end - after)))


def hashes(
    dots: Sequence[tuple[str, int]], log: Changelog, _tables: Tables | None = None
) -> dict[tuple[str, int], bytes]:
    """The hashes of the events with these dots."""
    return {event.dot: event.hash for event in log.at(sorted(log.positions(dots)))}


def stretch(after: int, log: Changelog, _tables: Tables) -> dict[str, Head]:
    """Where each replica stands at a position, by the bytes of the events that are stored there."""
    dots = [(replica, seq) for replica, seq in vector_at(log, after).items() if seq]
    return {replica: Head(seq, sha256(stored).digest()) for replica, seq, stored in _bodies_of(dots, log)}


def followers(heads: Mapping[str, Head], log: Changelog, _tables: Tables) -> dict[str, Head]:
    """What the events that follow these heads say of them; of those that cannot be read, nothing."""
    found = {}
    for replica, seq, stored in _bodies_of([(replica, head.seq + 1) for replica, head in heads.items()], log):
        with suppress(msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError):
            found[replica] = Head(seq - 1, decode(stored).prev)
    return found


def _bodies_of(dots: Iterable[tuple[str, int]], log: Changelog) -> Iterator[tuple[str, int, bytes]]:
    for replica, seq in dots:
        for position in log.positions([(replica, seq)]):
            for _, stored in log.bodies(position - 1, 1):
                yield replica, seq, stored


def at(positions: Sequence[int], log: Changelog, _tables: Tables) -> list[Event]:
    """The events at these positions."""
    return log.at(positions)


def history(record: tuple[str, str], _log: Changelog, tables: Tables) -> list[int]:
    """The positions of the events of one record."""
    return tables.history([record])


def events_of(records: Sequence[tuple[str, str]], after: int, log: Changelog, tables: Tables) -> list[Event]:
    """The events of some records after a position."""
    return log.at([position for position in tables.history(records) if position > after])


def checkpoint(_log: Changelog, tables: Tables) -> Checkpoint:
    """How far the tables have come."""
    return tables.checkpoint()


def counts(log: Changelog, tables: Tables) -> tuple[Checkpoint, dict[str, int], int]:
    """How far the tables have come, how many records are present by collection, and where the log ends."""
    end = log.end()
    return tables.checkpoint(), tables.counts(), end


def witnesses(log: Changelog, tables: Tables) -> tuple[Checkpoint, Mapping[str, Head], int]:
    """What the log will be held to, read before the log is, so that what is written meanwhile is not missed in it."""
    return tables.checkpoint(), log.heads(), log.end()
