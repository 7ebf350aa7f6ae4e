"""Bugs planted in the process that is killed, to see that the campaign would find them.

Each is a connection class for the databases and a change to the product, both made in that process only.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from refold.decide import Operation, Request
from refold.engine import Engine
from refold.events import Checkpoint, Event
from refold.ports import Changes
from refold.schema import Schema
from refold_adapters.folders import FolderReplicas
from refold_adapters.sqlite_tables import SqliteTables

from .points import WatchedConnection


class TearingConnection(WatchedConnection):
    """Commits the log after every statement that adds to it, so a batch can be there in part."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """See `sqlite3.Connection.execute`."""
        cursor = super().execute(sql, *parameters)
        if self.database == "changelog" and sql.startswith("INSERT INTO events"):
            super().execute("COMMIT")
            super().execute("BEGIN IMMEDIATE")
        return cursor


def acknowledge_first() -> None:
    """Callers are answered before anything is written."""
    submit = Engine.submit
    tasks = set()

    async def planted(self: Engine, requests: Sequence[Request]) -> list[Any]:
        if requests[0].operation is Operation.DEFINE:
            return await submit(self, requests)
        tasks.add(asyncio.create_task(submit(self, requests)))
        return [SimpleNamespace(position=-1) for _ in requests]

    setattr(Engine, "submit", planted)  # noqa: B010


def tables_checkpoint_first() -> None:
    """The tables say how far they have come before they have."""
    save = SqliteTables.save

    def planted(self: SqliteTables, changes: Changes, schemas: dict[str, Schema]) -> None:
        self._save_checkpoint(changes.checkpoint)
        save(self, changes, schemas)

    setattr(SqliteTables, "save", planted)  # noqa: B010


def folders_checkpoint_first() -> None:
    """The folders say how far they have come before they have."""
    apply = FolderReplicas.apply

    def planted(self: FolderReplicas, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        with self._index.transaction():
            self._index.save_checkpoint(checkpoint)
        apply(self, events, checkpoint)

    setattr(FolderReplicas, "apply", planted)  # noqa: B010


PLANTS: dict[str, tuple[type[WatchedConnection], Callable[[], None] | None]] = {
    "acknowledged before commit": (WatchedConnection, acknowledge_first),
    "batches torn": (TearingConnection, None),
    "tables checkpoint before data": (WatchedConnection, tables_checkpoint_first),
    "folders checkpoint before data": (WatchedConnection, folders_checkpoint_first),
}
