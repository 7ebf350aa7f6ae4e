"""Documents by their paths: below the archive's root, component by component, never through a link, never blocking.

A path that a record tells is text from outside. It is plain (no empty, `.` or `..` component, not absolute) or it names
no document. Each folder on the way is opened from the one above and without following links, so what is read stands in
the archive, whatever stands there; and only what is a regular file is opened at all, since opening a FIFO can wait for
ever and opening a device can do anything.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 20
TRIES = 3
"""How often a document is read that changes while it is read."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Stat(NamedTuple):
    """What tells one content of a file from another, without reading it."""

    size: int
    mtime_ns: int
    inode: int


class Absent(Exception):
    """There is no document that could be read at a path; `kind` is that of a finding."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def stat_of(found: os.stat_result) -> Stat:
    """The part of it that is compared; the inode as SQLite can hold it."""
    return Stat(found.st_size, found.st_mtime_ns, found.st_ino & (2**63 - 1))


def shown(path: str | bytes) -> str:
    """A path as text, also one whose bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def plain_parts(path: str) -> list[str]:
    """The components of a path from the archive's root. Raises `Absent` for one that leads elsewhere or nowhere."""
    parts = path.split("/")
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise Absent("document-outside", f"{shown(path)!r} is no path below the archive")
    return parts


class Below:
    """The documents below a directory that stays open. For one thread at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)

    def close(self) -> None:
        """Lets go of the directory."""
        os.close(self._root)

    def identity(self) -> tuple[int, int]:
        """What tells the directory from another that is mounted in its place."""
        found = os.fstat(self._root)
        return found.st_dev, found.st_ino

    def look(self, path: str) -> Stat:
        """What stands at a path. Raises `Absent`."""
        parts = plain_parts(path)
        folder = self._folder(parts)
        try:
            return self._regular(folder, parts[-1])
        finally:
            os.close(folder)

    def hash(self, path: str, tell: Callable[[], None] = lambda: None) -> tuple[Stat, str]:
        """The SHA-256 of a document, and what told that content from others while it was read.

        One that changes meanwhile is read again, `TRIES` times in all. `tell` is called every mebibyte. Raises
        `Absent`.
        """
        parts = plain_parts(path)
        for _ in range(TRIES):
            folder = self._folder(parts)
            try:
                before = self._regular(folder, parts[-1])
                read, length, digest = self._read(folder, parts[-1], tell)
                if before == read == self._regular(folder, parts[-1]) and length == before.size:
                    return before, digest
            finally:
                os.close(folder)
        raise Absent("document-unsettled", f"it changed while it was read, {TRIES} times")

    def _folder(self, parts: list[str]) -> int:
        descriptor = os.dup(self._root)
        for part in parts[:-1]:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                raise self._absent(error, descriptor, part) from error
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _absent(self, error: OSError, folder: int, name: str) -> Absent:
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and self._is_link(folder, name):
            return Absent("document-outside", f"{shown(name)!r} is a symbolic link, and links are not followed")
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return Absent("document-missing", "it is not there")
        if error.errno == errno.ENAMETOOLONG:
            return Absent("document-missing", "no file can have so long a name")
        return Absent("document-unreadable", error.strerror or str(error))

    @staticmethod
    def _is_link(folder: int, name: str) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def _regular(self, folder: int, name: str) -> Stat:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            raise self._absent(error, folder, name) from error
        if stat.S_ISLNK(found.st_mode):
            raise Absent("document-outside", f"{shown(name)!r} is a symbolic link, and links are not followed")
        if not stat.S_ISREG(found.st_mode):
            raise Absent("document-unreadable", "it is no regular file")
        return stat_of(found)

    def _read(self, folder: int, name: str, tell: Callable[[], None]) -> tuple[Stat, int, str]:
        try:
            descriptor = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            raise self._absent(error, folder, name) from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Absent("document-unreadable", "it is no regular file")
            digest, length = sha256(), 0
            while data := os.read(descriptor, CHUNK):
                digest.update(data)
                length += len(data)
                tell()
            return stat_of(os.fstat(descriptor)), length, digest.hexdigest()
        except OSError as error:
            raise Absent("document-unreadable", error.strerror or str(error)) from error
        finally:
            os.close(descriptor)
