"""The storage ports in memory: the plainest thing that fulfils them, to test against and to test with.

Nothing here is tuned, and `find` sorts Python values, so these adapters double as a model of the others. `Faults`
makes the nth call of an operation fail, before or after it has taken effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from refold.clock import HybridClock
from refold.conflict import Policy, same
from refold.conflict_list import (
    OPEN,
    RESOLVED,
    ConflictQuery,
    Entry,
    Listed,
    Tally,
    disputes,
    live_entries,
    read_state,
)
from refold.conversions import conversion_entries
from refold.decide import settled_branches, settled_values
from refold.engine import Engine
from refold.errors import EventForked, EventsMissing, FieldUnknown, StorageFailed
from refold.events import GENESIS, Checkpoint, Event, Head, decode
from refold.fold import State, decode_state
from refold.ports import Changelog, Changes, Query, Record, Tables
from refold.references import dangling_entries, references
from refold.replay import catch_up, reads_otherwise
from refold.schema import Schema
from refold.unique import Holder, UniqueValue, clash, holdings
from refold.values import TYPES
from refold.verdict import Finding

from .scribe import Ticks

T = TypeVar("T")


class Faults:
    """Makes calls fail: `at("append", 3)` the third append from now, `after=True` once it has taken effect."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._planned: dict[tuple[str, int, bool], Exception] = {}

    def at(self, operation: str, nth: int = 1, *, after: bool = False, error: Exception | None = None) -> None:
        """Plans a failure of the `nth` call of `operation` from now on."""
        failure = error or StorageFailed("memory", operation, "a planned fault")
        self._planned[operation, self.calls.get(operation, 0) + nth, after] = failure

    def begin(self, operation: str) -> None:
        """Counts a call, and fails it if that was planned."""
        self.calls[operation] = self.calls.get(operation, 0) + 1
        self._meet(operation, after=False)

    def end(self, operation: str) -> None:
        """Fails a call that has taken effect, if that was planned."""
        self._meet(operation, after=True)

    def _meet(self, operation: str, *, after: bool) -> None:
        error = self._planned.pop((operation, self.calls[operation], after), None)
        if error is not None:
            raise error


