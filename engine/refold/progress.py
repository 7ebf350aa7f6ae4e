"""A number that only grows, and tasks that wait until it has grown far enough."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finishes `work` even if the caller is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # noqa: BLE001 - raised below, from the task itself
            break
    task.result()
    if cancelled is not None:
        raise cancelled


class Progress:
    """How far something has come, as a position; waiters are woken when it gets there, or told why it never will."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._failure: Exception | None = None

    def advance(self, value: int) -> None:
        """Moves forward and wakes whoever waited for this much."""
        self.value = max(self.value, value)
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for target, future in waiting:
            if target > self.value:
                self._waiting.append((target, future))
            elif not future.done():
                future.set_result(None)

    def restart(self) -> None:
        """Goes back to 0; who waits goes on waiting."""
        self.value, self._failure = 0, None

    def fail(self, failure: Exception) -> None:
        """Ends every wait, now and later, that has not been met with `failure`."""
        self._failure = failure
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(failure)

    async def reached(self, value: int) -> None:
        """Returns once the number is at least `value`. Raises what `fail` was given."""
        if self.value >= value:
            return
        if self._failure is not None:
            raise self._failure
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((value, future))
        try:
            await future
        finally:
            if future.cancelled():
                self._waiting = [entry for entry in self._waiting if entry[1] is not future]
