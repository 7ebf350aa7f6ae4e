"""Opening an archive: the store is found by URL scheme among the installed ones, and given a clock and an id.

This is the one place that falls back on the machine's clock and randomness; both are arguments.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from os import PathLike, fspath
from typing import Any

from .clock import HybridClock, format_time, from_millis, to_millis
from .engine import Engine
from .errors import ClockBehind
from .installed import installed
from .ports import Clock, OpenStore
from .progress import uninterrupted
from .projector import LAG_BOUND, QUIET_SECONDS

GROUP = "refold.stores"


def system_clock() -> int:
    """The machine's clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def random_id() -> str:
    """A new replica id: 64 random bits."""
    return secrets.token_hex(8)


@asynccontextmanager
async def open(  # noqa: A001 - `refold.open` reads as what it is
    url: str | PathLike[str],
    *,
    replica: str | None = None,
    actor: str = "",
    readonly: bool = False,
    time: int | None = None,
    clock: Clock = system_clock,
    new_id: Callable[[], str] = random_id,
    lag_bound: int = LAG_BOUND,
    quiet: float = QUIET_SECONDS,
    **options: Any,
) -> AsyncIterator[Engine]:
    """Opens an archive, creating it if need be: `async with refold.open("archive", replica="office") as engine`.

    `replica` names the writer of a new archive (random otherwise) and must match an existing one's. `actor` is the
    default for all writes. `readonly` needs no lock and works beside a writer. `time` (Unix milliseconds) dates all
    writes, for back-dated history. `lag_bound` and `quiet` (seconds) say how far and how long projections may stay
    behind the writers. Further options go to the store; the one for directories takes `create`, `folders` and names.

    Leaving the block makes pending writes durable, brings the projections up to date and releases the lock.
    Raises `Locked`, `ArchiveMissing`, `ReplicaMismatch`, `FormatUnknown`, `ClockBehind`, `StorageFailed`.
    """
    url = fspath(url)
    open_store: OpenStore = await asyncio.to_thread(installed, GROUP, url)
    hybrid = HybridClock(clock if time is None else lambda: time)
    stack = AsyncExitStack()
    try:
        store = await stack.enter_async_context(
            open_store(url, replica=replica, new_id=new_id, clock=clock, readonly=readonly, **options)
        )
        engine = Engine(store, actor=actor, readonly=readonly)
        await engine.start(hybrid, lag_bound=lag_bound, quiet=quiet)
        stack.push_async_callback(engine.stop)
        if time is not None and time < to_millis(hybrid.last):
            raise ClockBehind(format_time(from_millis(time)), format_time(hybrid.last))
        yield engine
    finally:
        await uninterrupted(stack.aclose())