class MemoryLog:
    """A log in a list. Implements `Changelog`."""

    def __init__(self, owner: str = "memory", faults: Faults | None = None) -> None:
        self.owner = owner
        self.faults = faults or Faults()
        self.stored: list[bytes] = []
        self._heads: dict[str, Head] = {}
        self._hashes: dict[tuple[str, int], bytes] = {}
        self._positions: dict[tuple[str, int], int] = {}

    def append(self, events: Sequence[Event], bodies: Sequence[bytes], hashes: Sequence[bytes]) -> int:
        """See `Changelog.append`."""
        self.faults.begin("append")
        heads = dict(self._heads)
        taken = dict(self._hashes)
        for event, digest in zip(events, hashes, strict=True):
            head = heads.get(event.replica, Head(0, GENESIS))
            if event.seq > head.seq + 1:
                raise EventsMissing([f"{event.replica}:{seq}" for seq in range(head.seq + 1, event.seq)][:10])
            if event.seq <= head.seq:
                ours = taken[event.replica, event.seq]
                raise EventForked(event.replica, event.seq, ours.hex(), digest.hex())
            if event.prev != head.hash:
                raise EventForked(event.replica, head.seq, head.hash.hex(), event.prev.hex())
            missing = [dot for dot in event.context.items() if heads.get(dot[0], Head(0, GENESIS)).seq < dot[1]]
            if missing:
                raise EventsMissing([f"{replica}:{seq}" for replica, seq in missing])
            heads[event.replica] = Head(event.seq, digest)
            taken[event.replica, event.seq] = digest
        first = len(self.stored) + 1
        self.stored += bodies
        self._heads, self._hashes = heads, taken
        self._positions |= {(event.replica, event.seq): first + index for index, event in enumerate(events)}
        self.faults.end("append")
        return first

    def bodies(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `Changelog.bodies`."""
        self.faults.begin("read")
        return list(enumerate(self.stored[after : after + limit], after + 1))

    def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        """See `Changelog.since`."""
        lacking = sorted(at for (replica, seq), at in self._positions.items() if seq > vector.get(replica, 0))
        return [(position, self.stored[position - 1]) for position in lacking[:limit]]

    def positions(self, dots: Sequence[tuple[str, int]]) -> list[int]:
        """See `Changelog.positions`."""
        return [self._positions[dot] for dot in dots if dot in self._positions]

    def at(self, positions: Sequence[int]) -> list[Event]:
        """See `Changelog.at`."""
        known = sorted({position for position in positions if 0 < position <= len(self.stored)})
        return [decode(self.stored[position - 1], position) for position in known]

    def end(self) -> int:
        """See `Changelog.end`."""
        return len(self.stored)

    def heads(self) -> dict[str, Head]:
        """See `Changelog.heads`."""
        return dict(self._heads)

    def replica(self) -> str:
        """See `Changelog.replica`."""
        return self.owner


class MemoryTables:
    """The state of every record in a dictionary. Implements `Tables`."""

    def __init__(self, events_after: Callable[[Sequence[int]], list[Event]], faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.states: dict[Record, bytes] = {}
        self._read_events = events_after
        self._positions: dict[Record, list[int]] = {}
        self._requests: dict[str, int] = {}
        self._checkpoint = Checkpoint()
        self._closed: dict[tuple[str, tuple[str, ...]], Entry] = {}
        self._schemas: Mapping[str, Schema] = {}

    def load(self, records: Iterable[Record]) -> dict[Record, bytes]:
        """See `Tables.load`."""
        self.faults.begin("load")
        return {record: self.states[record] for record in records if record in self.states}

    def requests(self, request_ids: Sequence[str]) -> dict[str, int]:
        """See `Tables.requests`."""
        return {name: self._requests[name] for name in request_ids if name in self._requests}

    def history(self, records: Sequence[Record]) -> list[int]:
        """See `Tables.history`."""
        return sorted(position for record in records for position in self._positions.get(record, ()))

    def _newest(self, collection: str, after: int, upto: int) -> list[tuple[int, Record]]:
        last = (
            (max((at for at in positions if at <= upto), default=0), record)
            for record, positions in self._positions.items()
            if record[0] == collection and record[1]
        )
        return sorted((at, record) for at, record in last if after < at)

    def changed(self, collection: str, after: int, upto: int, limit: int) -> list[tuple[int, str, bytes | None]]:
        """See `Tables.changed`."""
        found = self._newest(collection, after, upto)[:limit]
        return [
            (at, record[1], self.states[record] if at == self._positions[record][-1] else None) for at, record in found
        ]

    def count_changed(self, collection: str, after: int, upto: int) -> int:
        """See `Tables.count_changed`."""
        return len(self._newest(collection, after, upto))

    def save(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """See `Tables.save`."""
        self.faults.begin("save")
        self.states.update(changes.after)
        for event in changes.events:
            self._positions.setdefault(event.record, []).append(event.position)
            if event.request_id is not None:
                self._requests.setdefault(event.request_id, event.position)
        for entry in (entry for disputed in changes.disputes.values() for entry in disputed.closed):
            self._close(entry)
        self._checkpoint = changes.checkpoint
        self._schemas = schemas
        for name, key in changes.states:
            if not key and reads_otherwise(name, changes.before.get((name, "")), schemas.get(name)):
                self._dispute_anew(name)
        self.faults.end("save")

    def _close(self, entry: Entry) -> None:
        name = entry.id, tuple(entry.fields)
        known = self._closed.get(name)
        if known is None or (entry.closer or ()) < (known.closer or ()):
            self._closed[name] = entry

    def _dispute_anew(self, name: str) -> None:
        """Finds again what was closed of the records of a collection whose steps changed."""
        kept = {code: entry for code, entry in self._closed.items() if entry.collection != name or not entry.key}
        self._closed = kept
        for record, data in self.states.items():
            if record[0] == name and record[1]:
                events, after = self._events(record), {record: decode_state(data)}
                found = disputes(events, {}, after, lambda records: (), self._schemas)
                for entry in (entry for disputed in found.values() for entry in disputed.closed):
                    self._close(entry)

    def _present(self, name: str, schema: Schema) -> list[tuple[str, bytes, dict[str, Any]]]:
        rows = []
        for record, data in self.states.items():
            if record[0] != name or not record[1]:
                continue
            state = decode_state(data)
            values, present = settled_values(state, record, schema, self._events)
            if present:
                rows.append((record[1], data, {**schema.blank, **values}))
            for key, branch in settled_branches(state, record, schema, self._events).items():
                if (name, key) not in self.states:
                    rows.append((key, data, {**schema.blank, **branch}))
        return rows

    def _events(self, record: Record) -> list[Event]:
        return self._read_events(self.history([record]))

    def find(self, query: Query, schema: Schema) -> list[tuple[tuple[Any, ...], str, bytes]]:
        """See `Tables.find`."""
        field = query.order.removeprefix("-") or schema.collection.key
        for name in (field, *query.where):
            if name not in schema.types:
                raise FieldUnknown(schema.name, name, list(schema.columns))
        stored = schema.store({name: value for name, value in query.where.items() if value is not None})
        wanted = {**dict.fromkeys(query.where), **stored}
        found = [
            ((*_rank(schema, field, values), *_rank(schema, schema.collection.key, values)), key, data)
            for key, data, values in self._present(query.collection, schema)
            if all(same(values[name], value) for name, value in wanted.items())
        ]
        descending = query.order.startswith("-")
        found.sort(key=lambda row: row[0], reverse=descending)
        if query.after is not None:
            after = query.after
            found = [row for row in found if (row[0] < after if descending else row[0] > after)]
        return found[: query.limit]

    def records(self, after: Record, limit: int) -> list[tuple[Record, bytes]]:
        """See `Tables.records`."""
        return [(record, self.states[record]) for record in sorted(self.states) if record > after][:limit]

    def definitions(self) -> dict[str, bytes]:
        """See `Tables.definitions`."""
        return {name: data for (name, key), data in sorted(self.states.items()) if not key}

    def counts(self) -> dict[str, int]:
        """See `Tables.counts`."""
        return {name: len(self._present(name, self._schemas[name])) for name in self.definitions()}

    def checkpoint(self) -> Checkpoint:
        """See `Tables.checkpoint`."""
        return self._checkpoint

    def _is_present(self, record: Record) -> bool:
        schema, data = self._schemas.get(record[0]), self.states.get(record)
        if schema is None or data is None:
            return False
        return settled_values(decode_state(data), record, schema, self._events)[1]

    def conflict_counts(self) -> list[Tally]:
        """See `Tables.conflict_counts`."""
        listed = self.conflicts(ConflictQuery(limit=2**62))
        sorts = Counter(
            (e.kind.value, e.collection, not e.key, tuple(e.fields), one.status, e.by_hand)
            for one in listed
            for e in [one.entry]
        )
        return [Tally(*sort, count) for sort, count in sorted(sorts.items())]

    def _standing(self) -> Iterator[tuple[Record, Schema, State, dict[str, Any]]]:
        """Every record that is present, with its schema, its state and its values."""
        for record, data in self.states.items():
            schema = self._schemas.get(record[0])
            if schema is not None and record[1]:
                state = decode_state(data)
                values, present = settled_values(state, record, schema, self._events)
                if present:
                    yield record, schema, state, values

    def _held(self) -> dict[UniqueValue, list[Holder]]:
        found: dict[UniqueValue, list[Holder]] = {}
        for (_, key), schema, state, values in self._standing():
            for value, holder in holdings(key, schema, state, values).items():
                found.setdefault(value, []).append(holder)
        return {value: sorted(holders) for value, holders in found.items()}

    def holders(self, values: Sequence[UniqueValue], limit: int) -> dict[UniqueValue, list[Holder]]:
        """See `Tables.holders`."""
        held = self._held()
        return {value: held[value][:limit] for value in values if value in held}

    def referrers(self, target: Record, through: Sequence[tuple[str, str]], limit: int) -> list[Record]:
        """See `Tables.referrers`."""
        found = [
            record
            for record, schema, _, values in self._standing()
            for field, other in references(schema, values).items()
            if other == target and (record[0], field) in through
        ]
        return sorted(set(found))[:limit]

    def conflicts(self, query: ConflictQuery) -> list[Listed]:
        """See `Tables.conflicts`. Those that are live are read off all states, each time."""
        listed = [Listed(entry, RESOLVED) for entry in self._closed.values()]
        for record, data in self.states.items():
            schema = self._schemas.get(record[0])
            policy = schema.policy if schema is not None and record[1] else Policy()
            state = decode_state(data)
            entries = live_entries(record, read_state(self._schemas, record, state))
            if schema is not None and record[1]:
                values, present = settled_values(state, record, schema, self._events)
                found = references(schema, values) if present else {}
                entries += dangling_entries(record, schema.read(state), found, self._is_present)
                entries += conversion_entries(record, schema, state) if present else []
            listed += [Listed(entry, entry.status(policy)) for entry in entries]
        clashes = [clash(value, holders) for value, holders in self._held().items()]
        listed += [Listed(entry, OPEN) for entry in clashes if entry is not None]
        listed.sort(key=lambda one: (one.entry.id, one.status == RESOLVED, msgspec.json.encode(one.entry.fields)))
        wanted = [
            one
            for one in listed
            if query.status in {"", one.status}
            and query.kind in {"", one.entry.kind}
            and query.collection in {"", one.entry.collection}
            and query.key in {"", one.entry.key}
            and query.id in {"", one.entry.id}
            and one.entry.id > query.after
        ]
        return wanted[: query.limit]


def _rank(schema: Schema, field: str, values: Mapping[str, Any]) -> tuple[bool, Any]:
    value = values[field]
    if value is None:
        return False, 0
    kind = schema.types[field].name
    return True, TYPES["json"].text(value) if kind == "json" else TYPES[kind].load(value)


class MemoryProjection:
    """A projection that keeps what it was given. Implements `Projection`."""

    def __init__(self, name: str = "memory", faults: Faults | None = None) -> None:
        self.name = name
        self.faults = faults or Faults()
        self.events: list[Event] = []
        self.runs: list[int] = []
        self.closed = False
        self._checkpoint = Checkpoint(digest=None)

    def checkpoint(self) -> Checkpoint:
        """See `Projection.checkpoint`."""
        return self._checkpoint

    def apply(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        """See `Projection.apply`."""
        self.faults.begin("apply")
        self.events += events
        self.runs.append(len(events))
        self._checkpoint = checkpoint
        self.faults.end("apply")

    def reset(self) -> None:
        """See `Projection.reset`."""
        self.faults.begin("reset")
        self.events, self.runs, self._checkpoint = [], [], Checkpoint(digest=None)

    def verify(self) -> list[Finding]:
        """See `Projection.verify`."""
        expected = list(range(1, self._checkpoint.position + 1))
        if [event.position for event in self.events] == expected:
            return []
        return [Finding("projection-altered", f"{self.name} does not hold the events up to its checkpoint")]

    def close(self) -> None:
        """See `Projection.close`."""
        self.closed = True


class MemoryStore:
    """An archive in memory. Implements `Store`; work runs at once, in the caller's thread."""

    path = "memory:"

    def __init__(self, owner: str = "memory", projections: Sequence[MemoryProjection] = ()) -> None:
        self.faults = Faults()
        self.log = MemoryLog(owner, self.faults)
        self.tables = MemoryTables(self.log.at, self.faults)
        self.projections = projections

    async def write(self, work: Callable[[Changelog, Tables], T]) -> T:
        """See `Store.write`."""
        return work(self.log, self.tables)

    async def read(self, work: Callable[[Changelog, Tables], T]) -> T:
        """See `Store.read`."""
        return work(self.log, self.tables)

    async def project(self, work: Callable[[], T]) -> T:
        """See `Store.project`."""
        return work()

    def _folded(self, progress: Callable[[int], None], upto: int) -> MemoryTables:
        tables = MemoryTables(self.log.at, self.faults)
        while (left := upto - tables.checkpoint().position) > 0 and catch_up(self.log, tables, min(left, 100)):
            progress(tables.checkpoint().position)
        return tables

    async def rebuild_tables(self, progress: Callable[[int], None]) -> None:
        """See `Store.rebuild_tables`."""
        self.tables = self._folded(progress, self.log.end())

    async def verify_log(self) -> list[Finding]:
        """See `Store.verify_log`: there are no files."""
        return []

    async def verify_tables(self, progress: Callable[[int], None]) -> list[Finding]:
        """See `Store.verify_tables`."""
        live, truth = self.tables.states, self._folded(progress, self.tables.checkpoint().position).states
        findings = []
        for collection, key in sorted({*live, *truth}):
            here, there = live.get((collection, key)), truth.get((collection, key))
            if here != there:
                kind = "table-stray" if there is None else "table-missing" if here is None else "table-altered"
                findings.append(Finding(kind, collection=collection, key=key))
        return findings

    async def close(self) -> None:
        """See `Store.close`."""
        for projection in self.projections:
            projection.close()


@asynccontextmanager
async def memory_engine(
    store: MemoryStore | None = None, now: Callable[[], int] | None = None, **options: Any
) -> AsyncIterator[Engine]:
    """An engine over a store in memory, which stays when the engine is closed and can be opened again.

    What the log holds and the tables do not is folded first, as every store does when it is opened.
    """
    store = store or MemoryStore()
    while catch_up(store.log, store.tables):
        pass
    engine = Engine(store)
    await engine.start(HybridClock(now or Ticks()), **options)
    try:
        yield engine
    finally:
        await engine.stop()
        await store.close()
