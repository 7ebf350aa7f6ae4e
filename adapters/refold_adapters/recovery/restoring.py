"""Restore is replay: a log is brought to where it is wanted, and everything else is folded from it.

The log is copied from the source, or rebuilt from the folders, and the copy writes under a replica id of its own. In
place, nothing that could not be made again is deleted: a log that is replaced is kept beside the new one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import refold
from refold.errors import (
    EventForked,
    EventsMissing,
    FormatUnknown,
    InputRefused,
    LogCorrupt,
    ProjectionFailed,
    StorageFailed,
)
from refold.fold import format_digest
from refold.moment import Moment, cut, tags_in
from refold.opening import random_id, system_clock
from refold.ports import Changelog, Clock
from refold.verify import Finding
from refold_adapters.archive import remove_database, restored_beside
from refold_adapters.durable import sync_directory
from refold_adapters.folders import INDEX, rebuild_log
from refold_adapters.lock import Lock
from refold_adapters.settings import load_settings, require_log
from refold_adapters.sqlite_connection import close, connect
from refold_adapters.sqlite_log import SqliteLog

from .building import Making, bring_up, build, measure, with_failures
from .copying import Tell, append_all, events_of
from .receipt import Receipt
from .report import RestoreReport

_logger = logging.getLogger("refold.recovery")
_KEPT = ".before-restore"
_SIDES = ("", "-wal", "-shm", "-journal")


class Restoring:
    """One restore; the blocking parts of it, for a thread."""

    def __init__(self, source: Path, origin: str, at: Moment | None, replica: str, now: int, tell: Tell) -> None:
        self.source = source
        self.settings = load_settings(source)
        self.log = source / self.settings.changelog
        self.at = at
        self.replica = replica
        self.now = now
        self.tell = tell
        self.report = RestoreReport(path=str(source), origin=origin, at=None if at is None else str(at))

    def fill(self, log: Changelog) -> None:
        """Brings the events that are wanted into a new log."""
        if self.report.origin == "log":
            self._copy(self.log, log)
        elif self.at is None:
            self._from_folders(log)
        else:
            self._from_folders_at(log)

    def _copy(self, source: Path, target: Changelog) -> None:
        old = SqliteLog(source, readonly=True)
        try:
            upto = None
            if self.at is not None:
                upto = cut(self.at, old, lambda: tags_in(old), self.now)
                self.report.skipped = [*self.report.skipped, *upto.notes()]
            self.report.events = append_all(target, events_of(old, upto), self.tell)
        except (EventForked, EventsMissing) as error:
            raise LogCorrupt(target.end() + 1, f"what stands there or soon after does not follow: {error}") from error
        finally:
            old.close()

    def _from_folders(self, log: Changelog) -> None:
        rebuilt = rebuild_log(self.source, log)
        if not rebuilt.events:
            raise InputRefused(str(self.source), "no folder in it holds events that a log could be rebuilt from")
        self.report.events = rebuilt.events
        self.report.skipped = [
            f"{finding.kind} in {finding.folder}/{finding.file}: {finding.detail}" for finding in rebuilt.findings
        ]

    def _from_folders_at(self, log: Changelog) -> None:
        """The whole log first, in a temporary file: where a moment is can only be said of a log."""
        with tempfile.TemporaryDirectory(prefix="refold-") as place:
            path = Path(place) / "whole.db"
            whole = SqliteLog(path, owner=self.replica)
            try:
                self._from_folders(whole)
            finally:
                whole.close()
            self._copy(path, log)

    def replace_log(self) -> None:
        """Puts a log rebuilt from the folders in the old one's place, and the old one aside."""
        path = restored_beside(self.log)
        remove_database(path)
        try:
            new = SqliteLog(path, owner=self.replica)
            try:
                self.fill(new)
            finally:
                new.close()
            self._put_aside()
            sync_directory(self.source)  # or the old log's WAL could come back beside the new one
            path.replace(self.log)
            sync_directory(self.source)
        finally:
            remove_database(path)
        self.drop_derived()

    def _put_aside(self) -> None:
        """The old database under a new name; the name stays taken until the new one is renamed over it.

        What its WAL holds is brought into it before, so that who dies in between, or has to stop, leaves a whole log.
        Where SQLite cannot do that, the name is given up first: what is left then is no log, and not one that lacks
        its last events.
        """
        if not any(self.log.with_name(self.log.name + side).exists() for side in _SIDES):
            return
        number, kept = 1, self.log.with_name(self.log.name + _KEPT)
        while any(kept.with_name(kept.name + side).exists() for side in _SIDES):
            number += 1
            kept = self.log.with_name(f"{self.log.name}{_KEPT}-{number}")
        if self.log.exists():
            if self._settle():
                os.link(self.log, kept)
            else:
                self.log.rename(kept)
        for side in _SIDES[1:]:
            old = self.log.with_name(self.log.name + side)
            if old.exists():
                old.rename(kept.with_name(kept.name + side))
        self.report.kept = str(kept)

    def _settle(self) -> bool:
        """Whether the old log's WAL is in its database now."""
        try:
            close(connect(self.log), self.log)
        except StorageFailed as error:
            _logger.warning("%s is put aside with its WAL: %s", self.log, error)
            return False
        return True

    def drop_derived(self) -> None:
        """Deletes what is folded from the log again."""
        remove_database(self.source / self.settings.tables)
        remove_database(self.source / INDEX)


