"""Records looked at in order, by as many processes as there is work for.

A record without a pattern to match costs less to look at than to hand over, so those stay in this process, in a thread.
The others go to worker processes, a chunk at a time; one process is enough for a small input, and further ones are
started while chunks wait. A process that does not answer in time is killed, and the records of its chunk are looked at
one by one, so that only those which deserve it are given up.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Generic, TypeVar

from refold.errors import StorageFailed
from refold.schema import Schema, to_data

from .checks import FieldError, Row, check_all, needs_limit
from .worker import LENGTH, out_of_time, packed

T = TypeVar("T")
Errors = list[list[FieldError]]

GRACE = 5.0
"""Seconds that a process may take beyond the limits of its records before it is killed."""


COMMAND = (sys.executable, "-m", "refold_adapters.validating.worker")
"""How a process is started."""


class Overdue(Exception):
    """A process did not answer in time, and was killed."""


class Worker:
    """One process; `grace` is how long it may take beyond its records' limits."""

    def __init__(self, process: Process, limit: float, grace: float) -> None:
        self._process = process
        self._limit = limit
        self._grace = grace

    @classmethod
    async def start(cls, schema: Schema, limit: float, grace: float) -> Worker:
        """A process that knows the collection."""
        try:
            process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stdout=PIPE, start_new_session=True)
        except OSError as error:
            raise StorageFailed(sys.executable, "starting a process", str(error)) from error
        worker = cls(process, limit, grace)
        worker._write((schema.name, to_data(schema.collection), limit))
        return worker

    def _write(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(packed(message))

    async def check(self, rows: Sequence[Row]) -> Errors:
        """What is wrong with each. Raises `Overdue`, after which the process is gone."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(self._limit * len(rows) + self._grace):
                self._write(list(rows))
                head = await self._process.stdout.readexactly(LENGTH.size)
                body = await self._process.stdout.readexactly(LENGTH.unpack(head)[0])
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self.end()
            raise Overdue from error
        answer: Errors = pickle.loads(body)
        return answer

    async def end(self) -> None:
        """Kills the process."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Pool(Generic[T]):
    """Looks at chunks of records that come with something of the caller's; use it inside `async with`."""

    def __init__(self, schema: Schema, *, limit: float, jobs: int, grace: float = GRACE) -> None:
        self._schema = schema
        self._limit = limit
        self._grace = grace
        self._jobs = max(1, jobs)
        self._apart = needs_limit(schema)
        self._slots = asyncio.Semaphore(self._jobs)
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._pending: deque[tuple[T, asyncio.Task[Errors]]] = deque()

    async def results(self, chunks: AsyncIterator[tuple[T, list[Row]]]) -> AsyncGenerator[tuple[T, Errors], None]:
        """What is wrong with the records of each chunk, in the order in which chunks come."""
        async for what, rows in chunks:
            self._pending.append((what, asyncio.create_task(self._check(rows))))
            while len(self._pending) > self._jobs:
                yield await self._next()
        while self._pending:
            yield await self._next()

    async def _next(self) -> tuple[T, Errors]:
        what, task = self._pending[0]
        errors = await task
        self._pending.popleft()
        return what, errors

    async def _check(self, rows: list[Row]) -> Errors:
        async with self._slots:
            if not self._apart:
                return await asyncio.to_thread(check_all, self._schema, rows)
            try:
                return await self._by_worker(rows)
            except Overdue:
                return [await self._alone(row) for row in rows]

    async def _alone(self, row: Row) -> list[FieldError]:
        try:
            return (await self._by_worker([row]))[0]
        except Overdue:
            return [out_of_time(self._limit)]

    async def _by_worker(self, rows: list[Row]) -> Errors:
        if self._idle:
            worker = self._idle.pop()
        else:
            worker = await Worker.start(self._schema, self._limit, self._grace)
            self._all.append(worker)
        try:
            errors = await worker.check(rows)
        except Overdue:
            self._all.remove(worker)
            raise
        self._idle.append(worker)
        return errors

    async def __aenter__(self) -> Pool[T]:
        return self

    async def __aexit__(self, *error: object) -> None:
        tasks = [task for _, task in self._pending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._all:
            await worker.end()
