"""Bugs planted in the process that is led through faults, to see that each suite would find its own.

Each is made in that process only, before it opens anything.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

import refold.frames
import refold_adapters.archive
import refold_adapters.recovery.building
import refold_adapters.recovery.restoring
import refold_adapters.share.segments
from refold.errors import Locked, StorageFailed
from refold_adapters import hand_edits, sqlite_log
from refold_adapters.backup import pruning, retention
from refold_adapters.folders import FolderReplicas, disk
from refold_adapters.lock import Holder, Lock
from refold_adapters.sqlite_connection import connect
from tests.crash.plants import acknowledge_first, folders_checkpoint_first

from . import decoders


def _put(where: object, name: str, what: object) -> None:
    setattr(where, name, what)


def log_synced_later() -> None:
    """Commits of the log are synced when its WAL is copied, and no sooner."""

    def lazily(path: Path, *, readonly: bool = False, synchronous: int = 2) -> sqlite3.Connection:
        return connect(path, readonly=readonly, synchronous=min(synchronous, 1))

    _put(sqlite_log, "connect", lazily)


def renamed_before_durable() -> None:
    """Files of folders get their names before they are durable."""
    write = FolderReplicas._write

    def hasty(self: FolderReplicas, rendered: list[Any]) -> Any:
        batch = write(self, rendered)
        for coming in batch.coming:
            self._disk.publish(coming.place, coming.names)
        batch.coming = []
        return batch

    _put(FolderReplicas, "_write", hasty)


def folders_never_synced() -> None:
    """What stands in the folders is noted without having been made durable."""
    _put(disk.PosixDisk, "sync", lambda self: None)


def sync_errors_swallowed() -> None:
    """A sync of the folders that fails is taken for one that did not."""
    sync = disk.PosixDisk.sync

    def swallowing(self: disk.PosixDisk) -> None:
        try:
            sync(self)
        except StorageFailed:
            return

    _put(disk.PosixDisk, "sync", swallowing)


def no_space_swallowed() -> None:
    """A folder for which there is no room is passed over."""
    failures = disk.PosixDisk._failures

    @contextmanager
    def swallowing(self: disk.PosixDisk, place: str, operation: str) -> Iterator[None]:
        with failures(self, place, operation):
            try:
                yield
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    _put(disk.PosixDisk, "_failures", swallowing)


def short_write_is_whole() -> None:
    """What a write left over is not written."""
    _put(disk, "_write_all", lambda descriptor, data: os.write(descriptor, data[:0]))


def directories_not_durable() -> None:
    """A new archive's directory is made, and its name is not made durable."""
    _put(refold_adapters.archive, "make_directory", lambda path: path.mkdir(parents=True, exist_ok=True))


def published_without_sync() -> None:
    """A restored archive gets its name, and nobody syncs the directory that it stands in."""
    _put(refold_adapters.recovery.building, "sync_directory", lambda path: None)


def segments_not_synced() -> None:
    """The name of a segment is not made durable."""
    _put(refold_adapters.share.segments, "sync_directory", lambda path: None)


def old_wal_comes_back() -> None:
    """A log that is exchanged for another may find the WAL of the one before beside it."""
    _put(refold_adapters.recovery.restoring, "sync_directory", lambda path: None)
    _put(refold_adapters.recovery.restoring.Restoring, "_settle", lambda self: True)


def raw_errors() -> None:
    """What the system says of a file that cannot be deleted is raised as it is."""

    def remove(path: Path) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    _put(refold_adapters.archive, "remove_database", remove)


def edits_forgotten() -> None:
    """A file that was edited is put away before what it says is in the log."""

    async def forget(self: Any, comparison: object, page: object) -> None:
        del self, comparison, page

    _put(hand_edits._Adoption, "_page", forget)


def parents_pruned_first() -> None:
    """Backups are removed before those that go on from them."""
    real = retention.decide

    def backwards(candidates: Any, policy: Any) -> Any:
        decision = real(candidates, policy)
        return msgspec.structs.replace(decision, remove=decision.remove[::-1])

    _put(pruning, "decide", backwards)


def trailing_bytes_taken() -> None:
    """What stands behind a frame is passed over."""
    whole = refold.frames.from_frame
    _put(decoders, "from_frame", lambda data: whole(data[: 12 + int.from_bytes(data[4:8], "big")]))


def length_unbounded() -> None:
    """A reader makes room for whatever a frame's header promises."""
    _put(refold.frames, "FRAME_LIMIT", 1 << 40)


def holder_raw() -> None:
    """What a lock's file holds is decoded, and nobody minds when it cannot be."""

    def refusal(self: Lock, text: bytes) -> Locked:
        holder = msgspec.json.decode(text, type=Holder)
        return Locked(str(self.path), holder.pid, holder.host, holder.since)

    _put(Lock, "_refusal", refusal)


def words_slow() -> None:
    """A pattern takes a time that doubles with each letter."""
    _put(decoders, "parse_vector", lambda text: re.match(r"(\w+)*:$", text))


PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        acknowledge_first,
        folders_checkpoint_first,
        log_synced_later,
        renamed_before_durable,
        folders_never_synced,
        sync_errors_swallowed,
        no_space_swallowed,
        short_write_is_whole,
        directories_not_durable,
        published_without_sync,
        segments_not_synced,
        old_wal_comes_back,
        raw_errors,
        edits_forgotten,
        parents_pruned_first,
        trailing_bytes_taken,
        length_unbounded,
        holder_raw,
        words_slow,
    )
}
