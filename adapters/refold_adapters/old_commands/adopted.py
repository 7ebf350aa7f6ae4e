"""The same commands on folders that were adopted: the log knows what the table and the folders are to be.

Export takes in what the old program wrote since, and brings the folders up to it. Verify is that of the archive, and
the table beside the records. Restore makes the table what the records are, with the archive's writes that the program
made and nobody took in yet left as they are; a database that is lost or damaged is made anew with its bookkeeping, so
that capture goes on. That is for a table that the archive mirrors; one elsewhere is restored and compared as a copy.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

import refold
from refold.errors import (
    CollectionUnknown,
    FormatUnknown,
    Locked,
    LogCorrupt,
    ProjectionFailed,
    RefoldError,
    StorageFailed,
)
from refold.opening import random_id
from refold_adapters.adopting.candidates import Finding
from refold_adapters.adopting.layout import Described
from refold_adapters.archive import FileStore
from refold_adapters.capture import bookkeeping
from refold_adapters.capture.capture import capture_once
from refold_adapters.lock import PAUSE_SECONDS
from refold_adapters.settings import MirrorSetting, load_mirrors, load_settings
from refold_adapters.sqlite_columns import quote

from .comparing import PROGRAM, compare, unreadable
from .outcome import Outcome
from .restoring import Keeper, put_back
from .settings import OldSettings
from .staging import ROWS, Staging

_NEVER = 1e6


@dataclass(eq=False)
class NotMirrored(RefoldError):
    """The folders are an archive's, and the table is not one that the archive keeps."""

    code: ClassVar[str] = "not-mirrored"
    message: ClassVar[str] = "{archive} does not mirror table {table} of {database}, so its writes are not taken in"
    hint: ClassVar[str] = "refold -C {archive} capture install {database} {table}"
    archive: str
    database: str
    table: str


def run_adopted(
    settings: OldSettings,
    described: Described,
    outcome: Outcome,
    clock: Callable[[], int],
    said: Callable[[str], None],
) -> None:
    """Runs the command that `outcome` names on an archive. Raises what the archive raises, and `NotMirrored`."""
    outcome.kind = "refold"
    work = _Adopted(settings, described, outcome, clock, said)
    asyncio.run({"export": work.export, "verify": work.verify, "restore": work.restore}[outcome.command]())