def _guarded(restore: Restoring, work: Callable[[], None], now: int) -> None:
    """Does blocking work while no other process can write the archive."""
    lock = Lock(restore.log.with_name(restore.log.name + ".lock"))
    lock.acquire(now)
    try:
        with_failures(str(restore.source), work)
    finally:
        lock.release()


async def _in_place(restore: Restoring, actor: str, clock: Clock) -> None:
    root, report, tell = restore.source, restore.report, restore.tell
    if report.origin == "folders":
        await asyncio.to_thread(_guarded, restore, restore.replace_log, clock())
        await bring_up(root, report, tell, actor=actor, clock=clock)
        return
    await asyncio.to_thread(require_log, root, restore.settings)
    try:
        await bring_up(root, report, tell, anew=True, record=False)
    except (StorageFailed, FormatUnknown, ProjectionFailed):
        await asyncio.to_thread(_guarded, restore, restore.drop_derived, clock())
        await bring_up(root, report, tell, record=False)


async def restore(
    source: Path,
    target: Path | None,
    *,
    origin: str = "log",
    at: Moment | None = None,
    replica: str | None = None,
    actor: str = "",
    against: Receipt | None = None,
    progress: Tell = lambda what, done: None,
    new_id: Callable[[], str] = random_id,
    clock: Clock = system_clock,
) -> RestoreReport:
    """Brings an archive back from its `"log"` or its `"folders"`, to a new place, or in place when that is None.

    In place from the log, the log stays and everything else is made anew. Otherwise there is a new log, whose owner
    is `replica`, or random, and in it an event by `actor` that records the restore. When the result does not verify,
    the report's findings say so, and nothing is renamed; nor when it is not what the receipt `against` says.
    Raises `ArchiveMissing`, `ArchiveExists`, `Locked`, `LogCorrupt`, `PositionUnknown`, `MomentUnknown`,
    `InputRefused`, `EventsMissing`, `StorageFailed`.
    """
    started = time.monotonic()
    doing = await asyncio.to_thread(Restoring, source, origin, at, replica or new_id(), clock(), progress)
    if target is None:
        await _in_place(doing, actor, clock)
        root = source
    else:
        root = await _elsewhere(doing, Making(target, doing.replica, source, actor, clock, against))
    await asyncio.to_thread(measure, root, doing.report)
    doing.report.seconds = round(time.monotonic() - started, 3)
    return doing.report


async def _elsewhere(doing: Restoring, making: Making) -> Path:
    if doing.report.origin == "log":
        await asyncio.to_thread(require_log, doing.source, doing.settings)

    async def prove() -> None:
        if doing.at is None and doing.report.origin == "log":
            await _compare(doing)

    return await build(making, doing.fill, doing.report, doing.tell, prove)


async def _compare(doing: Restoring) -> None:
    """Compares the state with that of the source, where the source's tables can tell it at the same position."""
    try:
        async with refold.open(doing.source, create=False, readonly=True) as engine:
            found = await engine.checkpoint()
    except (StorageFailed, FormatUnknown):
        return
    digest = format_digest(found.digest or 0)
    if found.position == doing.report.events and digest != doing.report.digest:
        detail = f"the source's tables have digest {digest}, its log folds to {doing.report.digest}"
        doing.report.findings = [*doing.report.findings, Finding("digest-differs", detail)]
