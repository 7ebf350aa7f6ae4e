"""An event loop without I/O, on which time passes by jumping to the next timer.

Whatever asyncio leaves to the loop is decided by the seed: callbacks that are ready run in any order, so that code
which depends on one is found out. A run that waits for something that will never happen is `Stuck`, at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any, Protocol

MAX_TURNS = 300_000
"""Turns of the loop after which a run is said to go round in circles."""


class Stuck(RuntimeError):
    """Nothing is ready and no timer runs, or the loop turns without end."""


class Owner(Protocol):
    """What tasks belong to: whoever is named by `owner` where a task is created is told of it."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Takes in a task that was just created."""


owner: ContextVar[Owner | None] = ContextVar("owner", default=None)


class _Leap:
    """In the place of a selector: instead of waiting, it moves the clock."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Lets `timeout` seconds pass."""
        self._loop.turns += 1
        if timeout is None:
            raise Stuck("everyone waits and nobody will ever wake them")
        if self._loop.turns > MAX_TURNS:
            raise Stuck(f"{MAX_TURNS} turns of the loop and no end")
        self._loop.now += timeout
        return []


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one run; `now` is its clock in seconds."""

    _ready: deque[asyncio.Handle]

    def __init__(self, random: Random, *, shuffled: bool = True) -> None:
        self.now = 0.0
        self.turns = 0
        self.errors: list[str] = []
        super().__init__()
        self._random = random
        self._shuffled = shuffled
        self._selector = _Leap(self)
        self.set_task_factory(_factory)
        self.set_exception_handler(_note_error)

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self.now

    def _process_events(self, _events: list[Any]) -> None:
        if self._shuffled and len(self._ready) > 1:
            handles = list(self._ready)
            self._random.shuffle(handles)
            self._ready.clear()
            self._ready.extend(handles)

    def _write_to_self(self) -> None:
        """Nobody is to be woken: there are no other threads."""

    def run_in_executor(  # type: ignore[override]
        self, _executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Runs work for threads at once, in the only thread there is."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the caller gets it, whatever it is
            future.set_exception(error)
        return future


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    context = options.get("context")
    holder = owner.get() if context is None else context.get(owner)
    if holder is not None:
        holder.adopt(task)
    return task


def _note_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keeps errors of callbacks. That nobody asked how a task ended says nothing: its process may be dead."""
    message = context["message"]
    if "never retrieved" not in message and "destroyed" not in message and isinstance(loop, SimLoop):
        loop.errors.append(f"{message}: {context.get('exception')!r}")
