"""Restore is replay: a log is brought to where it is wanted, and everything else is folded from it.

The log is copied from the source, or rebuilt from the folders, and the copy writes under a replica id of its own: two
logs that went on under one id would fork. A new place is built beside its final name and renamed once it has been
verified, so it is there whole or not at all. In place, nothing that could not be made again is deleted: a log that is
replaced is kept beside the new one.

At a time, the copy holds the events up to it. Hybrid clocks make that a causally closed set: what an event had seen is
earlier than itself, on whatever replica it was written. At a position it is a prefix of the log. Events written
together are never taken apart; a group that reaches beyond the mark is left out whole, and the report says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

import refold
from refold.clock import format_time, from_millis, to_millis
from refold.errors import (
    ArchiveExists,
    ArchiveMissing,
    FormatUnknown,
    InputRefused,
    LogCorrupt,
    PositionUnknown,
    ProjectionFailed,
    StorageFailed,
)
from refold.events import Event, decode
from refold.fold import format_digest
from refold.opening import random_id, system_clock, uninterrupted
from refold.replay import events_after
from refold.verify import Finding

from .archive import remove_database
from .folders import INDEX, rebuild_log
from .lock import Lock
from .settings import FILE, load_settings
from .sqlite_log import SqliteLog

Tell = Callable[[str, int], None]

_COPY = 1000
_KEPT = ".before-restore"
_SIDES = ("", "-wal", "-shm", "-journal")


class At(msgspec.Struct, frozen=True):
    """Up to where: a position of the source's log, or a time in Unix milliseconds."""

    position: int | None = None
    millis: int | None = None

    def __str__(self) -> str:
        if self.position is not None:
            return f"position {self.position}"
        return format_time(from_millis(self.millis or 0))


