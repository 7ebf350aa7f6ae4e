"""Long blocking work that a cancelled caller can stop, and that has stopped before the caller goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Tell = Callable[[str, int], None]


class Stopped(Exception):
    """Nobody waits for this work any more."""


async def in_thread(work: Callable[[Tell], T], tell: Tell) -> T:
    """Runs `work` in a thread; it has to call what it is given now and then, which tells on, and stops it."""
    stop = threading.Event()

    def told(what: str, done: int) -> None:
        if stop.is_set():
            raise Stopped
        tell(what, done)

    task = asyncio.ensure_future(asyncio.to_thread(work, told))
    cancelled = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            stop.set()
            cancelled = error
        except BaseException:  # noqa: BLE001 - raised below, from the task itself
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()
