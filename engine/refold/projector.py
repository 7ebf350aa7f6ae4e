"""Runs the projections that follow the log behind the writers.

Each has a task of its own. It lets the writers go first: it starts when the log has been quiet for a moment, when the
projection lags by `bound` events or by some seconds, or when someone waits for it. What was written twice meanwhile is
then done once.

A projection that fails is stopped with a typed error and shown as such, while the others go on. One that is ahead of
the log (an earlier state of the log was restored) is told to forget everything and is applied from the start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

import msgspec

from .errors import ProjectionFailed
from .events import Checkpoint, Event
from .ports import Changelog, Projection, Store, Tables, Unfinished
from .progress import Progress, uninterrupted
from .replay import advance, events_after, is_ahead

_logger = logging.getLogger("refold.projector")

APPLY_BATCH = 5000
"""Events that a projection takes in at once."""

LAG_BOUND = 50_000
"""Events that a projection may lag behind while writers keep writing."""

QUIET_SECONDS = 0.05
"""How long the log must rest before a projection follows by itself."""


LAG_SECONDS = 5.0
"""How long a projection may lag behind writers that never rest."""


class ProjectionStatus(msgspec.Struct, frozen=True):
    """Where a projection stands: `current`, `behind` or `failed`, and why."""

    name: str
    position: int
    state: str
    error: str | None = None


class Follower:
    """One projection and the task that runs it; `wanted` is the position that someone waits for."""

    def __init__(self, store: Store, projection: Projection, log: Progress, *, bound: int, quiet: float) -> None:
        self.projection = projection
        self.progress = Progress()
        self.failure: ProjectionFailed | None = None
        self._store = store
        self._log = log
        self._bound = bound
        self._quiet = quiet
        self._wanted = 0
        self._hurry = asyncio.Event()
        self._stop = False
        self._task = asyncio.create_task(self._run(), name=f"refold projection {projection.name}")

    def status(self) -> ProjectionStatus:
        """Where it stands now."""
        if self.failure is not None:
            return ProjectionStatus(self.projection.name, self.progress.value, "failed", str(self.failure))
        state = "current" if self.progress.value >= self._log.value else "behind"
        return ProjectionStatus(self.projection.name, self.progress.value, state)

    async def settled(self, position: int) -> None:
        """Returns when everything up to `position` has been applied. Raises `ProjectionFailed`."""
        self._wanted = max(self._wanted, position)
        self._hurry.set()
        await self.progress.reached(position)

    async def restart(self) -> None:
        """Makes the projection forget everything and apply the log from the start, also after a failure.

        Whoever asked for it may be cancelled; the projection follows on all the same.
        """
        await uninterrupted(self._restart())

    async def _restart(self) -> None:
        self._stop = True
        self._hurry.set()
        await self._task
        try:
            await self._store.project(self.projection.reset)
            self.progress.restart()
            self.failure = None
        finally:
            self._stop = False
            self._task = asyncio.create_task(self._run(), name=self._task.get_name())

    async def close(self, *, flush: bool) -> None:
        """Ends the task, after it has caught up if `flush`. Raises `ProjectionFailed` if it could not."""
        try:
            if flush:
                await self.settled(self._log.value)
        finally:
            self._stop = True
            self._hurry.set()
            await self._task

    async def _run(self) -> None:
        try:
            checkpoint = await self._start()
            while not self._stop:
                self.progress.advance(checkpoint.position)
                await self._due(checkpoint.position)
                if not self._stop:
                    checkpoint = await self._apply(checkpoint)
        except asyncio.CancelledError:  # by a loop that shuts down; nobody may wait for this task any more
            self.progress.fail(ProjectionFailed(self.projection.name, self.progress.value, "its task was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the projection stops and says so
            self.failure = ProjectionFailed(self.projection.name, self.progress.value, str(error))
            self.failure.__cause__ = error
            self.progress.fail(self.failure)

    async def _start(self) -> Checkpoint:
        checkpoint = await self._store.project(self.projection.checkpoint)
        if await self._store.read(partial(_is_ahead, checkpoint)):
            why = "%s has seen events that the log does not hold; it is made anew"
            await asyncio.to_thread(_logger.warning, why, self.projection.name)
            await self._store.project(self.projection.reset)
            return await self._store.project(self.projection.checkpoint)
        projection = self.projection
        if isinstance(projection, Unfinished) and await self._store.project(projection.unfinished):
            await self._store.project(partial(projection.apply, [], checkpoint))
        return checkpoint

    async def _due(self, position: int) -> None:
        """Returns when there is something to apply and it should be applied now."""
        clock = asyncio.get_running_loop().time
        since = clock()
        while not self._stop:
            end = self._log.value
            late = end - position >= self._bound or clock() - since >= LAG_SECONDS
            if end > position and (late or self._wanted > position):
                return
            self._hurry.clear()
            if end <= position:
                await self._grown(end)
                since = clock()
                continue
            try:
                async with asyncio.timeout(self._quiet):
                    await self._grown(position + self._bound - 1)
            except TimeoutError:
                if self._log.value == end:
                    return

    async def _grown(self, end: int) -> None:
        """Returns when the log has grown beyond a position, or someone is in a hurry."""
        grown = asyncio.ensure_future(self._log.reached(end + 1))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({grown, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()
            hurried.cancel()
            await asyncio.gather(grown, hurried, return_exceptions=True)

    async def _apply(self, checkpoint: Checkpoint) -> Checkpoint:
        end = self._log.value  # beyond it the log may hold events that the tables do not have yet
        events = [
            event for event in await self._store.read(partial(_read, checkpoint.position)) if event.position <= end
        ]
        if not events:
            return checkpoint
        after = advance(checkpoint, events)
        await self._store.project(partial(self.projection.apply, events, after))
        return after


def _is_ahead(checkpoint: Checkpoint, log: Changelog, _tables: Tables) -> bool:
    return is_ahead(log, checkpoint)


def _read(after: int, log: Changelog, _tables: Tables) -> Sequence[Event]:
    return events_after(log, after, APPLY_BATCH)
