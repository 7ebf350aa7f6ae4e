"""The engine: what a program that embeds refold works with.

It checks what it is asked, hands writes to the writer and reads to the store, and keeps the projections following. It
decides nothing itself and stores nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from . import clients, resolving
from .batch import Batch, Wording, delete_request, patch_request, put_request, schema_for, worded
from .clients import Change, PushResult
from .clock import HybridClock
from .conflict import FIELD_STRATEGIES, Conflict, ConflictKind, Policy
from .conflict_list import STATUSES, ConflictQuery, Entry, Listed, describe
from .decide import Answered, Operation, Repeat, Request, branch_of, settled_branches, settled_values
from .errors import (
    ConflictUnknown,
    DefinitionRefused,
    EngineClosed,
    ProjectionFailed,
    ReadOnly,
    RefoldError,
    ResolutionRefused,
    StorageFailed,
    ValueRefused,
)
from .events import Checkpoint, Event, Head
from .fold import State, decode_state, format_digest
from .ports import Changelog, Peer, Query, Store, Tables
from .progress import Progress
from .projector import LAG_BOUND, QUIET_SECONDS, Follower, ProjectionStatus
from .record import Record, load_record
from .references import describe_dangling
from .replay import events_after, load_schemas, newest_time
from .schema import Collection, Schema, collection_of, evolve, from_toml, to_data
from .session import MAX_SKEW
from .sync import Conversation, SyncReport, between, open_peer
from .sync_side import EngineSide
from .values import show
from .verify import ChainCheck, Finding, Report
from .writer import Writer

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

READ_BATCH = 500
"""Events or records fetched from the store at once."""

CONFLICT_BATCH = 50
"""Conflicts whose records' histories are read at once."""

POLL_SECONDS = 0.2
"""How often an archive that another process writes is looked at for new events."""


class Status(msgspec.Struct, frozen=True):
    """Where an archive stands: its log, its projections, and the records present by collection."""

    replica: str
    position: int
    vector: dict[str, int]
    projections: list[ProjectionStatus]
    collections: dict[str, int]


