"""Group commit: many callers, one transaction, one sync, one entry into the writing thread.

Callers queue their groups of requests and wait. One task takes whatever is waiting, hands it to the store as one piece
of work, and answers everyone: while a commit is being synced the next one gathers by itself, so the more callers there
are the less a sync costs each. Within the work, reading the states, deciding, appending to the log and applying to the
tables follow each other without leaving the thread; an answer is given after all of it, so what was acknowledged is
durable and visible.

A failure to append refuses the callers of that commit. A failure after the append leaves the tables behind the log, so
nothing further is accepted until the archive is opened again and has caught up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from .clock import HybridClock
from .decide import Answered, Decision, Ground, Request, decide
from .errors import EngineClosed, ProjectionFailed, StorePoisoned
from .events import Checkpoint, Event, Head
from .fold import State, fold_all
from .intake import Taken, taken_of, unknown
from .ports import Changelog, Changes, Store, Tables
from .replay import Found, Sealed, changes_of, check_definitions, find, schemas_after
from .rules import Rules, foreseen, has_rules
from .schema import Schema

Answer = tuple[list[Answered], list[State | None]]
"""The answers to a group, and the states that it left, if it was pushed."""

COMMIT_LIMIT = 2000
"""Requests taken into one commit, which bounds its memory and the time the first caller waits for the last."""

QUEUE_LIMIT = 10_000
"""Groups that may wait; further callers wait for room."""


class Writer:
    """The one that writes: owns the replica's clock, the end of its chain, and the queue of what is to be written."""

    def __init__(
        self,
        store: Store,
        replica: str,
        clock: HybridClock,
        schemas: Mapping[str, Schema],
        checkpoint: Checkpoint,
        committed: Callable[[int], None],
    ) -> None:
        self.replica = replica
        self.schemas = schemas
        self.checkpoint = checkpoint
        self._store = store
        self._clock = clock
        self._committed = committed
        self._queue: deque[tuple[Sequence[Request], asyncio.Future[Answer]]] = deque()
        self._room = asyncio.Event()
        self._wake: asyncio.Future[None] | None = None
        self._closing = False
        self._poison: Exception | None = None
        self._intakes: set[asyncio.Task[Taken]] = set()
        self._task = asyncio.create_task(self._run(), name="refold writer")

    async def submit(self, requests: Sequence[Request]) -> list[Answered]:
        """The answers to a group of requests (see `Decision`), what was written being durable and visible.

        Raises what refused the group, `StorageFailed`, `StorePoisoned` or `EngineClosed`. Cancelling the wait leaves
        the group written whole or not at all.
        """
        return (await self.push(requests))[0]

    async def push(self, requests: Sequence[Request]) -> Answer:
        """The same, with the state that each request of a group that is `Pushed` left its record in."""
        if self._closing:
            raise EngineClosed("the engine")
        if self._poison is not None:
            raise StorePoisoned(str(self._poison))
        while len(self._queue) >= QUEUE_LIMIT:
            await self._room.wait()
            if self._closing:
                raise EngineClosed("the engine")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((requests, future))
        if self._wake is not None:
            self._wake.set_result(None)
            self._wake = None
        return await future

    def now(self) -> int:
        """The wall clock of this replica, in Unix milliseconds."""
        return self._clock.wall()

    async def ingest(self, run: Sealed) -> Taken:
        """Takes in events of other replicas, durable and visible on return, all of the run that is new or nothing.

        Raises `EventsMissing` and `EventForked` as `Changelog.append` does, `StorageFailed`, `StorePoisoned`. The store
        runs it between two commits, so neither sees the other half done. It is done, and whoever follows the log is
        told, also when the caller is cancelled meanwhile.
        """
        if self._closing:
            raise EngineClosed("the engine")
        work = asyncio.create_task(self._store.write(partial(self._ingest, run)), name="refold intake")
        self._intakes.add(work)
        work.add_done_callback(self._took)
        return await asyncio.shield(work)

    def _took(self, work: asyncio.Task[Taken]) -> None:
        self._intakes.discard(work)
        self._committed(self.checkpoint.position)

    async def close(self) -> None:
        """Writes what is waiting, refuses what comes later, and ends."""
        self._closing = True
        self._room.set()
        if self._wake is not None:
            self._wake.set_result(None)
            self._wake = None
        await self._task
        await asyncio.gather(*self._intakes, return_exceptions=True)  # whoever began one is told, or was cancelled

    async def _run(self) -> None:
        """Commits what waits, again and again; callers are answered while the commit after theirs is under way."""
        answered: tuple[list[asyncio.Future[Answer]], Decision | Exception] | None = None
        while self._queue or answered or not self._closing:
            groups, futures = self._take()
            commit = self._write(groups) if groups else None
            if answered is not None:
                under_way = asyncio.ensure_future(commit) if commit is not None else None
                self._answer(*answered)
                answered = None
                if under_way is not None:
                    answered = futures, await under_way
            elif commit is not None:
                answered = futures, await commit
            elif not self._queue and not self._closing:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake

    async def _write(self, groups: Sequence[Sequence[Request]]) -> Decision | Exception:
        try:
            return await self._store.write(partial(self._commit, groups))
        except Exception as error:  # noqa: BLE001 - every caller gets it, whatever it is
            return error

    def _answer(self, futures: list[asyncio.Future[Answer]], decision: Decision | Exception) -> None:
        if isinstance(decision, Exception):
            for future in futures:
                if not future.done():
                    future.set_exception(decision)
            return
        if decision.events:
            self._committed(decision.events[-1].position)
        for future, answer, left in zip(futures, decision.answers, decision.left, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result((answer, left))

    def _take(self) -> tuple[list[Sequence[Request]], list[asyncio.Future[Answer]]]:
        """What is waiting, up to the limit of a commit, less what nobody waits for any more."""
        groups: list[Sequence[Request]] = []
        futures: list[asyncio.Future[Answer]] = []
        queue = self._queue
        size = 0
        while queue and (not groups or size + len(queue[0][0]) <= COMMIT_LIMIT):
            requests, future = queue.popleft()
            if not future.done():
                groups.append(requests)
                futures.append(future)
                size += len(requests)
        self._room.set()
        self._room.clear()
        return groups, futures

    def _ingest(self, run: Sealed, log: Changelog, tables: Tables) -> Taken:
        if self._poison is not None:
            raise StorePoisoned(str(self._poison))
        fresh = unknown(run, self.checkpoint.heads)
        if not fresh.events:
            return Taken()
        found = find(log, tables, {event.record for event in fresh.events})
        states = fold_all(found.states, fresh.events)
        check_definitions(self.schemas, found.states, fresh.events)
        schemas = schemas_after(self.schemas, states)
        changes = self._keep(fresh, states, found, fresh.heads(), schemas, log, tables)
        self._clock.observe(max(event.time for event in fresh.events))
        return taken_of(fresh.events, found.states, changes.disputes, schemas)

    def _keep(
        self,
        run: Sealed,
        states: Mapping[tuple[str, str], State],
        found: Found,
        heads: Mapping[str, Head],
        schemas: Mapping[str, Schema],
        log: Changelog,
        tables: Tables,
    ) -> Changes:
        """Makes a run of events durable and visible; one that is in the log and not in the tables poisons the store."""
        position = log.append(*run)
        try:
            for offset, event in enumerate(run.events):
                msgspec.structs.force_setattr(event, "position", position + offset)
            changes = changes_of(self.checkpoint, run, states, found, heads, schemas)
            tables.save(changes, schemas)
        except BaseException as error:
            self._poison = ProjectionFailed("tables", position - 1, str(error))
            raise self._poison from error
        self.schemas = schemas
        self.checkpoint = changes.checkpoint
        return changes

    def _commit(self, groups: Sequence[Sequence[Request]], log: Changelog, tables: Tables) -> Decision:
        if self._poison is not None:
            raise StorePoisoned(str(self._poison))
        requests = [request for group in groups for request in group]
        ruled = has_rules(self.schemas)
        targets, values = foreseen(self.schemas, requests) if ruled else (set[tuple[str, str]](), [])
        asked = targets.union((request.collection, request.key) for request in requests)
        found = find(log, tables, asked)
        ids = [request.request_id for request in requests if request.request_id is not None]
        earlier = log.at(sorted(set(tables.requests(ids).values()))) if ids else []

        def history(record: tuple[str, str]) -> Sequence[Event]:
            return found.history([record])

        rules = None
        if ruled:
            states = {record: found.states.get(record) for record in asked}
            rules = Rules(self.schemas, tables, states, values, len(requests), history)
        ground = Ground(
            self.replica,
            self.checkpoint.heads.get(self.replica) or Head(0, bytes(32)),
            self._clock,
            self.schemas,
            dict(found.states),
            {event.request_id: event for event in earlier if event.request_id is not None},
            self.checkpoint.vector,
            history,
            rules,
        )
        decision = decide(groups, ground)
        if not decision.events:
            return decision
        schemas = schemas_after(self.schemas, decision.states)
        run = Sealed(decision.events, decision.bodies, decision.hashes)
        self._keep(run, decision.states, found, {self.replica: decision.head}, schemas, log, tables)
        return decision
