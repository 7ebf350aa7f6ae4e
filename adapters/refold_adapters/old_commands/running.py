"""One run of an older tool's command, from the lock to the last line of the log file.

Exit codes, for schedulers: 0 all is well, 1 nothing was done, 3 done but for what is reported, 4 verification found
something, 10 the folders are not there, 11 another run or program did not let go in time.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from refold.clock import format_time, from_millis
from refold.errors import ArchiveMissing, Locked, RefoldError, SettingsInvalid, StorageFailed
from refold_adapters.adopting.candidates import Finding
from refold_adapters.adopting.layout import PRESETS, Described, load_layout, preset
from refold_adapters.lock import Lock
from refold_adapters.settings import load_settings

from .outcome import Outcome
from .run_log import RunLog
from .settings import OldSettings
from .staging import Staging

Clock = Callable[[], int]

PARTLY, ALTERED = 3, 4


def exit_code(outcome: Outcome) -> int:
    """What a run that came to its end exits with."""
    if not outcome.errors:
        return 0
    return ALTERED if outcome.command == "verify" else PARTLY


def run(
    command: str, settings: OldSettings, clock: Clock, *, dry_run: bool = False, said: Callable[[str], None]
) -> Outcome:
    """Runs export, verify or restore. `said` is told what a person who waits should know.

    Raises `ArchiveMissing`, `Locked`, `DatabaseBusy`, `InputRefused`, `SettingsInvalid`, `StorageFailed`, which are in
    the log file too.
    """
    settings = msgspec.structs.replace(settings, db=settings.db.resolve(), archive=settings.archive.absolute())
    log = RunLog(settings.log, command, clock)
    with closing(log):
        outcome = Outcome(command=command, archive=str(settings.archive), db=str(settings.db), dry_run=dry_run, log=log)
        log("INFO", "started", archive=settings.archive, db=settings.db, pid=os.getpid(), dry_run=dry_run or None)
        started = time.monotonic()
        try:
            _run(settings, outcome, clock, said)
        except RefoldError as error:
            outcome.seconds = time.monotonic() - started
            log("ERROR", "failed", code=error.code, detail=error)
            log("INFO", "summary", text=f"{command}: failed, {outcome.seconds:.2f} s", exit="failed")
            raise
        outcome.seconds = time.monotonic() - started
        log("INFO", "summary", text=outcome.summary(), **outcome.told, exit=exit_code(outcome))
        if log.failed is not None:
            outcome.found([Finding("log-incomplete", str(log.failed))])
    return outcome


def _run(settings: OldSettings, outcome: Outcome, clock: Clock, said: Callable[[str], None]) -> None:
    described = _described(settings)
    root = settings.archive
    if not root.is_dir():
        raise ArchiveMissing(str(root))
    names = load_settings(root)
    if is_adopted(root):
        from .adopted import run_adopted

        run_adopted(settings, described, outcome, clock, said)
        return
    locks = [Lock(root / f"{names.changelog}.lock")]
    if outcome.command == "restore" and not outcome.dry_run:
        locks.append(Lock(settings.db.with_name(f"{settings.db.name}.lock")))
    try:
        for lock in locks:
            _acquire(lock, settings.wait, outcome, clock, said)
        with closing(Staging(described.schema, settings.db, settings.wait)) as staging:
            _perform(settings, described, staging, outcome, clock)
    finally:
        for lock in reversed(locks):
            lock.release()


def is_adopted(root: Path) -> bool:
    """Whether the folders under `root` are an archive's, with its log."""
    return (root / load_settings(root).changelog).is_file()


def _perform(settings: OldSettings, described: Described, staging: Staging, outcome: Outcome, clock: Clock) -> None:
    root = settings.archive
    if outcome.command == "export":
        from .exporting import export

        export(root, described, staging, outcome, format_time(from_millis(clock())))
    elif outcome.command == "verify":
        from .verifying import verify

        verify(root, described, staging, outcome, documents=settings.documents)
    else:
        from .restoring import restore

        restore(root, described, staging, outcome, dry_run=outcome.dry_run)


def _acquire(lock: Lock, wait: float, outcome: Outcome, clock: Clock, said: Callable[[str], None]) -> None:
    """Takes a lock, or goes without where nobody can write it, and what is done only reads beside it."""

    def waiting(refusal: Locked) -> None:
        said(f"waiting: {refusal}")
        if outcome.log is not None:
            outcome.log("INFO", "waiting", pid=refusal.pid, host=refusal.host, since=refusal.since)

    try:
        lock.acquire_within(wait, clock, waiting=waiting)
    except StorageFailed as error:
        cause = error.__cause__
        reads = outcome.command != "export" and lock.path.parent == Path(outcome.archive)
        if reads and isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            detail = f"{lock.path} cannot be written, so nothing keeps an export from running at the same time"
            outcome.found([Finding("not-locked", detail)])
            return
        raise
    if lock.left is not None:
        left = lock.left
        detail = f"process {left.pid} on {left.host}, since {left.since}, ended without giving the lock back"
        outcome.found([Finding("lock-left", detail, file=lock.path.name)])


def _described(settings: OldSettings) -> Described:
    if settings.layout is not None:
        described = load_layout(settings.layout)
    elif settings.preset in PRESETS:
        described = preset(settings.preset)
    else:
        raise SettingsInvalid("preset", f"there is none called {settings.preset!r}; there are {', '.join(PRESETS)}")
    if described.layout.table is None:
        raise SettingsInvalid(str(settings.layout), "[layout.table] has to name the table")
    return described
