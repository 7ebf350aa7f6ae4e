"""An archive in a directory: `changelog.db`, `tables.db`, `folders.db`, `refold.toml` and the folders.

Three threads: one writes log and tables, one reads both through connections of its own, one keeps the folders. All
but the log can be deleted while nobody has the archive open; opening it brings them back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import refold
from refold.errors import (
    FormatOld,
    FormatUnknown,
    ReplicaMismatch,
    SettingsInvalid,
    StorageFailed,
)
from refold.ports import Changelog, Clock, Projection, Tables
from refold.progress import uninterrupted
from refold.replay import REPLAY_BATCH, catch_up, is_ahead
from refold.sync_side import EngineSide
from refold.verdict import Finding

from .capture.mirror_table import MirrorTable
from .durable import make_directory, sync_directory
from .folders import INDEX, FolderReplicas, ReadTables
from .lock import Lock
from .log_check import check_database, torn
from .settings import MirrorSetting, Settings, load_mirrors, load_settings, refuse_remains, require_log
from .sqlite_connection import SqliteThread, failures
from .sqlite_log import SqliteLog
from .sqlite_tables import SqliteTables
from .tables_check import TablesCheck

T = TypeVar("T")

_logger = logging.getLogger("refold.archive")
_REPLICA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIDE_FILES = ("", "-wal", "-shm", "-journal")


def _step(position: int, upto: int | None) -> int:
    return REPLAY_BATCH if upto is None else min(REPLAY_BATCH, upto - position)


async def _end(thread: SqliteThread, parts: Sequence[SqliteLog | SqliteTables]) -> None:
    try:
        for part in parts:
            await thread.run(part.close)
    finally:
        await thread.stop()


def remove_database(path: Path) -> None:
    """Deletes a SQLite database with what SQLite keeps beside it. Raises `StorageFailed`."""
    with failures(path, "deleting the database"):
        for suffix in _SIDE_FILES:
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def restored_beside(log: Path) -> Path:
    """Where a log grows that is to replace this one in place."""
    return log.with_name(f"{log.stem}.restore.db")


def is_damage(error: StorageFailed) -> bool:
    """Whether a file is no sound database, which is no reason to give up where it can be made anew."""
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):  # a page where a text was holds none
        return True
    return isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError)


class FileStore:
    """An open archive directory. Implements `Store`; made by `open_store`."""

    def __init__(
        self, root: Path, settings: Settings, *, readonly: bool, mirrors: Sequence[MirrorSetting] = ()
    ) -> None:
        self.root = root
        self.path = str(root)
        self.settings = settings
        self.readonly = readonly
        self.projections: Sequence[Projection] = ()
        self.mirrors = mirrors
        self._identity = ""
        self._log_path = root / settings.changelog
        self._wal = root / f"{settings.changelog}-wal"
        self._tables_path = root / settings.tables
        self._rebuilt_path = self._tables_path.with_suffix(".rebuild.db")
        self._verified_path = self._tables_path.with_suffix(".verify.db")
        self._folding = asyncio.Lock()
        self._lock = Lock(root / f"{settings.changelog}.lock")
        self._writing: SqliteThread | None = None
        self._reading: SqliteThread | None = None
        self._projecting: SqliteThread | None = None
        self._log: SqliteLog | None = None
        self._tables: SqliteTables | None = None
        self._readers: tuple[SqliteLog, SqliteTables] | None = None

    async def open(self, replica: str | None, new_id: Callable[[], str], clock: Clock) -> None:
        """Takes the lock, opens the log, and brings the tables up to it."""
        self._identity = new_id()
        if not self.readonly:
            self._writing = await SqliteThread.start()
            await self._writing.run(lambda: self._open_log(replica, new_id, clock))
            await self._open_tables()
        self._reading = await SqliteThread.start()
        if self.settings.folders or self.mirrors:
            self._projecting = await SqliteThread.start()
            self.projections = await self._projecting.run(self._open_projections)

    def _open_log(self, replica: str | None, new_id: Callable[[], str], clock: Clock) -> None:
        if replica is not None and not _REPLICA.fullmatch(replica):
            raise SettingsInvalid("replica", f"{replica!r} is not 1 to 64 letters, digits, dots, _ or -")
        self._lock.acquire(clock())
        for left in (self._rebuilt_path, self._verified_path, restored_beside(self._log_path)):
            remove_database(left)
        exists = self._log_path.exists()
        if unfinished := torn(self._wal):
            _logger.warning("%s: %d bytes of a commit that never ended are passed over", self._wal, unfinished)
        self._log = SqliteLog(self._log_path, owner="" if exists else replica or new_id())
        found = self._log.replica()
        if not found and not self._log.end():  # whoever created it died before it had an owner
            self._log.close()
            self._log = SqliteLog(self._log_path, owner=replica or new_id())
            found = self._log.replica()
        if not found:
            raise FormatUnknown(str(self._log_path), "a log without an owner", "logs with an owner")
        if replica is not None and found != replica:
            raise ReplicaMismatch(self.path, found, replica)

    async def _open_tables(self) -> None:
        assert self._writing is not None
        if not await self._writing.run(self._tables_usable):
            await self.rebuild_tables(lambda position: None)
            return
        while await self._writing.run(lambda: catch_up(*self._pair())):
            pass

    def _tables_usable(self) -> bool:
        """Opens the tables; False when they are not of this log and have to be folded anew."""
        log = self._own_log()
        try:
            self._tables = SqliteTables(self._tables_path, log.at, log.bodies_at)
            if not is_ahead(log, self._tables.checkpoint()):
                return True
            _logger.warning("%s has seen events that the log does not hold; it is made anew", self._tables_path)
        except FormatOld as error:
            _logger.info("%s; it is made anew", error)
        except StorageFailed as error:
            if not is_damage(error):
                raise
            _logger.warning("%s is damaged and is made anew: %s", self._tables_path, error)
        return False

    def _own_log(self) -> SqliteLog:
        assert self._log is not None
        return self._log

    def _pair(self) -> tuple[SqliteLog, SqliteTables]:
        assert self._log is not None
        assert self._tables is not None
        return self._log, self._tables

    def _open_projections(self) -> list[Projection]:
        opened: list[Projection] = []
        try:
            opened += self._open_folders() if self.settings.folders else []
            for setting in self.mirrors if not self.readonly else ():
                log = SqliteLog(self._log_path, readonly=True)
                opened.append(MirrorTable(self.root, setting, log, ReadTables(self._tables_path, log), self._identity))
        except BaseException:
            for projection in opened:
                projection.close()
            raise
        return opened

    def _open_folders(self) -> list[FolderReplicas]:
        if self.readonly and not (self.root / INDEX).is_file():
            return []
        log = SqliteLog(self._log_path, readonly=True)
        tables = ReadTables(self._tables_path, log)
        try:
            return [FolderReplicas(self.root, log, tables, readonly=self.readonly)]
        except FormatOld as error:
            if self.readonly:
                return []
            _logger.info("%s; it is made anew", error)
        except StorageFailed as error:
            if self.readonly or not is_damage(error):
                raise
        remove_database(self.root / INDEX)
        return [FolderReplicas(self.root, log, tables)]

    def _reader(self) -> tuple[SqliteLog, SqliteTables]:
        if self._readers is None:
            log = SqliteLog(self._log_path, readonly=True)
            self._readers = log, SqliteTables(self._tables_path, log.at, log.bodies_at, readonly=True)
        self._readers[1].refresh()
        return self._readers

    def _close_readers(self) -> None:
        readers, self._readers = self._readers, None
        for reader in readers or ():
            reader.close()

    async def write(self, work: Callable[[Changelog, Tables], T]) -> T:
        """See `Store.write`."""
        assert self._writing is not None
        return await self._writing.run(lambda: work(self._log, self._tables))  # type: ignore[arg-type]

    async def read(self, work: Callable[[Changelog, Tables], T]) -> T:
        """See `Store.read`."""
        assert self._reading is not None
        return await self._reading.run(lambda: work(*self._reader()))

    async def project(self, work: Callable[[], T]) -> T:
        """See `Store.project`."""
        assert self._projecting is not None
        return await self._projecting.run(work)

    async def rebuild_tables(self, progress: Callable[[int], None]) -> None:
        """See `Store.rebuild_tables`.

        The new tables grow in a file beside the old ones, in a thread of their own, and replace them by a rename once
        they have caught up, while no commit is under way.
        """
        assert self._writing is not None
        async with self._folding:
            try:
                await self._fold_into(self._rebuilt_path, progress)
            except BaseException:
                await uninterrupted(asyncio.to_thread(remove_database, self._rebuilt_path))
                raise
            await self._writing.run(lambda: self._swap_tables(self._rebuilt_path))

    async def _fold_into(self, path: Path, progress: Callable[[int], None], upto: int | None = None) -> None:
        """Folds the log, or its events up to a position, into new tables at `path`."""
        thread = await SqliteThread.start()
        parts: list[SqliteLog | SqliteTables] = []
        try:
            log, tables = await thread.run(lambda: self._beside(path, parts))
            position = 0
            while await thread.run(partial(catch_up, log, tables, _step(position, upto))):
                position = await thread.run(lambda: tables.checkpoint().position)
                progress(position)
        finally:
            await uninterrupted(_end(thread, parts))

    def _beside(self, path: Path, parts: list[SqliteLog | SqliteTables]) -> tuple[SqliteLog, SqliteTables]:
        """The log and new tables at `path`, noted in `parts` for whoever closes them."""
        remove_database(path)
        log = SqliteLog(self._log_path, readonly=True)
        parts.append(log)
        tables = SqliteTables(path, log.at, log.bodies_at)
        parts.insert(0, tables)
        return log, tables

    def _swap_tables(self, beside: Path) -> None:
        log = self._own_log()
        tables = SqliteTables(beside, log.at, log.bodies_at)
        while catch_up(log, tables):
            pass
        tables.close()
        if self._tables is not None:
            self._tables.close()
        with failures(self._tables_path, "exchanging the tables"):
            for suffix in _SIDE_FILES[1:]:
                self._tables_path.with_name(self._tables_path.name + suffix).unlink(missing_ok=True)
            sync_directory(self.root)  # or the old tables' WAL could come back beside the new ones
            beside.replace(self._tables_path)
        self._tables = SqliteTables(self._tables_path, log.at, log.bodies_at)

    async def verify_log(self) -> list[Finding]:
        """See `Store.verify_log`. A WAL that somebody writes is never whole, so it is looked at where nobody does."""
        return await asyncio.to_thread(self._verify_log)

    def _verify_log(self) -> list[Finding]:
        found = check_database(self._log_path)
        if self.readonly and not self._lock.may_be_held() and (left := torn(self._wal)):
            detail = f"{left} bytes of a commit that never ended, and that nobody was told of"
            found.append(Finding("log-torn", detail, file=self._wal.name))
        return found

    async def verify_tables(self, progress: Callable[[int], None]) -> list[Finding]:
        """See `Store.verify_tables`: the log is folded into tables beside, and the two are compared.

        Readers fold in the system's place for temporary files: what is beside the tables belongs to the writer.
        """
        async with self._folding:
            try:
                check = await asyncio.to_thread(TablesCheck, self._tables_path)
            except StorageFailed as error:
                if not is_damage(error):
                    raise
                return [
                    Finding("table-altered", f"the database is damaged: {error.reason}", file=self._tables_path.name)
                ]
            place = await asyncio.to_thread(tempfile.mkdtemp, prefix="refold-") if self.readonly else None
            beside = self._verified_path if place is None else Path(place) / self._verified_path.name
            try:
                await self._fold_into(beside, progress, upto=check.position)
                return [*await asyncio.to_thread(check.compare, beside), *await self.read(partial(self._behind, check))]
            finally:
                await asyncio.to_thread(check.close)
                await asyncio.to_thread(remove_database, beside)
                if place is not None:
                    await asyncio.to_thread(os.rmdir, place)

    def _behind(self, check: TablesCheck, log: Changelog, _tables: Tables) -> list[Finding]:
        """Whether the tables lack what the log has, while there is nobody who is about to write it there.

        Whoever writes the archive keeps the two in step, and goes on writing while this is asked.
        """
        end = log.end()
        if check.position >= end or not self.readonly or self._lock.may_be_held():
            return []
        detail = f"they stand at position {check.position}, the log at {end}"
        return [Finding("tables-behind", detail, position=check.position, file=self._tables_path.name)]

    async def close(self) -> None:
        """See `Store.close`."""
        try:
            if self._projecting is not None:
                for projection in self.projections:
                    await self._projecting.run(projection.close)
                await self._projecting.stop()
            if self._reading is not None:
                await self._reading.run(self._close_readers)
                await self._reading.stop()
        finally:
            if self._writing is not None:
                try:
                    await self._writing.run(self._close_writers)
                finally:
                    await self._writing.stop()

    def _close_writers(self) -> None:
        try:
            for part in (self._tables, self._log):
                if part is not None:
                    part.close()
        finally:
            self._lock.release()


@asynccontextmanager
async def open_peer(url: str, **options: Any) -> AsyncIterator[EngineSide]:
    """Another archive on this machine as a peer; it is opened for writing for as long as the session lasts."""
    meant = {name: value for name, value in options.items() if name not in ("replica", "asker", "max_skew")}
    async with refold.open(url, create=False, **meant) as engine:
        yield engine.side()


def directory_of(url: str) -> Path:
    """The directory that a path or a `file:` URL names."""
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else Path(url)


def _prepare(root: Path, *, create: bool, folders: bool | None) -> Settings:
    settings = load_settings(root)
    if not (root / settings.changelog).is_file():
        if not create:
            require_log(root, settings)
        refuse_remains(root, settings)
        with failures(root, "creating the archive"):
            make_directory(root)
    if folders is not None:
        settings = Settings(settings.changelog, settings.tables, folders)
    return settings


@asynccontextmanager
async def open_store(
    url: str,
    *,
    replica: str | None,
    new_id: Callable[[], str],
    clock: Clock,
    readonly: bool,
    create: bool = True,
    folders: bool | None = None,
) -> AsyncIterator[FileStore]:
    """The store of `file:` URLs and plain paths. `folders` overrides the archive's setting."""
    root = directory_of(url)
    settings = await asyncio.to_thread(_prepare, root, create=create and not readonly, folders=folders)
    mirrors = await asyncio.to_thread(load_mirrors, root)
    store = FileStore(root, settings, readonly=readonly, mirrors=mirrors)
    try:
        await store.open(replica, new_id, clock)
        yield store
    finally:
        await store.close()
