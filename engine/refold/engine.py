"""The engine: what a program that embeds refold works with.

It checks what it is asked, hands writes to the writer and questions to the store, and keeps the projections following.
It decides nothing itself and stores nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from . import clients, pulls, queries, resolving
from .attendance import Attendance, ClientStatus, Stream, SyncStatus, sync_state
from .batch import Batch, Wording, delete_request, patch_request, put_request, schema_for, tag_request, worded
from .clients import Change, PushResult
from .clock import HybridClock
from .conflict import ConflictKind
from .decide import Answered, Operation, Pushed, Repeat, Request
from .errors import (
    ConflictUnknown,
    DefinitionRefused,
    EngineClosed,
    ProjectionUnknown,
    ReadOnly,
    RecordUnknown,
    ResolutionRefused,
    StorageFailed,
)
from .events import ARCHIVE, Event
from .fold import State
from .ports import Peer, Projection, Store
from .projector import LAG_BOUND, QUIET_SECONDS, Follower
from .pulls import Asked, Page
from .reader import Reader
from .references import Defined, defined
from .schema import PRIORITIES, Collection, Schema, collection_of, evolve, from_toml, name_of, to_data
from .session import MAX_SKEW
from .sync import Conversation, SyncReport, between, open_peer
from .sync_side import EngineSide
from .writer import Writer

T = TypeVar("T")


class Engine(Reader):
    """An open archive. Made by `refold.open`; see its methods for what can be done with it.

    Any call may raise `StorageFailed`; a write may raise `StorePoisoned` after an earlier failure, and `ReadOnly`.
    """

    def __init__(self, store: Store, *, actor: str = "", readonly: bool = False) -> None:
        super().__init__(store)
        self._default = worded(Wording(), {"actor": actor})
        self._readonly = readonly
        self._writer: Writer | None = None
        self._attendance = Attendance()

    async def start(self, clock: HybridClock, *, lag_bound: int = LAG_BOUND, quiet: float = QUIET_SECONDS) -> None:
        """Takes up where the archive stands. Called by `refold.open`."""
        run = self._store.read if self._readonly else self._store.write
        replica, schemas, checkpoint, newest = await run(queries.standing)
        self.replica, self._schemas = replica, schemas
        self._wall = clock.wall
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

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """The collections that are defined, by name."""
        return self._writer.schemas if self._writer is not None else self._schemas

    async def _written(self, position: int) -> None:
        if self._writer is None:
            await super()._written(position)
        else:
            await self._log.reached(position + 1)

    async def submit(self, requests: Sequence[Request]) -> list[Event | None]:
        """Writes requests as one atomic group; for callers that make requests themselves."""
        return [answer.event if isinstance(answer, Repeat) else answer for answer in await self.answers(requests)]  # type: ignore[misc]

    async def answers(self, requests: Sequence[Request]) -> list[Answered]:
        """The same, or with requests that are `Apart` each by itself, and with what was written before told apart."""
        if self._writer is None:
            raise ReadOnly(self._store.path)
        return await self._writer.submit(requests)

    def pushed(self, requests: Pushed) -> Awaitable[tuple[list[Answered], list[State | None]]]:
        """The same, with the states that their records were left in."""
        if self._writer is None:
            raise ReadOnly(self._store.path)
        return self._writer.push(requests)

    def _wording(self, wording: dict[str, Any]) -> Wording:
        return worded(self._default, wording) if wording else self._default

    async def define(self, what: Collection | type | str | Path, **wording: Any) -> Defined:
        """Defines collections: a `Collection`, a decorated class, or the path of a TOML file.

        Returns the events written, none where nothing changed, with the circles in which the collections refer to each
        other and the collections that they refer to and nobody defined: both are allowed, and told. Raises
        `DefinitionRefused` where existing records would change their meaning.
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
            wanted = (
                evolve(known.collection, collection, known.apart) if known is not None else evolve(None, collection)
            )
            requests.append(Request(Operation.DEFINE, collection.name, "", to_data(wanted), words.actor, words.meta))
        events = [event for event in await self.submit(requests) if event is not None]
        return defined(events, [collection.name for collection in collections], self.schemas)

    async def tag(self, name: str, vector: Mapping[str, int] | None = None, **wording: Any) -> Event | None:
        """Names what the log holds now, or what a version vector covers, so that one can come back to it by name.

        A name that is taken is moved. Returns the event, None when the name says so already. Raises `ValueRefused`.
        """
        request = tag_request(name, dict(vector or {}), self._wording(wording))
        return (await self.submit([request]))[0]

    async def untag(self, name: str, **wording: Any) -> Event | None:
        """Takes a name back. The events of when it was given and taken back stay."""
        return (await self.submit([tag_request(name, None, self._wording(wording))]))[0]

    async def put(
        self, target: str | msgspec.Struct, values: Mapping[str, Any] | None = None, **wording: Any
    ) -> Event | None:
        """Makes a record so: creates it, or writes the given fields that differ. Fields not given stay as they are.

        `put("orders", {...})`, or `put(Order(...))` for a decorated class. Keywords are `actor`, `reason`,
        `if_version`, `request_id` and `meta`. Returns the event, None when the record is already so. Raises
        `ValueRefused`, `FieldUnknown`, `CollectionUnknown`, `VersionMismatch`, `RequestReused`, and `ReferenceMissing`
        and `UniqueTaken` where the fields' rules say so.
        """
        request = put_request(self.schemas, target, values, self._wording(wording))
        return (await self.submit([request]))[0]

    async def patch(self, collection: str | type, key: Any, values: Mapping[str, Any], **wording: Any) -> Event | None:
        """Changes fields of a record that is there. As `put`; raises `RecordUnknown` as well."""
        request = patch_request(self.schemas, collection, key, values, self._wording(wording))
        return (await self.submit([request]))[0]

    async def delete(self, collection: str | type, key: Any, **wording: Any) -> Event | None:
        """Deletes a record; its history stays. None when it is deleted already.

        Raises `RecordUnknown`, and `ReferredTo` where others refer to it by a field that says it must be there.
        """
        request = delete_request(self.schemas, collection, key, self._wording(wording))
        return (await self.submit([request]))[0]

    async def push(self, changes: Sequence[Change], *, client: str, strict: bool = False, **wording: Any) -> PushResult:
        """Writes what a thin client changed, each change answered by itself; one that is refused stops no other.

        A change states the version that the client had seen; one that is stale merges by field where it can, and is a
        conflict where it cannot, or with `strict` is refused as such. Changes of several records, parents and children
        among them, may come in any order. `client` is the actor unless `actor` says otherwise.
        """
        words = self._wording({"actor": client, "meta": {"client": client}, **wording})
        result = await clients.push(self, changes, words, strict=strict)
        now = self._wall()
        self._attendance.pushed(client, now, clients.taken(result), clients.refusals(result, changes, now))
        return result

    async def pull(
        self,
        after: str = "",
        *,
        collections: Sequence[str | type] = (),
        priority: str = PRIORITIES[0],
        limit: int = 100,
        client: str = "",
    ) -> Page:
        """See `Reader.pull`. `client` says who asks: its cursor then shows what it has, for `sync_status`."""
        page = await super().pull(after, collections=collections, priority=priority, limit=limit)
        if client:
            asked = Asked(after, [name_of(one) for one in collections], priority)
            names, since = await self._read(partial(pulls.covered, asked, self._store.path))
            stream = Stream(
                collections=sorted(asked.collections),
                priority=priority,
                covered=names,
                position=since,
                time=self._wall(),
            )
            self._attendance.pulled(client, stream)
        return page

    def clients(self) -> list[ClientStatus]:
        """The thin clients that pushed, or pulled under a name, since the engine was opened, by name.

        This is kept in memory and begins anew with the engine; see `refold.attendance`.
        """
        return self._attendance.all()

    def client(self, name: str) -> ClientStatus | None:
        """One of them; None for one that was not heard of, or so long ago that it is forgotten."""
        return self._attendance.get(name)

    async def sync_status(self, collection: str | type, key: Any, *, client: str) -> SyncStatus:
        """How a record stands at a client, as far as a server can know.

        `conflict`: one of the record is open. `sync-error`: the client's last change of it was refused, and none was
        taken since. `needs-download`: others wrote what no cursor of the client shows that it has; so says a client
        that has not pulled since the engine was opened. Else `in-sync`. Raises `CollectionUnknown`, `ValueRefused`,
        and `RecordUnknown` for a record that never was and that the client did not try to make.
        """
        schema = schema_for(self.schemas, name_of(collection))
        record = schema.name, schema.key_text(key)
        known = self._attendance.get(client) or ClientStatus(name=client)
        have = known.acknowledged(schema.name)
        found = await self._read(partial(pulls.standing_of, record, client, have))
        error = known.refusal(*record)
        if not found.version and error is None:
            raise RecordUnknown(*record)
        tried = [time for time in (found.attempted, error.time if error is not None else None) if time is not None]
        return SyncStatus(
            state=sync_state(disputed=found.disputed, refused=error is not None, lacking=found.lacking),
            priority=PRIORITIES[found.urgency],
            version=found.version,
            attempted=max(tried, default=None),
            error=error,
        )

    def batch(self, **wording: Any) -> Batch:
        """An atomic group of writes: `async with engine.batch(actor="import") as batch: batch.put(...)`."""
        return Batch(self, self._wording(wording))

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
            asked = {"replica": self.replica, "asker": side, "max_skew": max_skew, **options}
            async with open_peer(fspath(peer), **asked) as other:
                return await between(side, other, max_skew=max_skew, tell=progress)
        return await Conversation(side, peer, max_skew=max_skew, tell=progress).run()

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
        to be; `keep_both` lets the record stay as it is and makes a record of its own of every losing side. Of a unique
        conflict, the record that is taken keeps the value and the others have null, or `values`, the key among them,
        give one of its records another. Raises `ConflictUnknown`, `ResolutionRefused`, `ValueRefused`, `RuleBroken`,
        and `VersionMismatch` when somebody was faster.
        """
        conflict = await self.conflict(conflict_id)
        if conflict.settled_by is not None:
            raise ConflictUnknown(conflict_id, "waits to be settled: it is resolved")
        if conflict.collection == ARCHIVE:
            raise ResolutionRefused(conflict_id, "a tag is settled by tagging it again")
        if not conflict.key and (take is None or keep_both or values is not None):
            raise ResolutionRefused(conflict_id, "a definition is settled by define, or by the side to take")
        schema = schema_for(self.schemas, conflict.collection)
        keys = {conflict.key}
        if conflict.kind is ConflictKind.UNIQUE:
            keys.update(side.value for group in conflict.sides.values() for side in group)
        found = await self.states([(conflict.collection, key) for key in sorted(keys)])
        states = {key: state for (_, key), state in found.items()}
        words, choice = self._wording(wording), resolving.Choice(take, values, keep_both)
        if conflict.kind is ConflictKind.UNIQUE:
            asked = resolving.parting(conflict, schema, states, words, choice)
        else:
            asked = resolving.requests(conflict, schema, states[conflict.key], words, choice)
        return [event for event in await self.submit(asked) if event is not None]

    @property
    def projections(self) -> Sequence[Projection]:
        """What follows the log behind the writers. Its methods may only be called through `project`."""
        return self._store.projections

    async def project(self, work: Callable[[], T]) -> T:
        """Runs `work` where the projections run."""
        if self._closed:
            raise EngineClosed("the engine")
        return await self._store.project(work)

    def side(self) -> EngineSide:
        """This archive as one side of one session."""
        if self._writer is None:
            raise ReadOnly(self._store.path)
        return EngineSide(self._store, self._writer)

    async def rebuild(
        self, progress: Callable[[str, int], None] = lambda what, done: None, *, what: str | None = None
    ) -> None:
        """Makes the tables, or another projection by its name, or all of them anew from the log, while writes go on.

        Tables grow beside the old ones, which readers see until the new ones have caught up. Folders stand among other
        people's documents, so no tree is swapped: each file that is not as it should be is replaced by a rename.
        Whoever is cancelled leaves the old tables, and folders that go on being made anew. Raises `ProjectionUnknown`.
        """
        if self._writer is None:
            raise ReadOnly(self._store.path)
        followers = [follower for follower in self._followers if what in {None, follower.projection.name}]
        if what not in {None, "tables"} and not followers:
            raise ProjectionUnknown(str(what), ["tables", *(follower.projection.name for follower in self._followers)])
        if what in {None, "tables"}:
            await self._store.rebuild_tables(partial(progress, "tables"))
        for follower in followers:
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
