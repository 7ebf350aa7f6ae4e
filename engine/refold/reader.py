"""Everything that an archive can be asked, while it is written or beside the process that writes it.

Questions are answered from what was committed, in the store's reading thread; long answers come page by page, each page
of one moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, TypeVar, overload

import msgspec

from . import diff, past, pulls, queries
from .batch import schema_for
from .blame import Blame
from .conflict import FIELD_STRATEGIES, Conflict
from .conflict_list import STATUSES, ConflictQuery, Quality, quality
from .deletions import Deletion, DeletionQuery, deletions
from .diff import Difference
from .errors import (
    ConflictUnknown,
    EngineClosed,
    FieldUnknown,
    ProjectionFailed,
    ProjectionUnknown,
    ValueRefused,
)
from .events import TAGS, Checkpoint, Event
from .fold import State, decode_state, format_digest
from .moment import Said, moment_of, named
from .ports import Changelog, Query, Store, Tables
from .progress import Progress
from .projector import Follower, ProjectionStatus
from .pulls import Asked, Page
from .record import Record
from .rota import Checked
from .rounds import Round
from .schema import PRIORITIES, Schema, collection_of, name_of
from .values import show
from .verdict import Finding, Report
from .verify import Claim
from .verifying import EVERYTHING, Verification
from .view import View

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

CONFLICT_BATCH = 50
"""Conflicts whose records' histories are read at once."""

PULL_LIMIT = 1000
"""The most records that one page of a pull may have."""

POLL_SECONDS = 0.2
"""How often an archive that another process writes is looked at for new events."""


class Status(msgspec.Struct, frozen=True):
    """Where an archive stands: its log, its projections, and the records present by collection."""

    replica: str
    position: int
    vector: dict[str, int]
    projections: list[ProjectionStatus]
    collections: dict[str, int]


