"""What a restore would do, found out without writing anything into the archive or the new place.

From the log, the new archive is a cut of it, so what it would have is compared with the present state record by record.
From the folders, their log is rebuilt in the system's place for temporary files and compared with the log at hand by
version vectors. In place, the files are verified: those that differ from the log are what would become otherwise.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

import refold
from refold.errors import ArchiveExists, ArchiveMissing, FormatUnknown, LogCorrupt, LogLost, StorageFailed
from refold.moment import AtEnd, Moment, cut, tags_in
from refold.opening import system_clock
from refold.vector import missing
from refold_adapters.sqlite_log import SqliteLog

from .building import is_taken
from .copying import Tell
from .restoring import Restoring


class Rehearsal(msgspec.Struct, kw_only=True):
    """What a restore would make: where, of which events, and what would be otherwise than it is.

    `created`, `changed` and `deleted` count records, and `defined` definitions, beside the present state; they are None
    where the present state cannot be read. `lacking` are events of the present log that the source does not have, as
    `replica:first-last`. `folders` are those whose files are not as the log says; a restore in place makes them so.
    """

    path: str
    origin: str
    at: str | None = None
    events: int = 0
    vector: dict[str, int] = {}
    created: int | None = None
    changed: int | None = None
    deleted: int | None = None
    defined: int | None = None
    lacking: list[str] = []
    folders: list[str] = []
    skipped: list[str] = []


def _of_log(doing: Restoring, rehearsal: Rehearsal) -> None:
    """Which events of the log the new archive would have."""
    if not doing.log.is_file():
        raise ArchiveMissing(str(doing.source))
    log = SqliteLog(doing.log, readonly=True)
    try:
        found = cut(doing.at or AtEnd(), log, lambda: tags_in(log), doing.now)
    finally:
        log.close()
    rehearsal.vector, rehearsal.skipped = found.vector, found.notes()


def _of_folders(doing: Restoring, rehearsal: Rehearsal) -> None:
    """Which events the folders would give, and which of the present log they lack."""
    with tempfile.TemporaryDirectory(prefix="refold-") as place:
        log = SqliteLog(Path(place) / "changelog.db", owner=doing.replica)
        try:
            doing.fill(log)
            rehearsal.vector = {replica: head.seq for replica, head in sorted(log.heads().items())}
        finally:
            log.close()
    rehearsal.skipped = doing.report.skipped
    try:
        present = SqliteLog(doing.log, readonly=True)
    except (StorageFailed, FormatUnknown, LogCorrupt):
        return
    try:
        heads = {replica: head.seq for replica, head in present.heads().items()}
    finally:
        present.close()
    lacking = missing(rehearsal.vector, heads)
    rehearsal.lacking = [f"{replica}:{first}-{last}" for replica, first, last in lacking]


async def _compare(doing: Restoring, rehearsal: Rehearsal) -> None:
    """Counts what would be otherwise than it is; nothing where the tables cannot be read as they are."""
    counts: Counter[str] = Counter()
    try:
        async with refold.open(doing.source, create=False, readonly=True) as engine:
            async for difference in engine.diff("@end", doing.at or AtEnd()):
                counts[difference.kind] += 1
    except (StorageFailed, FormatUnknown):
        return
    for kind in ("created", "changed", "deleted", "defined"):
        setattr(rehearsal, kind, counts[kind])


async def _differing(doing: Restoring, rehearsal: Rehearsal) -> None:
    """Which folders are not as the log says."""
    try:
        async with refold.open(doing.source, create=False, readonly=True) as engine:
            report = await engine.verify(doing.tell, only=("folders",))
    except (ArchiveMissing, LogLost, StorageFailed, FormatUnknown):
        return
    rehearsal.folders = sorted({finding.folder for finding in report.findings if finding.folder is not None})


async def rehearse(
    source: Path,
    target: Path | None,
    *,
    origin: str = "log",
    at: Moment | None = None,
    progress: Tell = lambda what, done: None,
    clock: Callable[[], int] = system_clock,
) -> Rehearsal:
    """What `restore` with the same arguments would do. Raises as it does, as far as that can be known before."""
    if target is not None and await asyncio.to_thread(is_taken, target):
        raise ArchiveExists(str(target))
    doing = await asyncio.to_thread(Restoring, source, origin, at, "rehearsal", clock(), progress)
    rehearsal = Rehearsal(path=str(target or source), origin=origin, at=None if at is None else str(at))
    await asyncio.to_thread(_of_log if origin == "log" else _of_folders, doing, rehearsal)
    rehearsal.events = sum(rehearsal.vector.values())
    if origin == "log":
        await _compare(doing, rehearsal)
    if target is None:
        await _differing(doing, rehearsal)
    return rehearsal
