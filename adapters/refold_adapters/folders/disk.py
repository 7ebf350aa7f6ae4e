"""The disk under the folders: small files written in batches, durable together, never outside the archive.

Every path is taken component by component from a descriptor of the root, and a component that is a symbolic link is
refused, so whatever stands in the archive, nothing outside it is read or written.

A file that is there is never written over: its successor is written beside it (`.refold` added to its name), made
durable, and renamed. A folder that did not exist has nothing to lose, so its files are written under their own names
at once, the last one first, which is meta.json: whoever finds the folder half done finds whose it is, and that it does
not fit. What was written is durable once `sync` has returned; on Linux that is one `syncfs` for any number of files,
elsewhere an fsync each, by a few threads.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from refold.errors import StorageFailed

TEMPORARY = ".refold"
"""What the name of a file that is not finished ends with."""

QUARANTINE = "quarantine"
"""The folder of what could not be adopted."""

EDITED = ".edited-"
"""What stands between the name of a file that somebody edited and the start of its hash, once it was put aside."""

INDEX = "folders.db"
"""The database that says what stands in the folders; a directory below that has one is another archive."""

ENDINGS = (".csv", ".json", ".jsonl", TEMPORARY)
"""How the names of the files end that refold writes."""

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_APPEND = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_OPEN_PARENTS = 64
_AT_ONCE = 4096
"""Bytes that a write puts into a file together, or not at all: a page."""

_FIRST = 1 << 16
_CHUNK = 1 << 20


class Disk(Protocol):
    """The folders as the projection sees them. A `place` is a path from the archive's root, "" the root itself.

    Every method raises `StorageFailed`. Reading what is not there gives None.
    """

    def write(self, place: str, files: Sequence[tuple[str, bytes]], *, compare: bool) -> list[str] | None:
        """Writes whole files; the names that `publish` must be called for, None when the folder is new.

        Where `compare`, a file that holds these bytes already is left alone.
        """

    def stream(self, place: str, name: str, chunks: Iterator[bytes]) -> None:
        """Writes one large file, which `publish` must be called for."""

    def append(self, place: str, name: str, size: int, data: bytes) -> None:
        """Cuts a file to `size` bytes, and adds more at its end."""

    def sync(self) -> None:
        """Returns once everything written, renamed or removed before the call is durable."""

    def publish(self, place: str, names: Sequence[str]) -> None:
        """Gives finished files their names."""

    def rename(self, place: str, name: str, other: str) -> None:
        """Gives a file another name in its folder."""

    def stats(self, place: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The size, and the time of the last change in nanoseconds, of those files that are there."""

    def remove(self, place: str, names: Sequence[str]) -> None:
        """Removes files that may be there, and the folder, and those above it, where that leaves them empty."""

    def read(self, place: str, name: str, offset: int = 0, limit: int = -1) -> bytes | None:
        """At most `limit` bytes of a file from `offset`."""

    def read_all(self, place: str, names: Sequence[tuple[str, int]]) -> list[bytes] | None:
        """The starts of some files, each at most so long; None when one is not there."""

    def names(self, place: str) -> list[str]:
        """The names of those regular files in a folder that may be refold's; none where there is no folder."""

    def walk(self) -> Iterator[tuple[str, list[str]]]:
        """Every folder with the names of those regular files in it that may be refold's.

        Links are not followed, and a directory that is an archive of its own is passed over, or whose name is no text.
        """


def _syncfs() -> Callable[[int], None] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return None

    def syncfs(descriptor: int) -> None:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs


