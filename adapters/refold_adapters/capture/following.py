"""Following captured tables for as long as one likes, with the archive open only while there is something to take in.

The other program's databases are watched through connections that look and nothing else, so that other commands can
write the archive in between. While writes keep coming the archive stays open; when they pause, it is let go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import refold
from refold.errors import InputRefused, Locked
from refold_adapters.settings import FILE, load_mirrors
from refold_adapters.sqlite_columns import quote

from . import bookkeeping
from .bookkeeping import in_thread
from .capture import CaptureReport, captures

POLL_SECONDS = 0.05
"""How often the databases are looked at."""

IDLE_SECONDS = 1.0
"""How long writes have to pause before the archive is let go."""

_logger = logging.getLogger("refold.capture")


class Watch:
    """Tells when another program has committed something, without touching the archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = bookkeeping.connect(path)
        self._version: Any = None

    def has_news(self, table: str) -> bool:
        """Whether rows wait in the outbox, asked of the database only when it has changed since the last time."""
        return in_thread(self._path, "watching the outbox", partial(self._look, table))

    def _look(self, table: str) -> bool:
        version = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        mirror = bookkeeping.load_mirror(self._connection, table)
        if mirror is not None and mirror.polls:
            self._version = version
            return True
        outbox = quote(bookkeeping.outbox_name(table))
        waits = self._connection.execute(f"SELECT EXISTS (SELECT 1 FROM {outbox} WHERE why IS NULL)").fetchone()[0]
        if not waits:
            self._version = version
        return bool(waits)

    def close(self) -> None:
        """Lets go of the database."""
        self._connection.close()


async def follow(
    root: Path,
    *,
    tell: Callable[[Sequence[CaptureReport]], None] = lambda reports: None,
    poll: float = POLL_SECONDS,
    idle: float = IDLE_SECONDS,
    **options: Any,
) -> None:
    """Captures until it is cancelled. `tell` is told what was taken in each time that the archive is let go.

    While another process writes the archive, the outbox keeps what comes. Raises `InputRefused` when nothing is
    captured here, `CaptureStopped`, `StorageFailed`.
    """
    mirrors = await asyncio.to_thread(load_mirrors, root)
    if not mirrors:
        raise InputRefused(str(root / FILE), "it names no [[mirrors]]: refold capture install adds one")
    with ExitStack() as stack:
        watches = [
            (setting.table, stack.enter_context(closing(await asyncio.to_thread(Watch, root / setting.database))))
            for setting in mirrors
        ]
        while True:
            news = [await asyncio.to_thread(watch.has_news, table) for table, watch in watches]
            if any(news):
                try:
                    tell(await _take(root, poll, idle, options))
                except Locked as error:
                    await asyncio.to_thread(_logger.info, "%s; what comes waits in the outbox", error)
            await asyncio.sleep(poll)


async def _take(root: Path, poll: float, idle: float, options: dict[str, Any]) -> list[CaptureReport]:
    """Opens the archive and takes in what comes, until nothing has come for a while."""
    clock = asyncio.get_running_loop().time
    async with refold.open(root, create=False) as engine:
        found = captures(engine, **options)
        last = clock()
        while clock() - last < idle:
            if sum([await capture.drain() for capture in found]):
                last = clock()
            await asyncio.sleep(poll)
    return [capture.report for capture in found]
