"""Named points of a process that can be killed there, found without the product knowing.

The process wraps what it is about to use: SQLite's connections (each statement that writes, by database), the folders'
disk, the calls it makes to the system, the lock, the renames of the swap. Each wrapped call is two points, before and
after. A `Watch` counts how often each is passed, and sends SIGKILL at the chosen passage of the chosen one.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refold_adapters import lock
from refold_adapters.folders import disk

_VERB = re.compile(r"\s*(BEGIN|COMMIT|ROLLBACK|INSERT|UPDATE|DELETE|PRAGMA wal_checkpoint)")
_DATABASE = re.compile(r"file:.*/([^/?]+)\.db\?mode=rwc")

NAMED = [
    *(f"{name}: {verb}" for name in ("changelog", "tables") for verb in ("schema", "BEGIN", "INSERT", "COMMIT")),
    *(f"{name}: {verb}" for name in ("changelog", "tables", "folders") for verb in ("checkpoint", "close")),
    *(f"folders: {verb}" for verb in ("schema", "BEGIN", "INSERT", "DELETE", "COMMIT")),
    *(f"tables.rebuild: {verb}" for verb in ("schema", "COMMIT", "close")),
    *(f"tables.verify: {verb}" for verb in ("schema", "COMMIT", "close")),
    *(f"disk: {method}" for method in ("write", "append", "sync", "publish", "remove")),
    *(f"disk: os.{call}" for call in ("mkdir", "write", "rename", "unlink", "rmdir", "ftruncate")),
    *("swap: unlink", "swap: rename", "lock: acquire", "lock: release"),
]
"""What every campaign has to pass and to kill at, each before and after the call."""

POINTS = [f"{when} {name}" for name in NAMED for when in ("before", "after")]


class Watch:
    """Counts the passages of every point, and kills this process at passage `nth` of `point`."""

    def __init__(self, point: str = "", nth: int = 0) -> None:
        self.point = point
        self.nth = nth
        self.counts: Counter[str] = Counter()

    def passing(self, point: str) -> None:
        self.counts[point] += 1
        if point == self.point and self.counts[point] == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            self.passing(f"before {name}")
            result = function(*arguments, **keywords)
            self.passing(f"after {name}")
            return result

        return wrapped


class WatchedConnection(sqlite3.Connection):
    """A connection whose writing statements are points."""

    watch: Watch
    database: str

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """See `sqlite3.Connection.execute`."""
        return self._watched(sql, super().execute, sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """See `sqlite3.Connection.executemany`."""
        return self._watched(sql, super().executemany, sql, *parameters)

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        """See `sqlite3.Connection.executescript`."""
        cursor: sqlite3.Cursor = self.watch.wrap(f"{self.database}: schema", super().executescript)(script)
        return cursor

    def close(self) -> None:
        """See `sqlite3.Connection.close`."""
        self.watch.wrap(f"{self.database}: close", super().close)()

    def _watched(self, sql: str, call: Callable[..., sqlite3.Cursor], *arguments: Any) -> sqlite3.Cursor:
        verb = _VERB.match(sql)
        if verb is None:
            return call(*arguments)
        name = verb[1].replace("PRAGMA wal_checkpoint", "checkpoint")
        cursor: sqlite3.Cursor = self.watch.wrap(f"{self.database}: {name}", call)(*arguments)
        return cursor


class _Os:
    """The module `os` with some of its functions wrapped."""

    def __init__(self, watch: Watch) -> None:
        self._wrapped = {
            name: watch.wrap(f"disk: os.{name}", getattr(os, name))
            for name in ("mkdir", "write", "rename", "unlink", "rmdir", "ftruncate")
        }

    def __getattr__(self, name: str) -> Any:
        return self._wrapped.get(name) or getattr(os, name)


def watch_everything(watch: Watch, connection: type[WatchedConnection] = WatchedConnection) -> None:
    """Makes the product of this process pass `watch`. There is no way back: it is for processes that end."""
    plain = sqlite3.connect

    def connect(path: str, **options: Any) -> sqlite3.Connection:
        found = _DATABASE.fullmatch(str(path))
        if found is None:
            unwatched: sqlite3.Connection = plain(path, **options)
            return unwatched
        watched = type("Watched", (connection,), {"watch": watch, "database": found[1]})
        opened: sqlite3.Connection = plain(path, factory=watched, **options)
        return opened

    def patch(owner: Any, name: str, point: str) -> None:
        setattr(owner, name, watch.wrap(point, getattr(owner, name)))

    setattr(sqlite3, "connect", connect)  # noqa: B010 - the plain assignment is an error to mypy
    for name in ("write", "stream", "append", "sync", "publish", "remove"):
        patch(disk.PosixDisk, name, f"disk: {name}")
    setattr(disk, "os", _Os(watch))  # noqa: B010
    patch(lock.Lock, "acquire", "lock: acquire")
    patch(lock.Lock, "release", "lock: release")
    patch(Path, "replace", "swap: rename")
    patch(Path, "unlink", "swap: unlink")
