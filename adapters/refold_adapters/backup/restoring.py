"""A backup brought back: the events of its chain of parents and of itself, in order, make a new archive.

Every link is looked at before anything is written: each backup is proved by its id, which its child names, and begins
with the heads that its parent ends with. The events prove themselves as they come; that nothing is missing is seen by
the heads at the end, and that the state is the same by its digest.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from refold.errors import StorageFailed
from refold.events import Event
from refold.moment import Moment, cut, tags_in
from refold.opening import random_id, system_clock
from refold.ports import Changelog
from refold.progress import uninterrupted
from refold.verify import Finding
from refold_adapters.folders.disk import PosixDisk
from refold_adapters.recovery.building import Making, beside, build, measure
from refold_adapters.recovery.copying import append_all, events_of
from refold_adapters.recovery.report import RestoreReport
from refold_adapters.settings import FILE
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.stopping import Tell, in_thread

from .documents import restore_documents
from .errors import BackupRefused, ParentMissing
from .manifest import parse_name
from .places import stored
from .reading import AskSecret, BackupFile


def open_chain(path: Path, secret: AskSecret, stack: ExitStack) -> list[BackupFile]:
    """A backup after all it goes on from, the full one first, open until `stack` is closed.

    Parents stand in the same directory, under the names they were given. Raises `ParentMissing`, `BackupRefused`,
    `PassphraseNeeded`, `PassphraseWrong`, `StorageFailed`.
    """
    with stored(path.parent, "listing the backups"):
        named = {found.id: file for file in path.parent.iterdir() if (found := parse_name(file.name)) is not None}
    line = [stack.enter_context(BackupFile(path, secret))]
    while (parent := line[-1].manifest.parent) is not None:
        if parent.id not in named:
            raise ParentMissing(str(line[-1].path), parent.id)
        before = stack.enter_context(BackupFile(named[parent.id], secret))
        _fit(before, line[-1])
        line.append(before)
    return line[::-1]


def _fit(parent: BackupFile, child: BackupFile) -> None:
    ends = parent.manifest.heads_to, parent.manifest.position
    if parent.id != (child.manifest.parent.id if child.manifest.parent else "") or ends != (
        child.manifest.heads_from,
        child.manifest.after,
    ):
        raise BackupRefused(str(child.path), f"it does not begin where its parent {parent.id} ends")


class _Restore:
    """One restore; the blocking parts of it, for a thread."""

    def __init__(self, line: list[BackupFile], at: Moment | None, now: int, tell: Tell) -> None:
        self.line = line
        self.wanted = line[-1]
        self.at = at
        self.now = now
        self.tell = tell
        self.report = RestoreReport(path=str(self.wanted.path), origin="backup", at=str(at) if at is not None else None)

    def events(self) -> Iterator[tuple[Event, bytes]]:
        """Those of the whole chain."""
        for backup in self.line:
            for batch in backup.events():
                for event, body, _ in batch:
                    yield event, body

    def fill(self, log: Changelog) -> None:
        """Brings the events that are wanted into a new log."""
        if self.at is None:
            self.report.events = append_all(log, self.events(), self.tell)
            return
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refold-")))
            whole = stack.enter_context(closing(SqliteLog(place / "whole.db", owner=log.replica())))
            append_all(whole, self.events(), self.tell)
            upto = cut(self.at, whole, lambda: tags_in(whole), self.now)
            self.report.skipped = [*self.report.skipped, *upto.notes()]
            self.report.events = append_all(log, events_of(whole, upto), self.tell)

    def settings(self, place: Path) -> None:
        """Writes refold.toml as it was, if there was one."""
        data = self.wanted.settings()
        if data is not None:
            with stored(place / FILE, "writing the settings"):
                (place / FILE).write_bytes(data)

    def has_room(self, target: Path) -> None:
        """Raises `StorageFailed` where what the backup says it holds cannot fit, before anything is written."""
        need = sum(entry.size for backup in self.line for entry in backup.entries())
        need += sum(backup.manifest.documents.bytes for backup in self.line if backup.manifest.documents)
        above = target.parent
        while not above.exists() and above != above.parent:
            above = above.parent
        with stored(target, "restoring"):
            free = shutil.disk_usage(above).free
        if need > free:
            raise StorageFailed(str(target), "restoring", f"it holds {need} bytes, and there is room for {free}")

    def prove(self, place: Path, tell: Tell) -> None:
        """Compares the digest, and puts the documents where they were."""
        manifest, report = self.wanted.manifest, self.report
        if self.at is None and manifest.digest not in (None, report.digest):
            detail = f"the state folds to digest {report.digest}, the backup says {manifest.digest}"
            report.findings = [*report.findings, Finding("digest-differs", detail)]
        if manifest.documents is not None:
            line = {backup.id: backup for backup in self.line}
            report.skipped = [*report.skipped, *restore_documents(self.wanted, line, place, tell)]
            PosixDisk(place).sync()


async def restore_backup(
    path: Path,
    target: Path,
    *,
    secret: AskSecret = lambda: None,
    at: Moment | None = None,
    replica: str | None = None,
    actor: str = "",
    progress: Tell = lambda what, done: None,
    new_id: Callable[[], str] = random_id,
    clock: Callable[[], int] = system_clock,
) -> RestoreReport:
    """Makes a new archive of a backup and all it goes on from, up to a moment of it where `at` says so.

    When the result does not verify, or its digest is not the manifest's, the report's findings say so, and it is left
    under its temporary name. Raises `BackupRefused`, `ParentMissing`, `PassphraseNeeded`, `PassphraseWrong`,
    `ArchiveExists`, `PositionUnknown`, `MomentUnknown`, `StorageFailed`; nothing is left then.
    """
    started = time.monotonic()
    stack = ExitStack()
    try:
        doing, settings = await in_thread(
            lambda tell: _opened(path, target, secret, at, clock(), tell, stack), progress
        )

        async def prove() -> None:
            await in_thread(lambda tell: doing.prove(beside(target), tell), progress)

        making = Making(target, replica or new_id(), settings, actor, clock)
        root = await build(making, doing.fill, doing.report, progress, prove)
        await asyncio.to_thread(measure, root, doing.report)
    finally:
        await uninterrupted(asyncio.to_thread(stack.close))
    doing.report.seconds = round(time.monotonic() - started, 3)
    return doing.report


def _opened(
    path: Path, target: Path, secret: AskSecret, at: Moment | None, now: int, tell: Tell, stack: ExitStack
) -> tuple[_Restore, Path]:
    """The restore, all its backups open, and a directory with the settings that go with it."""
    doing = _Restore(open_chain(path, secret, stack), at, now, tell)
    doing.has_room(target)
    settings = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refold-")))
    doing.settings(settings)
    return doing, settings
