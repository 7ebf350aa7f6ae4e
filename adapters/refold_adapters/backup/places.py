"""The directory of backups: files that appear whole or not at all, and remains that are swept.

A file grows under a name that no reader looks at, is made durable, renamed, and the directory made durable. Whoever
writes holds the directory's lock, so what still has such a name then is of a process that died.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from refold.errors import StorageFailed
from refold_adapters.durable import make_directory, sync_directory
from refold_adapters.lock import Lock

HISTORY = "history.json"
_LOCK = "backups.lock"
_PARTIAL = ".partial"
_GROWING = f".backup{_PARTIAL}"


class Growing:
    """A file that is being written: what went into it, how much, and its SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        """Takes all of the bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Hands to the system what was written."""
        self._file.flush()

    @property
    def hash(self) -> str:
        """Of everything written so far."""
        return self._hash.hexdigest()


class stored:  # noqa: N801 - reads as the statement it is: with stored(path, "writing a backup")
    """Turns what the operating system raises into `StorageFailed`."""

    def __init__(self, path: Path, operation: str) -> None:
        self._path = path
        self._operation = operation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageFailed(str(self._path), self._operation, str(error)) from error


@contextmanager
def owned(directory: Path, now: int) -> Iterator[None]:
    """The directory, made if need be, while no other process writes into it, without what dead ones left there.

    Raises `Locked`, `StorageFailed`.
    """
    with stored(directory, "making the directory of backups"):
        make_directory(directory)
    lock = Lock(directory / _LOCK)
    lock.acquire(now)
    try:
        with stored(directory, "removing what was left there"):
            for name in os.listdir(directory):
                if name.startswith(".") and name.endswith(_PARTIAL):
                    (directory / name).unlink(missing_ok=True)
        yield
    finally:
        lock.release()


@contextmanager
def growing(directory: Path) -> Iterator[Growing]:
    """A new file for `publish`; it is gone when the block ends in an error. Raises `StorageFailed`."""
    path = directory / _GROWING
    try:
        with stored(path, "writing a backup"):
            file = path.open("wb", buffering=1 << 20)
        try:
            yield Growing(file)
            with stored(path, "writing a backup"):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with stored(path, "writing a backup"):
                file.close()
    except BaseException:
        with stored(path, "removing what was begun"):
            path.unlink(missing_ok=True)
        raise


def publish(directory: Path, name: str) -> Path:
    """Gives the file that has grown its name. Raises `StorageFailed`."""
    path = directory / name
    with stored(path, "publishing a backup"):
        (directory / _GROWING).replace(path)
        sync_directory(directory)
    return path


def replace_history(directory: Path, data: bytes) -> None:
    """Writes the history anew, so that the old or the new one is there. Raises `StorageFailed`."""
    beside = directory / f".{HISTORY}.{os.getpid()}{_PARTIAL}"
    with stored(directory / HISTORY, "writing the history"):
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(directory / HISTORY)
        finally:
            beside.unlink(missing_ok=True)
        sync_directory(directory)


class FileSource:
    """A file on the disk as a `Source`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with stored(path, "opening the backup"):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """See `Source.read_at`."""
        with stored(self._path, "reading the backup"):
            return os.pread(self._descriptor, size, offset)

    def hash(self, tell: Callable[[str, int], None] = lambda what, done: None) -> str:
        """SHA-256 of the whole file."""
        found = sha256()
        for at in range(0, self.size, 1 << 20):
            found.update(self.read_at(at, 1 << 20))
            tell("bytes", at)
        return found.hexdigest()

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)
