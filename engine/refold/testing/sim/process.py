"""One run of a program on a replica: the tasks that die with it, and the moments at which it can die.

A crash ends the program between two steps. Its tasks are cancelled, for that is how they are taken off the loop, but
nothing that they do on the way out reaches the disk or the network any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from .loop import owner

T = TypeVar("T")


class Crash(BaseException):
    """The program dies here, in the middle of work on its store."""


class Process:
    """What is running on a replica from its start to its end. Implements `Owner`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.fatal: int | None = None
        self.last_words: list[Callable[[], None]] = []
        self._points = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """See `Owner.adopt`."""
        if len(self._tasks) > 100:
            self._tasks = [known for known in self._tasks if not known.done()]
        self._tasks.append(task)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs work as a task of this process, and so are all the tasks that it creates."""
        context = copy_context()
        context.run(owner.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def die_after(self, points: int) -> None:
        """Plans the death of the process at one of the next points that it passes."""
        self.fatal = self._points + points

    def point(self) -> None:
        """Passes a point at which the process can die. Raises `Crash`."""
        self._points += 1
        if self.fatal == self._points:
            self.kill()
        if self.dead:
            raise Crash

    def kill(self) -> None:
        """Ends the process where it stands."""
        if self.dead:
            return
        self.dead = True
        for say in self.last_words:
            say()
        for task in self._tasks:
            if not task.done():
                task.cancel()

    async def gone(self) -> None:
        """Returns when none of its tasks is left on the loop."""
        left = [task for task in self._tasks if not task.done() and task is not asyncio.current_task()]
        if left:
            await asyncio.wait(left)
