"""A replica's disk and the store over it: the log is durable when `append` returns, the tables some time later.

What a program saved to the tables stands in a queue until it is flushed. A crash keeps any beginning of that queue, so
tables that are found again may lag behind the log by any number of saves, but never hold half of one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from refold.events import Event
from refold.ports import Changelog, Changes, Tables
from refold.replay import catch_up, is_ahead
from refold.schema import Schema
from refold.testing.memory import MemoryLog, MemoryProjection, MemoryStore, MemoryTables

from .process import Crash, Process

T = TypeVar("T")


class StoredTables(MemoryTables):
    """Tables that can be copied."""

    def copied(self, events: Callable[[Sequence[int]], list[Event]]) -> StoredTables:
        """The same tables over the log that `events` reads."""
        other = StoredTables(events)
        other.states = dict(self.states)
        other._positions = {record: list(positions) for record, positions in self._positions.items()}
        other._requests = dict(self._requests)
        other._checkpoint = self._checkpoint
        other._closed = dict(self._closed)
        other._schemas = self._schemas
        return other


class StoredLog(MemoryLog):
    """A log that can be copied, and that says on opening where its process may die."""

    process: Process | None = None

    def append(self, events: Sequence[Event], bodies: Sequence[bytes], hashes: Sequence[bytes]) -> int:
        """See `Changelog.append`. A process that dies in it leaves all or nothing."""
        if self.process is not None:
            self.process.point()
        first = super().append(events, bodies, hashes)
        if self.process is not None:
            self.process.point()
        return first

    def copied(self, owner: str) -> StoredLog:
        """The same log as the log of `owner`."""
        other = StoredLog(owner)
        other.stored = list(self.stored)
        other._heads, other._hashes, other._positions = dict(self._heads), dict(self._hashes), dict(self._positions)
        return other


class Disk:
    """What survives a crash; `unflushed` is what was saved to the tables and may be lost."""

    def __init__(self, owner: str) -> None:
        self.log = StoredLog(owner)
        self.tables = StoredTables(self.log.at)
        self.unflushed: list[tuple[Changes, Mapping[str, Schema]]] = []
        self.projection = MemoryProjection("follower")

    def flush(self, saves: int) -> None:
        """Makes the first so many saves durable."""
        for changes, schemas in self.unflushed[:saves]:
            self.tables.save(changes, schemas)
        del self.unflushed[:saves]

    def crash(self, random: Random) -> None:
        """Keeps a beginning of what was not flushed."""
        self.flush(random.randint(0, len(self.unflushed)))
        self.unflushed.clear()

    def copied(self, owner: str = "") -> Disk:
        """A copy of the files, as a backup or a clone is; the projection is not part of it."""
        other = Disk(owner or self.log.owner)
        other.log = self.log.copied(other.log.owner)
        other.tables = self.tables.copied(other.log.at)
        return other


class LiveTables(StoredTables):
    """The tables as a running process sees them."""

    def __init__(self, disk: Disk, process: Process, random: Random) -> None:
        self.__dict__.update(vars(disk.tables.copied(disk.log.at)))
        self._disk, self._process, self._random = disk, process, random

    def save(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """See `Tables.save`."""
        self._process.point()
        super().save(changes, schemas)
        self._keep(changes, schemas)
        self._process.point()

    def _keep(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """Hands a save to the disk, which writes it now or later."""
        self._disk.unflushed.append((changes, schemas))
        if self._random.random() < 0.2:
            self._disk.flush(len(self._disk.unflushed))


class Thread:
    """Does one piece of work after the other, each some time after it was asked for, whoever still waits for it."""

    def __init__(self, process: Process, random: Random, latency: float) -> None:
        self._process, self._random, self._latency = process, random, latency
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._loop = asyncio.get_running_loop()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queues work; the future is answered unless the process dies first."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((work, future))
        if len(self._waiting) == 1:
            self._later(self._next)
        return future

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._latency:
            self._loop.call_later(self._random.random() * self._latency, call, *arguments)
        else:
            self._loop.call_soon(call, *arguments)

    def _is_dead(self) -> bool:
        return self._process.dead

    def _next(self) -> None:
        if self._is_dead():
            return
        work, future = self._waiting[0]
        try:
            result, error = work(), None
        except Crash:
            return
        except Exception as caught:  # noqa: BLE001 - whoever waits gets it
            result, error = None, caught
        if self._is_dead():
            return
        self._waiting.popleft()
        self._later(_answer, future, result, error)
        if self._waiting:
            self._later(self._next)


def _answer(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class SimStore(MemoryStore):
    """An archive on a simulated disk, as one process has it open. Implements `Store`."""

    def __init__(self, disk: Disk, process: Process, random: Random, *, latency: float, follows: bool) -> None:
        super().__init__(disk.log.owner)
        self.disk, self._process, self._random = disk, process, random
        self.log = disk.log
        self.log.process = process
        self.projections = [disk.projection] if follows else []
        self._writes, self._reads, self._follows = (Thread(process, random, latency) for _ in range(3))
        process.last_words.append(lambda: disk.crash(random))

    def open(self, batch: int) -> None:
        """Finds the tables on the disk and brings them up to the log, so many events at a time."""
        if is_ahead(self.log, self.disk.tables.checkpoint()):
            self.disk.tables = StoredTables(self.log.at)
        self.tables = LiveTables(self.disk, self._process, self._random)
        while catch_up(self.log, self.tables, batch):
            pass

    async def write(self, work: Callable[[Changelog, Tables], T]) -> T:
        """See `Store.write`."""
        return await self._writes.submit(lambda: work(self.log, self.tables))

    async def read(self, work: Callable[[Changelog, Tables], T]) -> T:
        """See `Store.read`."""
        return await self._reads.submit(lambda: work(self.log, self.tables))

    async def project(self, work: Callable[[], T]) -> T:
        """See `Store.project`."""
        return await self._follows.submit(work)

    async def close(self) -> None:
        """See `Store.close`. An orderly end leaves nothing unflushed."""
        self.disk.flush(len(self.disk.unflushed))