class PosixDisk:
    """The folders under one directory. Implements `Disk`; `whole` chooses one sync for the whole file system."""

    def __init__(self, root: Path, *, whole: bool = True) -> None:
        self.root = root
        self._whole = _syncfs() if whole else None
        self._unsynced: dict[tuple[str, str], None] = {}
        self._parents: dict[str, int] = {}
        with self._failures("", "opening the folders"):
            self._root = os.open(root, _DIRECTORY & ~getattr(os, "O_NOFOLLOW", 0))

    def close(self) -> None:
        """Lets go of every descriptor."""
        self._forget()
        os.close(self._root)

    @contextmanager
    def _failures(self, place: str, operation: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = "it is a symbolic link or no directory" if error.errno in {errno.ELOOP, errno.ENOTDIR} else str(error)
            raise StorageFailed(str(self.root / place), operation, why) from error

    def _forget(self) -> None:
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()

    def _directory(self, place: str, *, make: bool) -> int:
        """A descriptor of a folder that stays open for a while."""
        if not place:
            return self._root
        found = self._parents.get(place)
        if found is not None:
            return found
        above, _, name = place.rpartition("/")
        parent = self._directory(above, make=make)
        if make:
            self._make(parent, above, name)
        if len(self._parents) >= _OPEN_PARENTS:
            self._forget()
            parent = self._directory(above, make=make)
        found = self._parents[place] = os.open(name, _DIRECTORY, dir_fd=parent)
        return found

    def _make(self, parent: int, above: str, name: str) -> bool:
        try:
            os.mkdir(name, dir_fd=parent)
        except FileExistsError:
            return False
        if self._whole is None:
            self._unsynced[above, ""] = None
        return True

    def _enter(self, place: str, *, make: bool) -> tuple[int, str, bool]:
        """Where a folder is: a descriptor, what to put before names, and whether it was made just now.

        A descriptor may have outlived its directory, which looks like a folder that is not there; so look twice.
        """
        if not place:
            return self._root, "", False
        try:
            return self._look(place, make=make)
        except FileNotFoundError:
            self._forget()
            return self._look(place, make=make)

    def _look(self, place: str, *, make: bool) -> tuple[int, str, bool]:
        above, _, name = place.rpartition("/")
        parent = self._directory(above, make=make)
        fresh = make and self._make(parent, above, name)
        if not fresh:
            self._check(parent, name)
        return parent, f"{name}/", fresh

    def _check(self, parent: int, name: str) -> None:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)

    def write(self, place: str, files: Sequence[tuple[str, bytes]], *, compare: bool) -> list[str] | None:
        """See `Disk.write`."""
        written = []
        with self._failures(place, "writing"):
            parent, prefix, fresh = self._enter(place, make=True)
            for name, data in reversed(files) if fresh else files:
                ending = "" if fresh and len(data) <= _AT_ONCE else TEMPORARY
                if compare and not fresh and self.read(place, name, 0, len(data) + 1) == data:
                    continue
                written.append(name)
                descriptor = os.open(f"{prefix}{name}{ending}", _WRITE, 0o666, dir_fd=parent)
                try:
                    count = os.write(descriptor, data)
                    if count < len(data):
                        _write_all(descriptor, memoryview(data)[count:])
                except OSError:
                    with suppress(OSError):
                        os.unlink(f"{prefix}{name}{ending}", dir_fd=parent)
                    raise
                finally:
                    os.close(descriptor)
                if fresh and ending:
                    os.rename(f"{prefix}{name}{ending}", prefix + name, src_dir_fd=parent, dst_dir_fd=parent)
                    ending = ""
                if self._whole is None:
                    self._unsynced[place, name + ending] = None
            if self._whole is None:
                self._unsynced[place, ""] = None
        return None if fresh else written

    def stream(self, place: str, name: str, chunks: Iterator[bytes]) -> None:
        """See `Disk.stream`."""
        with self._failures(place, "writing"):
            parent, prefix, _ = self._enter(place, make=True)
            descriptor = os.open(f"{prefix}{name}{TEMPORARY}", _WRITE, 0o666, dir_fd=parent)
        with os.fdopen(descriptor, "wb", _CHUNK) as file:
            for chunk in chunks:
                with self._failures(place, "writing"):
                    file.write(chunk)
            with self._failures(place, "writing"):
                file.flush()
        self._touched(place, name + TEMPORARY)

    def append(self, place: str, name: str, size: int, data: bytes) -> None:
        """See `Disk.append`."""
        with self._failures(place, "appending"):
            parent, prefix, _ = self._enter(place, make=False)
            descriptor = os.open(prefix + name, _APPEND, dir_fd=parent)
            try:
                os.ftruncate(descriptor, size)
                os.lseek(descriptor, size, os.SEEK_SET)
                _write_all(descriptor, memoryview(data))
            finally:
                os.close(descriptor)
        self._touched(place, name)

    def _touched(self, place: str, name: str) -> None:
        if self._whole is None:
            self._unsynced[place, name] = self._unsynced[place, ""] = None

    def sync(self) -> None:
        """See `Disk.sync`."""
        with self._failures("", "making files durable"):
            if self._whole is not None:
                self._whole(self._root)
                return
            from concurrent.futures import ThreadPoolExecutor

            unsynced, self._unsynced = list(self._unsynced), {}
            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(self._fsync, unsynced):
                    pass

    def _fsync(self, what: tuple[str, str]) -> None:
        try:
            descriptor = os.open(self.root.joinpath(*what), _READ)
        except FileNotFoundError:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, place: str, names: Sequence[str]) -> None:
        """See `Disk.publish`."""
        with self._failures(place, "renaming"):
            parent, prefix, _ = self._enter(place, make=False)
            for name in names:
                path = prefix + name
                os.rename(path + TEMPORARY, path, src_dir_fd=parent, dst_dir_fd=parent)
        self._touched(place, "")

    def rename(self, place: str, name: str, other: str) -> None:
        """See `Disk.rename`."""
        with self._failures(place, "renaming"):
            parent, prefix, _ = self._enter(place, make=False)
            os.rename(prefix + name, prefix + other, src_dir_fd=parent, dst_dir_fd=parent)
        self._touched(place, other)

    def stats(self, place: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """See `Disk.stats`."""
        found = {}
        for name in names:
            try:
                told = os.lstat(f"{self.root}/{place}/{name}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageFailed(str(self.root / place), "reading", str(error)) from error
            found[name] = told.st_size, told.st_mtime_ns
        return found

    def remove(self, place: str, names: Sequence[str]) -> None:
        """See `Disk.remove`."""
        with self._failures(place, "removing"):
            try:
                parent, prefix, _ = self._enter(place, make=False)
                for name in names:
                    try:
                        os.unlink(prefix + name, dir_fd=parent)
                    except FileNotFoundError:
                        pass
                self._touched(place, "")
            except FileNotFoundError:
                pass  # a crash may have come after the folder was removed, and before those above it were
            while place:
                above, _, name = place.rpartition("/")
                try:
                    os.rmdir(name, dir_fd=self._directory(above, make=False))
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                        return
                    raise
                if place in self._parents:
                    self._forget()
                self._touched(above, "")
                place = above

    def read(self, place: str, name: str, offset: int = 0, limit: int = -1) -> bytes | None:
        """See `Disk.read`."""
        with self._failures(place, "reading"):
            try:
                parent, prefix, _ = self._enter(place, make=False)
                descriptor = os.open(prefix + name, _READ, dir_fd=parent)
            except FileNotFoundError:
                return None
            try:
                if offset:
                    os.lseek(descriptor, offset, os.SEEK_SET)
                return _read(descriptor, limit)
            finally:
                os.close(descriptor)

    def read_all(self, place: str, names: Sequence[tuple[str, int]]) -> list[bytes] | None:
        """See `Disk.read_all`."""
        found = []
        try:
            parent, prefix, _ = self._enter(place, make=False)
            for name, limit in names:
                descriptor = os.open(prefix + name, _READ, dir_fd=parent)
                try:
                    found.append(_read(descriptor, limit))
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailed(str(self.root / place), "reading", str(error)) from error
        return found

    def names(self, place: str) -> list[str]:
        """See `Disk.names`."""
        found = self._list(place)
        return found[1] if found is not None else []

    def walk(self) -> Iterator[tuple[str, list[str]]]:
        """See `Disk.walk`."""
        stack = [("", [""])]
        while stack:
            above, names = stack[-1]
            if not names:
                stack.pop()
                continue
            name = names.pop()
            place = f"{above}/{name}" if above else name
            found = self._list(place)
            if found is not None:
                yield place, found[1]
                if found[0]:
                    stack.append((place, sorted(found[0], reverse=True)))

    def _list(self, place: str) -> tuple[list[str], list[str]] | None:
        folders, files = [], []
        try:
            with os.scandir(f"{self.root}/{place}") as entries:
                for entry in entries:
                    name = entry.name
                    if not name.isascii() and not _is_text(name):
                        continue
                    if (name.endswith(ENDINGS) or EDITED in name) and entry.is_file(follow_symlinks=False):
                        files.append(name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif name == INDEX and place:
                        return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailed(str(self.root / place), "listing", str(error)) from error
        return folders, files


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8 on the disk, as all those are that refold gives."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, limit: int) -> bytes:
    piece = os.read(descriptor, _FIRST if limit < 0 else min(limit, _FIRST))
    if len(piece) < _FIRST:
        return piece
    pieces, size = [piece], len(piece)
    while limit < 0 or size < limit:
        piece = os.read(descriptor, _CHUNK if limit < 0 else min(_CHUNK, limit - size))
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
