"""What thin clients pull: pages of the records that changed, parents before children. Pure calls over the ports.

A pull brings a client from the state at one position of the log to the state at a later one, which is fixed by its
first page. A page reads each record as it was *there*, however many pages, and whatever is written meanwhile: a record
that has moved on is folded from its history up to that position, and comes again with the next pull. So a pull is one
moment of the archive: each record comes once, and what it refers to has come before it. It is the read of a snapshot
of Berenson et al., "A Critique of ANSI SQL Isolation Levels" (1995), which the log makes possible without holding one
open.

Records come by the position of their newest event up to there, collection by collection. That order never changes
while a pull lasts, so a page starts after the last record of the one before, and costs what it holds.

A collection whose definition changed comes anew as a whole, since defaults and settlements may have changed with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .batch import schema_for
from .clock import to_millis
from .conflict import Conflict
from .conflict_list import OPEN, ConflictQuery, folded
from .cursor import Cursor, format_cursor, log_mark, parse_cursor, scope_mark
from .decide import settled_branches, settled_values, version_token
from .errors import CursorForeign
from .events import Event, Kind
from .fold import State, decode_state, is_concurrent
from .ports import Changelog, Tables
from .queries import conflicts
from .references import dependency_order, reached_from
from .replay import load_schemas, schema_of
from .schema import PRIORITIES, Schema

Record = tuple[str, str]

CONFLICTS = 50
"""Open conflicts that a page tells at most."""


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """A record that a client is to put, whole: its values, the version to state when it is changed, and who wrote it
    last, when (a time of `refold.clock`) and at which position."""

    collection: str
    key: str
    values: dict[str, Any]
    version: str
    position: int
    time: int
    actor: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A record that a client is to forget: who deleted it, when and why. It may not have had it."""

    collection: str
    key: str
    version: str
    position: int
    time: int
    actor: str
    reason: str | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a pull.

    First put `changes` in their order, then forget `deletions` in theirs, children first. `total` is how many records
    the whole pull has, those of earlier pages included, and `left` how many are still to come; a branch that keep-both
    shows comes with its record and is not counted. `next` is the cursor of what follows, whether `has_more` or not. The
    client has then what was there at `position` of the log, written up to `time`. `conflicts` are open ones, as they
    are now: those of the page's records, on the last page those of all collections asked for, at most `CONFLICTS`.
    """

    changes: list[Pulled]
    deletions: list[Removed]
    conflicts: list[Conflict]
    next: str
    has_more: bool
    total: int
    left: int
    position: int
    time: int

    def deleted(self) -> dict[str, int]:
        """How many of the deletions are of each collection."""
        counts: dict[str, int] = {}
        for removed in self.deletions:
            counts[removed.collection] = counts.get(removed.collection, 0) + 1
        return counts


class ClientsRecord(msgspec.Struct, frozen=True):
    """What the archive knows of a record for one client: its version, when the client wrote it last (milliseconds),
    whether others wrote what the client has not got, whether a conflict is open, and how urgent its collection is."""

    version: str
    attempted: int | None
    lacking: bool
    disputed: bool
    urgency: int


class Asked(msgspec.Struct, frozen=True):
    """What is pulled: after which cursor, of which collections (all, where none is named), how urgent at least."""

    after: str = ""
    collections: Sequence[str] = ()
    priority: str = PRIORITIES[0]
    limit: int = 100


def urgency(schemas: Mapping[str, Schema]) -> dict[str, int]:
    """How urgent each collection is, as an index of `PRIORITIES`: as much as the most urgent that may refer to it."""
    urgent = {name: PRIORITIES.index(schema.collection.priority) for name, schema in schemas.items()}
    found = dict(urgent)
    for name in schemas:
        for target in reached_from(name, schemas):
            found[target] = max(found[target], urgent[name])
    return found


def pull_order(schemas: Mapping[str, Schema]) -> list[str]:
    """All collections, parents first and of those that may come next the most urgent; in a circle, by name."""
    order, _ = dependency_order(schemas)
    place = {name: number for number, name in enumerate(order)}
    urgent = urgency(schemas)
    parents = {
        name: {target for target in schema.references.values() if place.get(target, place[name]) < place[name]}
        for name, schema in schemas.items()
    }
    placed: list[str] = []
    while order:
        ready = [name for name in order if parents[name] <= set(placed)]
        placed.append(min(ready, key=lambda name: (-urgent[name], place[name])))
        order.remove(placed[-1])
    return placed


def _schemas_at(definitions: Sequence[Event], position: int) -> tuple[dict[str, Schema], dict[str, int]]:
    """What was defined at a position, by name, and where it was defined last."""
    apart: dict[str, list[Event]] = {}
    for event in definitions:
        if event.position <= position:
            apart.setdefault(event.collection, []).append(event)
    states = {name: folded(events) for name, events in sorted(apart.items())}
    schemas = {name: schema_of(name, state) for name, state in states.items() if state is not None}
    return schemas, {name: events[-1].position for name, events in apart.items()}


class _Standing:
    """The archive at one position: its schemas, its records, and their histories."""

    def __init__(self, position: int, schemas: Mapping[str, Schema], log: Changelog, tables: Tables) -> None:
        self.position = position
        self.schemas = schemas
        self._log = log
        self._tables = tables

    def history(self, record: Record) -> list[Event]:
        """The events of a record up to there."""
        return self._log.at([at for at in self._tables.history([record]) if at <= self.position])

    def state(self, record: Record) -> State | None:
        """A record as it was; None where it was not yet."""
        return folded(self.history(record))

    def branches(self, record: Record) -> dict[str, dict[str, Any]]:
        """What keep-both showed beside a record, by key; a record that has such a key itself is shown instead."""
        schema = self.schemas.get(record[0])
        state = self.state(record) if schema is not None and schema.keeps_both else None
        if state is None:
            return {}
        shown = settled_branches(state, record, schema, self.history)
        return {key: values for key, values in shown.items() if self.state((record[0], key)) is None}

    def scope(self, asked: Asked) -> list[str]:
        """The collections that are asked for, in the order of a pull."""
        urgent = urgency(self.schemas)
        least = PRIORITIES.index(asked.priority)
        wanted = asked.collections or self.schemas
        return [name for name in pull_order(self.schemas) if name in wanted and urgent[name] >= least]


def _definitions(log: Changelog, tables: Tables) -> list[Event]:
    return log.at(tables.history([(name, "") for name in tables.definitions()]))


def _mark(log: Changelog, position: int) -> bytes:
    last = log.at([position])
    return log_mark(log.replica(), last[0] if last else None)


def _cursor(asked: Asked, path: str, log: Changelog) -> Cursor:
    """The cursor that is asked for, when this log gave it out. Raises `CursorRefused`, `CursorForeign`."""
    cursor = parse_cursor(asked.after, scope_mark(asked.collections, asked.priority))
    if cursor.end and (cursor.end > log.end() or cursor.log != _mark(log, cursor.end)):
        raise CursorForeign(path)
    return cursor


def page(asked: Asked, path: str, log: Changelog, tables: Tables) -> Page:
    """The next page. Raises `CursorRefused`, `CursorForeign`, and `CollectionUnknown` on the first page of a pull."""
    cursor = _cursor(asked, path, log)
    position = cursor.upto or tables.checkpoint().position
    definitions = _definitions(log, tables)
    schemas, defined = _schemas_at(definitions, position)
    now = _Standing(position, schemas, log, tables)
    changed = any(at > cursor.since for at in defined.values())
    then = _Standing(cursor.since, _schemas_at(definitions, cursor.since)[0] if changed else schemas, log, tables)
    scope = now.scope(asked)
    known = set(then.scope(asked))
    plan = [(name, cursor.since if name in known and defined[name] <= cursor.since else 0) for name in scope]
    if not cursor.upto:
        for name in asked.collections:
            schema_for(schemas, name)
        total = sum(tables.count_changed(name, after, position) for name, after in plan)
        cursor = msgspec.structs.replace(cursor, upto=position, total=total, left=total)
    elif cursor.collection not in scope:
        raise CursorForeign(path)
    else:
        plan = plan[scope.index(cursor.collection) :]
        plan[0] = cursor.collection, max(plan[0][1], cursor.at)
    found = _rows(plan, position, asked.limit + 1, tables)
    rows = [_Row(*row) for row in found[: asked.limit]]
    has_more = len(found) > len(rows)
    left = cursor.left - len(rows) if has_more else 0
    following = Cursor(since=position, scope=cursor.scope)
    if has_more:
        following = msgspec.structs.replace(cursor, collection=rows[-1].collection, at=rows[-1].position, left=left)
    last = log.at([position])
    following = msgspec.structs.replace(following, log=_mark(log, position))
    changes, deletions = _told(rows, then, now, log)
    return Page(
        changes=changes,
        deletions=deletions[::-1],
        conflicts=_conflicts(rows, [] if has_more else scope, schemas, log, tables),
        next=format_cursor(following) if position else "",
        has_more=has_more,
        total=cursor.total,
        left=left,
        position=position,
        time=last[0].time if last else 0,
    )


def covered(asked: Asked, path: str, log: Changelog, tables: Tables) -> tuple[list[str], int]:
    """The collections that a client has which asks so, and the position up to which it has them. Raises as `page`."""
    since = _cursor(asked, path, log).since
    schemas, _ = _schemas_at(_definitions(log, tables), since)
    return _Standing(since, schemas, log, tables).scope(asked), since


def standing_of(record: Record, client: str, acknowledged: int, log: Changelog, tables: Tables) -> ClientsRecord:
    """How a record stands for a client that has its collection up to a position."""
    definition = tables.history([(record[0], "")])
    events = log.at(tables.history([record]))
    state = folded(events)
    own = [event for event in events if event.meta.get("client") == client]
    lacking = any(event.position > acknowledged and event.meta.get("client") != client for event in events)
    return ClientsRecord(
        version=version_token(state),
        attempted=to_millis(own[-1].time) if own else None,
        lacking=lacking or (state is not None and definition[-1:] > [acknowledged]),
        disputed=bool(tables.conflicts(ConflictQuery(OPEN, collection=record[0], key=record[1], limit=1))),
        urgency=urgency(load_schemas(tables))[record[0]],
    )


class _Row:
    """A record that a page is to tell: where it stood, and its state there."""

    def __init__(self, collection: str, position: int, key: str, data: bytes | None) -> None:
        self.collection = collection
        self.position = position
        self.key = key
        self.record = collection, key
        self.state = decode_state(data) if data is not None else None


def _rows(
    plan: Iterable[tuple[str, int]], upto: int, limit: int, tables: Tables
) -> list[tuple[str, int, str, bytes | None]]:
    rows: list[tuple[str, int, str, bytes | None]] = []
    for name, after in plan:
        if len(rows) < limit:
            rows += [(name, *row) for row in tables.changed(name, after, upto, limit - len(rows))]
    return rows


def _told(rows: Sequence[_Row], then: _Standing, now: _Standing, log: Changelog) -> tuple[list[Pulled], list[Removed]]:
    """The rows as a client is to take them in: what to put, and what to forget."""
    changes: list[Pulled] = []
    deletions: list[Removed] = []
    newest = {event.position: event for event in log.at([row.position for row in rows])}
    for row in rows:
        state = row.state = row.state or now.state(row.record)
        assert state is not None
        schema = now.schemas[row.collection]
        event = newest[row.position]
        version = version_token(state)
        values, present = settled_values(state, row.record, schema, now.history)
        shown = {row.key: values} if present else {}
        shown |= now.branches(row.record)
        changes += [
            Pulled(
                collection=row.collection,
                key=key,
                values=schema.load(stored),
                version=version,
                position=row.position,
                time=event.time,
                actor=event.actor,
            )
            for key, stored in shown.items()
        ]
        gone = {row.key} - shown.keys()
        beside = then.branches(row.record).keys() - shown.keys() if then.position else ()
        gone |= {key for key in beside if now.state((row.collection, key)) is None}
        event = event if row.key not in gone else _delete(state, event, log)
        deletions += [removed(event, key, version) for key in sorted(gone)]
    return changes, deletions


def removed(event: Event, key: str, version: str) -> Removed:
    """What an event took away."""
    return Removed(
        collection=event.collection,
        key=key,
        version=version,
        position=event.position,
        time=event.time,
        actor=event.actor,
        reason=event.reason,
    )


def _delete(state: State, newest: Event, log: Changelog) -> Event:
    """The event that deleted a record, where its newest may be one that a strategy overruled."""
    if newest.kind is Kind.DELETE:
        return newest
    dots = [(write.replica, write.seq) for write in state.writes if write.present is False]
    found = log.at(log.positions(dots[-1:]))
    return found[0] if found else newest


def _conflicts(
    rows: Sequence[_Row], collections: Sequence[str], schemas: Mapping[str, Schema], log: Changelog, tables: Tables
) -> list[Conflict]:
    """The open conflicts of some records, and of whole collections, up to the bound."""
    if not tables.conflicts(ConflictQuery(OPEN, limit=1)):
        return []
    queries = [
        ConflictQuery(OPEN, collection=row.collection, key=row.key, limit=CONFLICTS)
        for row in rows
        if schemas[row.collection].references
        or (row.state is not None and is_concurrent(schemas[row.collection].read(row.state)))
    ]
    queries += [ConflictQuery(OPEN, collection=name, limit=CONFLICTS) for name in collections]
    found: dict[str, Conflict] = {}
    current = load_schemas(tables)
    for query in queries:
        if len(found) < CONFLICTS and tables.conflicts(query):
            found |= {conflict.id: conflict for conflict in conflicts(query, current, None, log, tables)[1]}
    return list(found.values())[:CONFLICTS]