class Reader:
    """An open archive that is only read. Any call may raise `StorageFailed`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers: list[Follower] = []
        self._log = Progress()
        self._closed = False
        self._schemas: Mapping[str, Schema] = {}
        self._wall: Callable[[], int] = lambda: 0
        self.replica = ""

    def _close(self) -> None:
        self._closed = True
        self._log.fail(EngineClosed("the engine"))

    async def _written(self, position: int) -> None:
        """Returns when there may be an event after `position`."""
        del position
        await asyncio.sleep(POLL_SECONDS)

    async def _read(self, work: Callable[[Changelog, Tables], T]) -> T:
        if self._closed:
            raise EngineClosed("the engine")
        return await self._store.read(work)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """The collections that are defined, by name."""
        return self._schemas

    @property
    def position(self) -> int:
        """Where the log ends, as far as this engine has seen."""
        return self._log.value

    async def states(self, records: Sequence[tuple[str, str]]) -> dict[tuple[str, str], State]:
        """The states of those records, by collection and key, that ever were."""
        found: dict[tuple[str, str], State] = {}
        for start in range(0, len(records), queries.READ_BATCH):
            page = records[start : start + queries.READ_BATCH]
            stored = await self._read(partial(queries.states, page))
            found |= {record: decode_state(data) for record, data in stored.items()}
        return found

    async def written(self, request_ids: Sequence[str]) -> dict[str, int]:
        """Which of these requests have been written, with the position of the event of each."""
        return await self._read(lambda _log, tables: tables.requests(request_ids))

    async def tags(self) -> dict[str, dict[str, int]]:
        """The moments that have a name, each as the version vector that the log had then."""
        return named((await self.states([TAGS])).get(TAGS))

    async def at(self, moment: Said) -> View:
        """The archive as it was at a moment, with the definitions of then.

        A moment is a time with its zone, a position of this log, a version vector, or a text as people say it:
        `2026-01-01T12:00Z`, `2026-01-01`, `@POSITION`, `@end`, the name of a tag, `laptop:3,office:12`. Raises
        `MomentUnknown`, `PositionUnknown`, `MomentRefused`, `TimeTextError`.
        """
        found, schemas = await self._read(partial(past.opening, moment_of(moment), self._wall()))
        return View(self._read, found, schemas)

    async def diff(
        self, old: Said, new: Said = "@end", collection: str | type | None = None, key: Any = None
    ) -> AsyncIterator[Difference]:
        """What changed from one moment to another: in everything, a collection, or one record of it.

        By collection and key as text; a definition that changed comes before the records of its collection. The older
        moment need not come first. Raises as `at`, and `CollectionUnknown`.
        """
        name = collection if collection is None or isinstance(collection, str) else collection_of(collection).name
        moments = moment_of(old), moment_of(new)
        found = await self._read(partial(diff.sides, moments, (name or "", key), self._wall()))
        for known in found.names:
            for difference in diff.definition(found, known) if key is None else ():
                yield difference
            after: str | None = ""
            while after is not None:
                page, after = await self._read(partial(diff.page, found, known, after))
                for difference in page:
                    yield difference

    async def blame(self, collection: str | type, key: Any) -> Blame | None:
        """Each field's value with the event that wrote it, and what others wrote to it without knowing that one.

        None when the record never was.
        """
        name = collection if isinstance(collection, str) else collection_of(collection).name
        schema = schema_for(self.schemas, name)
        try:
            text = schema.key_text(key)
        except ValueRefused:
            return None
        return await self._read(partial(queries.blame, schema, text))

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
        record = await self._read(partial(queries.record, schema, text))
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
        query = Query(name, where or {}, order, queries.READ_BATCH)
        left = limit
        while left is None or left > 0:
            query = msgspec.structs.replace(
                query, limit=min(queries.READ_BATCH, left if left is not None else queries.READ_BATCH)
            )
            page = await self._read(partial(queries.find, schema, query))
            for _, record in page:
                yield record
            if len(page) < query.limit:
                return
            left = left - len(page) if left is not None else None
            query = msgspec.structs.replace(query, after=page[-1][0])

    async def fields(self, collection: str | type, names: Sequence[str]) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Of all records that are present the key and some fields as they are stored, page by page, by key.

        For going through a whole collection: it costs less than `find`, which makes a `Record` of each. Raises
        `CollectionUnknown`, `FieldUnknown`.
        """
        schema = schema_for(self.schemas, name_of(collection))
        for name in names:
            if name not in schema.types:
                raise FieldUnknown(schema.name, name, list(schema.columns))
        query = Query(schema.name, limit=queries.READ_BATCH)
        while True:
            rank, rows = await self._read(partial(queries.stored_fields, schema, names, query))
            if rows:
                yield rows
            if len(rows) < query.limit:
                return
            query = msgspec.structs.replace(query, after=rank)

    async def events(
        self, after: int = 0, *, follow: bool = False, collection: str | None = None
    ) -> AsyncIterator[Event]:
        """The events after a position of this log, in its order; with `follow`, then each new one as it is written.

        Neither skips nor repeats an event. To go on later, pass the `position` of the last one.
        """
        position = after
        while True:
            events = await self._read(partial(queries.events, position))
            for event in events:
                position = event.position
                if collection is None or event.collection == collection:
                    yield event
            if events:
                continue
            if not follow:
                return
            await self._written(position)

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
        positions = await self._read(partial(queries.history, (name, text)))
        for start in range(0, len(positions), queries.READ_BATCH):
            for event in await self._read(partial(queries.at, positions[start : start + queries.READ_BATCH])):
                yield event

    async def events_of(self, records: Sequence[tuple[str, str]], *, after: int = 0) -> list[Event]:
        """The events of some records that stand after a position, in the order of the log."""
        if not records:
            return []
        return await self._read(partial(queries.events_of, records, after))

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
            page, found = await self._read(partial(queries.conflicts, query, self.schemas, strategy))
            for conflict in found:
                yield conflict
            if not page:
                return
            left = left - len(page) if left is not None else None
            query = msgspec.structs.replace(query, after=page[-1].entry.id)

    async def conflict(self, conflict_id: str) -> Conflict:
        """The conflict with this id: the live one, else the one that was closed. Raises `ConflictUnknown`."""
        _, found = await self._read(partial(queries.conflicts, ConflictQuery(id=conflict_id), self.schemas, None))
        if not found:
            raise ConflictUnknown(conflict_id, "is on the list")
        return found[0]

    async def deletions(
        self,
        collections: Sequence[str | type] = (),
        *,
        after: int = 0,
        actor: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Deletion]:
        """What was deleted, first deleted first: of some collections or all, after a position, by one actor or any.

        The log is read run by run, up to where it ends when this is asked. A record that was deleted twice is told
        twice. Raises `CollectionUnknown`.
        """
        names = {name if isinstance(name, str) else collection_of(name).name for name in collections}
        for name in names:
            schema_for(self.schemas, name)
        query = DeletionQuery(names, actor)
        end = (await self.checkpoint()).position
        left = limit
        while after < end and left != 0:
            after, found = await self._read(partial(deletions, query, after, end))
            for deletion in found[:left]:
                yield deletion
            left = left - min(left, len(found)) if left is not None else None

    async def merge_quality(self) -> dict[str, Quality]:
        """How the conflicts on the list came to an end, by kind: how many needed a person, and how many did not."""
        return await self._read(lambda _, tables: quality(tables.conflict_counts(), self.schemas))

    async def pull(
        self,
        after: str = "",
        *,
        collections: Sequence[str | type] = (),
        priority: str = PRIORITIES[0],
        limit: int = 100,
    ) -> Page:
        """One page of what a thin client lacks: the records that changed since it pulled last, as they are.

        `after` is `next` of the page before; nothing pulls from the start. A pull is the pages up to one without
        `has_more`; it gives each record once, parents before children, as it stood when the pull began, whatever is
        written meanwhile: that comes with the next pull. A client that takes in every page so has the archive's state
        at the `position` of the last. Deleted records are told too. In a circle of collections, or in one that refers
        to itself, a child may come before its parent.

        `collections` are all where none is named. `priority` leaves out collections that are less urgent than it: each
        has one by its definition (`low`, `normal`, `high`, `critical`; `normal` where it says nothing), and is as
        urgent as the most urgent collection that may refer to it, so that no parent is left out for its own priority.
        The most urgent come first, as far as parents allow. A cursor goes with what it was asked for: a client that
        pulls what is critical often, and the rest at night, has a cursor for each. `limit` is how many records a page
        has, 1 to 1000.

        Raises `CursorRefused` for what is no cursor of such a pull, `CursorForeign` for that of another log, which
        includes this one before it was restored, `CollectionUnknown`, `ValueRefused`.
        """
        names = tuple(name if isinstance(name, str) else collection_of(name).name for name in collections)
        if priority not in PRIORITIES:
            raise ValueRefused("", "priority", f"is none of {', '.join(PRIORITIES)}", show(priority))
        if not 1 <= limit <= PULL_LIMIT:
            raise ValueRefused("", "limit", f"is 1 to {PULL_LIMIT}", show(limit))
        return await self._read(partial(pulls.page, Asked(after, names, priority, limit), self._store.path))

    async def settled(self) -> None:
        """Returns when every projection has reached what is now the end of the log. Raises `ProjectionFailed`."""
        end = self._log.value
        for follower in self._followers:
            await follower.settled(end)

    async def checkpoint(self) -> Checkpoint:
        """The log's end: position, heads and the digest of the state."""
        return await self._read(queries.checkpoint)

    async def digest(self) -> str:
        """The digest of the state, 64 hexadecimal digits: the same events give the same digest on any machine."""
        return format_digest((await self.checkpoint()).digest or 0)

    async def status(self) -> Status:
        """Where the archive stands."""
        checkpoint, counts, end = await self._read(queries.counts)
        collections = {name: counts.get(name, 0) for name in sorted(self.schemas)}
        standing = "current" if checkpoint.position >= end else "behind"
        projections = [ProjectionStatus("tables", checkpoint.position, standing)]
        if not self._followers:
            for projection in self._store.projections:
                position = (await self._store.project(projection.checkpoint)).position
                state = "current" if position >= checkpoint.position else "behind"
                projections.append(ProjectionStatus(projection.name, position, state))
        projections += [follower.status() for follower in self._followers]
        return Status(self.replica, checkpoint.position, checkpoint.vector, projections, collections)

    async def verify(
        self,
        progress: Callable[[str, int], None] = lambda what, done: None,
        *,
        claims: Iterable[Claim] = (),
        only: Container[str] = EVERYTHING,
        budget: float | None = None,
        checked: MutableMapping[str, Checked] | None = None,
    ) -> Report:
        """Checks the log's chain, and the tables and the other projections against the log.

        `claims` are what witnesses from outside remember of the log; `only` some of the parts `log`, `tables`, and the
        names of projections. `progress` is told what is being checked and how far it has come. Raises nothing for what
        is found.

        With a `budget`, in seconds, it looks at what was looked at longest ago, a piece at a time, and ends with the
        piece at which the time is over; `checked` says when each was looked at last, and is brought up to date. What
        has been covered is in the report.
        """
        findings: list[Finding] = []
        try:
            await self.settled()
        except ProjectionFailed as error:
            findings.append(Finding("projection-failed", str(error)))
        if budget is not None:
            remembered = {} if checked is None else checked
            return await Round(self._read, self._store, progress, self._wall, remembered).run(
                budget, findings, claims, only
            )
        verification = Verification(self._read, self._store, progress)
        return await verification.run(findings, claims, only)

    async def projected(self, name: str, work: Callable[[Any], T]) -> T:
        """Runs blocking work over the projection of that name, where projections run. Raises `ProjectionUnknown`."""
        for projection in self._store.projections:
            if projection.name == name:
                return await self._store.project(partial(work, projection))
        raise ProjectionUnknown(name, [projection.name for projection in self._store.projections])