class _Adopted:
    def __init__(
        self,
        settings: OldSettings,
        described: Described,
        outcome: Outcome,
        clock: Callable[[], int],
        said: Callable[[str], None],
    ) -> None:
        assert described.layout.table is not None
        self._settings = settings
        self._described = described
        self._outcome = outcome
        self._clock = clock
        self._said = said
        self._root = settings.archive
        self._table = described.layout.table.name
        self._mirror = self._find_mirror()
        self._collection = self._mirror.collection if self._mirror is not None else described.layout.collection

    def _find_mirror(self) -> MirrorSetting | None:
        db = self._settings.db
        if db.parent != self._root.resolve():
            return None
        mirrors = load_mirrors(self._root)
        return next((one for one in mirrors if (one.database, one.table) == (db.name, self._table)), None)

    async def export(self) -> None:
        """See `run_adopted`."""
        if self._mirror is None:
            raise NotMirrored(str(self._root), self._settings.db.name, self._table)
        outcome = self._outcome

        async def work() -> None:
            async with refold.open(self._root, create=False, quiet=_NEVER, clock=self._clock) as engine:
                followers = [one for one in engine.projections if one.name == "folders"]
                before = [(await engine.project(one.checkpoint)).position for one in followers]
                reports = await capture_once(engine)
                await engine.settled()
                after = [(await engine.project(one.checkpoint)).position for one in followers]
            outcome.captured = sum(report.written for report in reports)
            outcome.exported = sum(after) - sum(before)

        await self._when_free(work)
        await asyncio.to_thread(lambda: outcome.found(self._refused()))

    def _refused(self) -> list[Finding]:
        """The writes of the program that the archive's rules do not allow."""
        connection = bookkeeping.connect(self._settings.db)
        try:
            mirror = bookkeeping.in_thread(
                self._settings.db, "reading the outbox", lambda: bookkeeping.load_mirror(connection, self._table)
            )
            rows = bookkeeping.refused(connection, mirror) if mirror is not None else []
        finally:
            connection.close()
        name = self._settings.db.name
        return [Finding("table-row", why, file=name, key=str(key), left_out=True) for _, key, why in rows]

    async def verify(self) -> None:
        """See `run_adopted`."""
        outcome = self._outcome
        try:
            async with refold.open(self._root, create=False, readonly=True) as engine:
                report = await engine.verify()
                self._take_schema(engine)
            told = [
                Finding(one.kind, one.detail, folder=one.folder, file=one.file, row=one.row, key=one.key)
                for one in report.findings
            ]
        except (LogCorrupt, FormatUnknown, ProjectionFailed, StorageFailed) as error:
            detail = f"{error}; `refold -C {self._root} verify` says more"
            await asyncio.to_thread(outcome.found, [Finding("archive-damaged", detail)])
            return
        await asyncio.to_thread(outcome.found, told)
        await asyncio.to_thread(self._compare)

    def _take_schema(self, engine: Any) -> None:
        schema = engine.schemas.get(self._collection)
        if schema is None:
            raise CollectionUnknown(self._collection, sorted(engine.schemas))
        self._described = msgspec.structs.replace(self._described, schema=schema, collection=schema.collection)

    def _staging(self) -> Staging:
        staging = Staging(self._described.schema, self._settings.db, self._settings.wait)
        try:
            staging.add_from(self._root / load_settings(self._root).tables, self._collection)
        except BaseException:
            staging.close()
            raise
        return staging

    def _compare(self) -> None:
        outcome, db = self._outcome, self._settings.db
        with closing(self._staging()) as staging:
            rows = staging.count()
            if (lacking := unreadable(staging, self._table)) is not None:
                outcome.found([lacking])
                return
            with staging.failures("reading the outbox"):
                waiting = _waiting(staging, self._table)
            outcome.found(_waits(db.name, key, why) for key, why in waiting.items())
            differing = 0
            for finding in compare(self._described, staging, self._table):
                if finding.key in waiting:
                    continue
                if finding.kind == "folder-only":
                    finding = msgspec.structs.replace(finding, kind="record-only")
                elif finding.kind == "table-only":
                    detail = "there is no such record"
                    finding = msgspec.structs.replace(finding, detail=detail)
                differing += finding.kind in {"table-newer", "table-differs", "record-only"}
                outcome.found([finding])
        outcome.verified = rows - differing

    async def restore(self) -> None:
        """See `run_adopted`."""
        async with refold.open(self._root, create=False, readonly=True) as engine:
            self._take_schema(engine)
        if self._outcome.dry_run:
            await asyncio.to_thread(self._put_back, 0)
            return
        names = await asyncio.to_thread(load_settings, self._root)

        async def work() -> None:
            store = FileStore(self._root, names, readonly=False)
            try:
                await store.open(None, random_id, self._clock)
                position = await store.write(lambda log, tables: tables.checkpoint().position)
                await asyncio.to_thread(self._put_back, position)
            finally:
                await store.close()

        await self._when_free(work)

    def _put_back(self, position: int) -> None:
        keeper = _MirrorKeeper(self._mirror, position) if self._mirror is not None else None
        with closing(self._staging()) as staging:
            put_back(self._root, self._described, staging, self._outcome, dry_run=self._outcome.dry_run, keeper=keeper)

    async def _when_free(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does what needs the lock, for which it waits. Raises `Locked`."""
        deadline = time.monotonic() + self._settings.wait
        told = False
        while True:
            try:
                return await work()
            except Locked as refusal:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    self._said(f"waiting: {refusal}")
                told = True
            await asyncio.sleep(PAUSE_SECONDS)


def _waiting(staging: Staging, table: str) -> dict[str, str | None]:
    """The keys of the program's writes that the log does not have, and of those that it refused, why."""
    outbox = bookkeeping.outbox_name(table)
    if not staging.columns(PROGRAM, outbox):
        return {}
    rows = staging.connection.execute(f"SELECT key, why FROM {PROGRAM}.{quote(outbox)} ORDER BY id")
    return {str(key): why for key, why in rows}


def _waits(database: str, key: str, why: str | None) -> Finding:
    if why is not None:
        return Finding("table-row", why, file=database, key=key)
    return Finding("waiting", "the program wrote it, and export takes it in", file=database, key=key)


class _MirrorKeeper(Keeper):
    """Keeps the bookkeeping of a mirrored table in step with what a restore does to the table."""

    def __init__(self, setting: MirrorSetting, position: int) -> None:
        self.create = setting.create
        self._setting = setting
        self._position = position

    def begin(self, staging: Staging) -> None:
        """Silences the triggers, and has the program's own writes that wait stay as they are."""
        if not staging.columns(PROGRAM, "refold_mirrors"):
            return
        staging.connection.execute(
            f"UPDATE {PROGRAM}.refold_mirrors SET applying = 1 WHERE name = ?", (self._setting.table,)
        )
        table, key = f"{PROGRAM}.{quote(self._setting.table)}", quote(staging.key)
        listed = ", ".join(map(quote, staging.names))
        for value in _waiting(staging, self._setting.table):
            staging.connection.execute(f"DELETE FROM {ROWS} WHERE {key} = ?", (value,))
            staging.connection.execute(
                f"INSERT INTO {ROWS} ({listed}) SELECT {listed} FROM {table} WHERE {key} = ?", (value,)
            )

    def end(self, staging: Staging) -> None:
        """Lets the triggers speak again, and notes which records the rows are of."""
        if staging.columns(PROGRAM, "refold_mirrors"):
            staging.connection.execute(
                f"UPDATE {PROGRAM}.refold_mirrors SET applying = 0, seen = max(seen, ?) WHERE name = ?",
                (self._position, self._setting.table),
            )

    def made(self, path: Path) -> None:
        """Installs the bookkeeping in a new database."""
        table, collection = self._setting.table, self._setting.collection
        with (
            closing(sqlite3.connect(path, isolation_level=None)) as connection,
            bookkeeping.immediate(connection),
        ):
            bookkeeping.install(connection, bookkeeping.described(connection, table, collection, random_id()))
            connection.execute("UPDATE refold_mirrors SET seen = ? WHERE name = ?", (self._position, table))