class Engine:
    """An open archive. Made by `refold.open`; see its methods for what can be done with it.

    Any call may raise `StorageFailed`; a write may raise `StorePoisoned` after an earlier failure, and `ReadOnly`.
    """

    def __init__(self, store: Store, *, actor: str = "", readonly: bool = False) -> None:
        self._store = store
        self._default = worded(Wording(), {"actor": actor})
        self._readonly = readonly
        self._writer: Writer | None = None
        self._followers: list[Follower] = []
        self._log = Progress()
        self._closed = False
        self._schemas: Mapping[str, Schema] = {}
        self.replica = ""

    async def start(self, clock: HybridClock, *, lag_bound: int = LAG_BOUND, quiet: float = QUIET_SECONDS) -> None:
        """Takes up where the archive stands. Called by `refold.open`."""
        run = self._store.read if self._readonly else self._store.write
        replica, schemas, checkpoint, newest = await run(_standing)
        self.replica, self._schemas = replica, schemas
        self._log.advance(checkpoint.position)
        if self._readonly:
            return
        clock.observe(newest)
        self._writer = Writer(self._store, replica, clock, schemas, checkpoint, self._log.advance)
        self._followers = [
            Follower(self._store, projection, self._log, bound=lag_bound, quiet=quiet)
            for projection in self._store.projections
        ]

    async def stop(self, *, flush: bool = True) -> None:
        """Ends in order: pending writes become durable, the projections catch up, their tasks end."""
        async with AsyncExitStack() as stack:
            stack.callback(self._close)
            for follower in self._followers:
                stack.push_async_callback(follower.close, flush=flush)
            if self._writer is not None:
                await self._writer.close()

    def _close(self) -> None:
        self._closed = True
        self._log.fail(EngineClosed("the engine"))

    async def _read(self, work: Callable[[Changelog, Tables], T]) -> T:
        if self._closed:
            raise EngineClosed("the engine")
        return await self._store.read(work)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """The collections that are defined, by name."""
        return self._writer.schemas if self._writer is not None else self._schemas

    @property
    def position(self) -> int:
        """Where the log ends, as far as this engine has seen."""
        return self._log.value

    async def submit(self, requests: Sequence[Request]) -> list[Event | None]:
        """Writes requests as one atomic group; for callers that make requests themselves."""
        return [answer.event if isinstance(answer, Repeat) else answer for answer in await self.answers(requests)]  # type: ignore[misc]

    async def answers(self, requests: Sequence[Request]) -> list[Answered]:
        """The same, or with requests that are `Apart` each by itself, and with what was written before told apart."""
        if self._writer is None:
            raise ReadOnly(self._store.path)
        return await self._writer.submit(requests)

    def _wording(self, wording: dict[str, Any]) -> Wording:
        return worded(self._default, wording) if wording else self._default

    async def define(self, what: Collection | type | str | Path, **wording: Any) -> list[Event]:
        """Defines collections: a `Collection`, a decorated class, or the path of a TOML file.

        Returns the events written, none where nothing changed. Raises `DefinitionRefused` where existing records
        would change their meaning.
        """
        if isinstance(what, Collection):
            collections = [what]
        elif isinstance(what, type):
            collections = [collection_of(what)]
        else:
            collections = from_toml(await asyncio.to_thread(_read_text, Path(what)))
        words = self._wording(wording)
        requests = []
        for collection in collections:
            known = self.schemas.get(collection.name)
            wanted = evolve(known.collection if known is not None else None, collection)
            requests.append(Request(Operation.DEFINE, collection.name, "", to_data(wanted), words.actor, words.meta))
        return [event for event in await self.submit(requests) if event is not None]

    async def put(
        self, target: str | msgspec.Struct, values: Mapping[str, Any] | None = None, **wording: Any
    ) -> Event | None:
        """Makes a record so: creates it, or writes the given fields that differ. Fields not given stay as they are.

        `put("orders", {...})`, or `put(Order(...))` for a decorated class. Keywords are `actor`, `reason`,
        `if_version`, `request_id` and `meta`. Returns the event, None when the record is already so. Raises
        `ValueRefused`, `FieldUnknown`, `CollectionUnknown`, `VersionMismatch`, `RequestReused`.
        """
        request = put_request(self.schemas, target, values, self._wording(wording))
        return (await self.submit([request]))[0]

    async def patch(self, collection: str | type, key: Any, values: Mapping[str, Any], **wording: Any) -> Event | None:
        """Changes fields of a record that is there. As `put`; raises `RecordUnknown` as well."""
        request = patch_request(self.schemas, collection, key, values, self._wording(wording))
        return (await self.submit([request]))[0]

    async def delete(self, collection: str | type, key: Any, **wording: Any) -> Event | None:
        """Deletes a record; its history stays. None when it is deleted already; raises `RecordUnknown`."""
        request = delete_request(self.schemas, collection, key, self._wording(wording))
        return (await self.submit([request]))[0]

    async def push(self, changes: Sequence[Change], *, client: str, strict: bool = False, **wording: Any) -> PushResult:
        """Writes what a thin client changed, each change answered by itself; one that is refused stops no other.

        A change states the version that the client had seen; one that is stale merges by field where it can, and is a
        conflict where it cannot, or with `strict` is refused as such. Changes of several records, parents and children
        among them, may come in any order. `client` is the actor unless `actor` says otherwise.
        """
        words = self._wording({"actor": client, "meta": {"client": client}, **wording})
        return await clients.push(self, changes, words, strict=strict)

    async def states(self, records: Sequence[tuple[str, str]]) -> dict[tuple[str, str], State]:
        """The states of those records, by collection and key, that ever were."""
        found: dict[tuple[str, str], State] = {}
        for start in range(0, len(records), READ_BATCH):
            page = records[start : start + READ_BATCH]
            stored = await self._read(partial(_load_states, page))
            found |= {record: decode_state(data) for record, data in stored.items()}
        return found

    def batch(self, **wording: Any) -> Batch:
        """An atomic group of writes: `async with engine.batch(actor="import") as batch: batch.put(...)`."""
        return Batch(self, self._wording(wording))

    @overload
    async def get(self, collection: str, key: Any) -> Record | None: ...

    @overload
    async def get(self, collection: type[S], key: Any) -> S | None: ...

    async def get(self, collection: str | type[S], key: Any) -> Record | S | None:
        """A record, or the value of a decorated class; None when it never was (or, as a class, is deleted)."""
        name = collection if isinstance(collection, str) else collection_of(collection).name
        schema = schema_for(self.schemas, name)
        try:
            text = schema.key_text(key)
        except ValueRefused:
            return None
        record = await self._read(partial(_load, schema, text))
        if isinstance(collection, str) or record is None:
            return record
        return None if record.deleted else msgspec.convert(record.values, collection)

    async def find(
        self,
        collection: str | type,
        where: Mapping[str, Any] | None = None,
        *,
        order: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[Record]:
        """The records that are present whose fields equal `where`, by key or by `order` (`-date` for descending).

        Records are fetched page by page, so one that is written meanwhile may or may not be among them.
        """
        name = collection if isinstance(collection, str) else collection_of(collection).name
        schema = schema_for(self.schemas, name)
        query = Query(name, where or {}, order, READ_BATCH)
        left = limit
        while left is None or left > 0:
            query = msgspec.structs.replace(query, limit=min(READ_BATCH, left if left is not None else READ_BATCH))
            page = await self._read(partial(_find, schema, query))
            for _, record in page:
                yield record
            if len(page) < query.limit:
                return
            left = left - len(page) if left is not None else None
            query = msgspec.structs.replace(query, after=page[-1][0])

    async def events(
        self, after: int = 0, *, follow: bool = False, collection: str | None = None
    ) -> AsyncIterator[Event]:
        """The events after a position of this log, in its order; with `follow`, then each new one as it is written.

        Neither skips nor repeats an event. To go on later, pass the `position` of the last one.
        """
        position = after
        while True:
            events = await self._read(partial(_read_events, position))
            for event in events:
                position = event.position
                if collection is None or event.collection == collection:
                    yield event
            if events:
                continue
            if not follow:
                return
            if self._writer is not None:
                await self._log.reached(position + 1)
            else:
                await asyncio.sleep(POLL_SECONDS)

    async def subscribe(self, collections: Sequence[str] = (), *, after: int = 0) -> AsyncIterator[Event]:
        """Each event of some collections, or of all, after a position, and then each new one as it is written.

        A subscriber reads the log at its own pace, so one that is slow holds nothing up and costs no memory; it goes on
        later from the `position` of the last event it had.
        """
        async for event in self.events(after, follow=True):
            if not collections or event.collection in collections:
                yield event

    async def history(self, collection: str | type, key: Any) -> AsyncIterator[Event]:
        """Every event of one record, first written first."""
        name = collection if isinstance(collection, str) else collection_of(collection).name
        schema = schema_for(self.schemas, name)
        try:
            text = schema.key_text(key)
        except ValueRefused:
            return
        positions = await self._read(partial(_history, (name, text)))
        for start in range(0, len(positions), READ_BATCH):
            for event in await self._read(partial(_at, positions[start : start + READ_BATCH])):
                yield event

    async def sync(
        self,
        peer: Engine | Peer | str | PathLike[str],
        *,
        max_skew: int = MAX_SKEW,
        progress: Callable[[str, int], None] = lambda what, done: None,
        **options: Any,
    ) -> SyncReport:
        """Exchanges events with another replica, both ways, until each holds what the other held at the start.

        The peer is another open engine, the URL of one (a path is another archive on this machine, `dir:///share` a
        directory that replicas share; `options` go to what opens it), or anything that carries frames. What was taken
        in stays when the session fails, and the next one goes on from there. `max_skew` is how far (milliseconds) the
        other's clock, and the time of any event, may be ahead of ours. Raises `EventForked`, `ClockAhead`,
        `FrameRefused`, `SyncInterrupted`, `PeerRefused`, `SchemeUnknown`, and what opening the peer raises.
        """
        side = self.side()
        if isinstance(peer, Engine):
            return await between(side, peer.side(), max_skew=max_skew, tell=progress)
        if isinstance(peer, str | PathLike):
            async with open_peer(fspath(peer), replica=self.replica, **options) as other:
                return await between(side, other, max_skew=max_skew, tell=progress)
        return await Conversation(side, peer, max_skew=max_skew, tell=progress).run()

    async def conflicts(
        self,
        status: str = "",
        *,
        kind: str = "",
        collection: str = "",
        limit: int | None = None,
        strategy: str | None = None,
    ) -> AsyncIterator[Conflict]:
        """The conflict list, by id: all, or those of a status (`open`, `settled`, `resolved`), kind and collection.

        A conflict stays on the list when it is settled, with all its sides and the event that settled it. With
        `strategy`, those that are not resolved are told as that strategy would settle them; nothing is changed.
        """
        for name, value, known in (("status", status, STATUSES), ("strategy", strategy or "", FIELD_STRATEGIES)):
            if value and value not in known:
                raise ValueRefused("", name, f"is none of {', '.join(known)}", show(value))
        query = ConflictQuery(status, kind, collection)
        left = limit
        while left is None or left > 0:
            query = msgspec.structs.replace(query, limit=min(CONFLICT_BATCH, left or CONFLICT_BATCH))
            page, found = await self._read(partial(_conflicts, query, self.schemas, strategy))
            for conflict in found:
                yield conflict
            if not page:
                return
            left = left - len(page) if left is not None else None
            query = msgspec.structs.replace(query, after=page[-1].entry.id)

    async def conflict(self, conflict_id: str) -> Conflict:
        """The conflict with this id: the live one, else the one that was closed. Raises `ConflictUnknown`."""
        _, found = await self._read(partial(_conflicts, ConflictQuery(id=conflict_id), self.schemas, None))
        if not found:
            raise ConflictUnknown(conflict_id, "is on the list")
        return found[0]

    async def resolve(
        self,
        conflict_id: str,
        *,
        take: tuple[str, int] | str | None = None,
        values: Mapping[str, Any] | None = None,
        keep_both: bool = False,
        **wording: Any,
    ) -> list[Event]:
        """Settles a conflict, open or settled by a strategy, by an event that has seen all its sides.

        `take` is the dot of the side that is to hold, as a pair or as `replica:seq`; `values` are fields as they are
        to be; `keep_both` lets the record stay as it is and makes a record of its own of every losing side. Raises
        `ConflictUnknown`, `ResolutionRefused`, `ValueRefused`, and `VersionMismatch` when somebody was faster.
        """
        conflict = await self.conflict(conflict_id)
        if conflict.settled_by is not None:
            raise ConflictUnknown(conflict_id, "waits to be settled: it is resolved")
        if not conflict.key and (take is None or keep_both or values is not None):
            raise ResolutionRefused(conflict_id, "a definition is settled by define, or by the side to take")
        schema = schema_for(self.schemas, conflict.collection)
        record = conflict.collection, conflict.key
        data = await self._read(lambda log, tables: tables.load([record])[record])
        asked = resolving.requests(
            conflict,
            schema,
            decode_state(data),
            self._wording(wording),
            take=take,
            values=values,
            keep_both=keep_both,
        )
        return [event for event in await self.submit(asked) if event is not None]

    def side(self) -> EngineSide:
        """This archive as one side of one session."""
        if self._writer is None:
            raise ReadOnly(self._store.path)
        return EngineSide(self._store, self._writer)

    async def settled(self) -> None:
        """Returns when every projection has reached what is now the end of the log. Raises `ProjectionFailed`."""
        end = self._log.value
        for follower in self._followers:
            await follower.settled(end)

    async def checkpoint(self) -> Checkpoint:
        """The log's end: position, heads and the digest of the state."""
        return await self._read(_checkpoint)

    async def digest(self) -> str:
        """The digest of the state, 64 hexadecimal digits: the same events give the same digest on any machine."""
        return format_digest((await self.checkpoint()).digest or 0)

    async def status(self) -> Status:
        """Where the archive stands."""
        checkpoint, counts, end = await self._read(_counts)
        collections = {name: counts.get(name, 0) for name in sorted(self.schemas)}
        standing = "current" if checkpoint.position >= end else "behind"
        projections = [ProjectionStatus("tables", checkpoint.position, standing)]
        if self._readonly:
            for projection in self._store.projections:
                position = (await self._store.project(projection.checkpoint)).position
                state = "current" if position >= checkpoint.position else "behind"
                projections.append(ProjectionStatus(projection.name, position, state))
        projections += [follower.status() for follower in self._followers]
        return Status(self.replica, checkpoint.position, checkpoint.vector, projections, collections)

    async def verify(self, progress: Callable[[str, int], None] = lambda what, done: None) -> Report:
        """Checks the log's chain, and the tables and the other projections against the log.

        `progress` is told what is being checked and how far it has come. Raises nothing for what is found.
        """
        check = ChainCheck()
        findings: list[Finding] = []
        try:
            await self.settled()
        except ProjectionFailed as error:
            findings.append(Finding("projection-failed", str(error)))
        try:
            await self._verify_log(check, findings, progress)
            if not any(finding.kind.startswith("log-") for finding in findings):
                findings += await self._store.verify_tables(partial(progress, "tables"))
        except RefoldError as error:
            findings.append(Finding("unreadable", str(error)))
        for projection in self._store.projections:
            progress(projection.name, 0)
            findings += await self._store.project(projection.verify)
        return Report(findings, check.events)

    async def _verify_log(
        self, check: ChainCheck, findings: list[Finding], progress: Callable[[str, int], None]
    ) -> None:
        checkpoint, heads, end = await self._read(_witnesses)
        position = 0
        while bodies := await self._read(partial(_bodies, position, end)):
            position = bodies[-1][0]
            findings += await asyncio.to_thread(_feed, check, bodies)
            progress("log", position)
        findings += check.close(heads, "the log's own list of heads")
        findings += check.close(checkpoint.heads, "the tables' checkpoint")

    async def rebuild(self, progress: Callable[[str, int], None] = lambda what, done: None) -> None:
        """Makes every projection anew from the log; readers see the old state until the new one is complete."""
        if self._writer is None:
            raise ReadOnly(self._store.path)
        await self._store.rebuild_tables(partial(progress, "tables"))
        for follower in self._followers:
            progress(follower.projection.name, 0)
            await follower.restart()
        await self.settled()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageFailed(str(path), "reading", str(error)) from error
    except UnicodeDecodeError as error:
        raise DefinitionRefused("", f"{path} is not UTF-8: {error}") from error


def _standing(log: Changelog, tables: Tables) -> tuple[str, Mapping[str, Schema], Checkpoint, int]:
    return log.replica(), load_schemas(tables), tables.checkpoint(), newest_time(log)


def _load(schema: Schema, key: str, log: Changelog, tables: Tables) -> Record | None:
    def history(record: tuple[str, str]) -> Sequence[Event]:
        return log.at(tables.history([record]))

    data = tables.load([(schema.name, key)]).get((schema.name, key))
    if data is not None:
        return load_record(schema, key, data, history)
    base = schema.name, branch_of(key)
    beside = tables.load([base]).get(base) if schema.keeps_both and base[1] else None
    if beside is None or key not in settled_branches(decode_state(beside), base, schema, history):
        return None
    return load_record(schema, key, beside, history)


def _dangling(entry: Entry, state: State, schema: Schema, history: Sequence[Event]) -> Conflict | None:
    values, _ = settled_values(state, (entry.collection, entry.key), schema, lambda record: history)
    conflict = describe_dangling(entry, state, values)
    if conflict is None:
        return None
    dots = {side.dot for sides in conflict.sides.values() for side in sides}
    return msgspec.structs.replace(conflict, events=[event for event in history if event.dot in dots])


def _load_states(records: Sequence[tuple[str, str]], _log: Changelog, tables: Tables) -> dict[tuple[str, str], bytes]:
    return tables.load(records)


def _conflicts(
    query: ConflictQuery, schemas: Mapping[str, Schema], strategy: str | None, log: Changelog, tables: Tables
) -> tuple[list[Listed], list[Conflict]]:
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
        if listed.entry.kind is ConflictKind.DEPENDENCY and schema is not None:
            conflict = _dangling(listed.entry, decode_state(states[record]), schema, history)
            found += [conflict] if conflict is not None else []
            continue
        conflict = describe(listed.entry, status, decode_state(states[record]), policy, history)
        if conflict is not None:
            found.append(conflict)
    return page, found


def _whole(page: list[Listed], limit: int) -> list[Listed]:
    """The page without its last id if more of that id may follow: a live conflict and closed ones can have the same."""
    if len(page) < limit or page[0].entry.id == page[-1].entry.id:
        return page
    return [listed for listed in page if listed.entry.id != page[-1].entry.id]


def _find(schema: Schema, query: Query, log: Changelog, tables: Tables) -> list[tuple[tuple[Any, ...], Record]]:
    return [
        (rank, load_record(schema, key, data, lambda record: log.at(tables.history([record]))))
        for rank, key, data in tables.find(query, schema)
    ]


def _read_events(after: int, log: Changelog, _tables: Tables) -> list[Event]:
    return events_after(log, after, READ_BATCH)


def _bodies(after: int, end: int, log: Changelog, _tables: Tables) -> list[tuple[int, bytes]]:
    return log.bodies(after, max(0, min(READ_BATCH, end - after)))


def _at(positions: Sequence[int], log: Changelog, _tables: Tables) -> list[Event]:
    return log.at(positions)


def _history(record: tuple[str, str], _log: Changelog, tables: Tables) -> list[int]:
    return tables.history([record])


def _checkpoint(_log: Changelog, tables: Tables) -> Checkpoint:
    return tables.checkpoint()


def _counts(log: Changelog, tables: Tables) -> tuple[Checkpoint, dict[str, int], int]:
    end = log.end()
    return tables.checkpoint(), tables.counts(), end


def _witnesses(log: Changelog, tables: Tables) -> tuple[Checkpoint, Mapping[str, Head], int]:
    """What the log will be held to, read before the log is, so that what is written meanwhile is not missed in it."""
    return tables.checkpoint(), log.heads(), log.end()


def _feed(check: ChainCheck, bodies: Sequence[tuple[int, bytes]]) -> list[Finding]:
    return [finding for position, body in bodies for finding in check.feed(position, body)]