class RestoreReport(msgspec.Struct, kw_only=True):
    """What a restore made: where, from how many events, and what state that is.

    `kept` is where the old log was put aside, `skipped` what was left out and why, `findings` what the verification of
    the result found.
    """

    path: str
    origin: str
    replica: str = ""
    events: int = 0
    position: int = 0
    records: int = 0
    folders: int = 0
    bytes: int = 0
    seconds: float = 0.0
    digest: str = ""
    vector: dict[str, int] = {}
    kept: str | None = None
    skipped: list[str] = []
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether the result verifies."""
        return not self.findings


def cut(source: SqliteLog, at: At) -> tuple[dict[str, int], list[str]]:
    """The last seq of each replica that belongs to a restore `at`, and what is left out to keep groups whole."""
    end = source.end()
    if at.position is not None and not 0 < at.position <= end:
        raise PositionUnknown(at.position, end)
    whole: dict[str, int] = {}
    part: dict[str, tuple[int, int]] = {}
    position = 0
    while events := events_after(source, position, _COPY):
        for event in events:
            position = event.position
            if at.position is not None and position > at.position:
                break
            if at.millis is not None and to_millis(event.time) > at.millis:
                continue
            if event.seq >= event.batch:
                whole[event.replica] = event.seq
                part.pop(event.replica, None)
            else:
                part.setdefault(event.replica, (position, event.batch))
        if at.position is not None and position > at.position:
            break
    skipped = [
        f"{at} stands inside a group of events that were written together ({replica}:{whole.get(replica, 0) + 1} to"
        f" {last}); the group, from position {first} on, is left out"
        for replica, (first, last) in sorted(part.items())
    ]
    return whole, skipped


def _decoded(position: int, body: bytes) -> Event:
    try:
        return decode(body)
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError) as error:
        raise LogCorrupt(position, f"it does not decode as an event: {error}") from error


def copy_log(source: SqliteLog, target: SqliteLog, upto: dict[str, int] | None, tell: Tell) -> int:
    """Appends the events of one log to an empty other, proving each on the way; how many."""
    position = 0
    while bodies := source.bodies(position, _COPY):
        position = bodies[-1][0]
        chosen = [
            (event, body)
            for event, body in ((_decoded(place, body), body) for place, body in bodies)
            if upto is None or event.seq <= upto.get(event.replica, 0)
        ]
        if chosen:
            texts = [body for _, body in chosen]
            target.append([event for event, _ in chosen], texts, [sha256(body).digest() for body in texts])
        tell("log", position)
    return target.end()


def beside(target: Path) -> Path:
    """Where an archive grows before it has its name."""
    return target.with_name(f".{target.name}.partial")


def discard(place: Path) -> None:
    """Deletes what an earlier attempt left there."""
    if place.exists():
        shutil.rmtree(place)


class _Restore:
    """One restore; the blocking parts of it, for a thread."""

    def __init__(self, source: Path, origin: str, at: At | None, replica: str, tell: Tell) -> None:
        self.source = source
        self.settings = load_settings(source)
        self.log = source / self.settings.changelog
        self.at = at
        self.replica = replica
        self.tell = tell
        self.report = RestoreReport(path=str(source), origin=origin)

    def make_log(self, path: Path) -> None:
        """Brings a new log into being at `path`."""
        remove_database(path)
        if self.report.origin == "log":
            self._copy(self.log, path)
        elif self.at is None:
            self._from_folders(path, self.replica)
        else:
            whole = path.with_name(f"{path.stem}.whole.db")
            remove_database(whole)
            try:
                self._from_folders(whole, self.replica)
                self._copy(whole, path)
            finally:
                remove_database(whole)

    def _copy(self, source: Path, target: Path) -> None:
        old = SqliteLog(source, readonly=True)
        try:
            upto = None
            if self.at is not None:
                upto, skipped = cut(old, self.at)
                self.report.skipped = [*self.report.skipped, *skipped]
            new = SqliteLog(target, owner=self.replica)
            try:
                self.report.events = copy_log(old, new, upto, self.tell)
            finally:
                new.close()
            if not self.report.events and old.end():
                raise InputRefused(str(self.source), f"it holds nothing at or before {self.at}")
        finally:
            old.close()

    def _from_folders(self, path: Path, replica: str) -> None:
        log = SqliteLog(path, owner=replica)
        try:
            rebuilt = rebuild_log(self.source, log)
        finally:
            log.close()
        if not rebuilt.events:
            raise InputRefused(str(self.source), "no folder in it holds events that a log could be rebuilt from")
        self.report.events = rebuilt.events
        self.report.skipped = [
            f"{finding.kind} in {finding.folder}/{finding.file}: {finding.detail}" for finding in rebuilt.findings
        ]

    def replace_log(self) -> None:
        """Puts a log rebuilt from the folders in the old one's place, and the old one aside."""
        new = self.log.with_name(f"{self.log.stem}.restore.db")
        try:
            self.make_log(new)
            self._put_aside()
            new.replace(self.log)
        finally:
            remove_database(new)
        self.drop_derived()

    def _put_aside(self) -> None:
        """The old database under a new name; the name stays taken until the new one is renamed over it."""
        if not any(self.log.with_name(self.log.name + side).exists() for side in _SIDES):
            return
        number, kept = 1, self.log.with_name(self.log.name + _KEPT)
        while any(kept.with_name(kept.name + side).exists() for side in _SIDES):
            number += 1
            kept = self.log.with_name(f"{self.log.name}{_KEPT}-{number}")
        if self.log.exists():
            os.link(self.log, kept)
        for side in _SIDES[1:]:
            old = self.log.with_name(self.log.name + side)
            if old.exists():
                old.rename(kept.with_name(kept.name + side))
        self.report.kept = str(kept)

    def drop_derived(self) -> None:
        """Deletes what is folded from the log again."""
        remove_database(self.source / self.settings.tables)
        remove_database(self.source / INDEX)

    def prepare(self, target: Path) -> Path:
        """Makes the place beside `target` where the new archive grows, with its log in it."""
        if self.report.origin == "log" and not self.log.is_file():
            raise ArchiveMissing(str(self.source))
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ArchiveExists(str(target))
        place = beside(target)
        discard(place)
        place.mkdir(parents=True)
        if (self.source / FILE).is_file():
            shutil.copyfile(self.source / FILE, place / FILE)
        self.make_log(place / self.settings.changelog)
        return place

    def publish(self, place: Path, target: Path) -> None:
        """Gives the finished archive its name."""
        place.rename(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.report.path = str(target)

    def measure(self, root: Path) -> None:
        """How large the result is."""
        for _, _, names, descriptor in os.fwalk(root):
            self.report.folders += "meta.json" in names
            self.report.bytes += sum(os.stat(name, dir_fd=descriptor).st_size for name in names)


def _guarded(restore: _Restore, work: Callable[[], None], now: int) -> None:
    """Does blocking work while no other process can write the archive."""
    lock = Lock(restore.log.with_name(restore.log.name + ".lock"))
    lock.acquire(now)
    try:
        with_failures(str(restore.source), work)
    finally:
        lock.release()


def with_failures(path: str, work: Callable[[], None]) -> None:
    """Runs work, and turns what the operating system raises into `StorageFailed`."""
    try:
        work()
    except OSError as error:
        raise StorageFailed(path, "restoring", str(error)) from error


async def _bring_up(restore: _Restore, root: Path, *, anew: bool) -> None:
    """Folds tables and folders from the log at `root`, verifies, and notes what state that is."""
    async with refold.open(root, create=False) as engine:
        if anew:
            await engine.rebuild(restore.tell)
        await engine.settled()
        restore.report.findings = (await engine.verify(restore.tell)).findings
        checkpoint, status = await engine.checkpoint(), await engine.status()
    report = restore.report
    report.replica = engine.replica
    report.position = report.events = checkpoint.position
    report.records = sum(status.collections.values())
    report.digest = format_digest(checkpoint.digest or 0)
    report.vector = checkpoint.vector


async def _in_place(restore: _Restore, now: int) -> None:
    if restore.report.origin == "folders":
        await asyncio.to_thread(_guarded, restore, restore.replace_log, now)
        await _bring_up(restore, restore.source, anew=False)
        return
    if not await asyncio.to_thread(restore.log.is_file):
        raise ArchiveMissing(str(restore.source))
    try:
        await _bring_up(restore, restore.source, anew=True)
    except (StorageFailed, FormatUnknown, ProjectionFailed):
        await asyncio.to_thread(_guarded, restore, restore.drop_derived, now)
        await _bring_up(restore, restore.source, anew=False)


async def restore(
    source: Path,
    target: Path | None,
    *,
    origin: str = "log",
    at: At | None = None,
    replica: str | None = None,
    progress: Tell = lambda what, done: None,
    new_id: Callable[[], str] = random_id,
    clock: Callable[[], int] = system_clock,
) -> RestoreReport:
    """Brings an archive back from its `"log"` or its `"folders"`, to a new place, or in place when that is None.

    In place from the log, the log stays and everything else is made anew. Otherwise there is a new log, whose owner
    is `replica`, or random. When the result does not verify, the report's findings say so, and nothing is renamed.
    Raises `ArchiveMissing`, `ArchiveExists`, `Locked`, `LogCorrupt`, `PositionUnknown`, `InputRefused`,
    `EventsMissing`, `StorageFailed`.
    """
    started = time.monotonic()
    doing = await asyncio.to_thread(_Restore, source, origin, at, replica or new_id(), progress)
    if target is None:
        await _in_place(doing, clock())
        root = source
    else:
        root = await _elsewhere(doing, target)
    await asyncio.to_thread(doing.measure, root)
    doing.report.seconds = round(time.monotonic() - started, 3)
    return doing.report


async def _elsewhere(doing: _Restore, target: Path) -> Path:
    try:
        place = await asyncio.to_thread(_placed, doing, target)
        await _bring_up(doing, place, anew=False)
        if doing.at is None and doing.report.origin == "log":
            await _compare(doing)
    except BaseException:
        await uninterrupted(asyncio.to_thread(discard, beside(target)))
        raise
    if not doing.report.ok:
        doing.report.path = str(place)
        return place
    await asyncio.to_thread(with_failures, str(target), lambda: doing.publish(place, target))
    return target


def _placed(doing: _Restore, target: Path) -> Path:
    try:
        return doing.prepare(target)
    except OSError as error:
        raise StorageFailed(str(target), "restoring", str(error)) from error


async def _compare(doing: _Restore) -> None:
    """Compares the state with that of the source, where the source's tables can tell it at the same position."""
    try:
        async with refold.open(doing.source, create=False, readonly=True) as engine:
            found = await engine.checkpoint()
    except (StorageFailed, FormatUnknown):
        return
    digest = format_digest(found.digest or 0)
    if found.position == doing.report.position and digest != doing.report.digest:
        detail = f"the source's tables have digest {digest}, its log folds to {doing.report.digest}"
        doing.report.findings = [*doing.report.findings, Finding("digest-differs", detail)]
