"""One writer a store: a lock that the kernel releases when its owner dies.

The lock is `flock` on a file that stays; the file's text tells whoever is refused which process holds it, on which
host, since when. It is never stale: a dead owner's lock is free, whatever the file says.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from refold.clock import format_time, from_millis
from refold.errors import Locked, StorageFailed


class Holder(msgspec.Struct):
    """Who holds a lock."""

    pid: int
    host: str
    since: str


class Lock:
    """A lock that is held from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self, now: int) -> None:
        """Takes the lock at once; `now` (Unix milliseconds) is told to those who come later. Raises `Locked`."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageFailed(str(self.path), "opening the lock", str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = Holder(os.getpid(), socket.gethostname(), format_time(from_millis(now)))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        except BlockingIOError:
            text = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise self._refusal(text) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageFailed(str(self.path), "locking", str(error)) from error
        self._descriptor = descriptor

    def may_be_held(self) -> bool:
        """Whether the process that last took it may live. Taking the lock to find out would refuse a writer."""
        try:
            holder = msgspec.json.decode(self.path.read_bytes(), type=Holder)
            if holder.host == socket.gethostname():
                os.kill(holder.pid, 0)
        except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    def _refusal(self, text: bytes) -> Locked:
        try:
            holder = msgspec.json.decode(text, type=Holder)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            holder = Holder(0, "unknown", "unknown")
        return Locked(str(self.path), holder.pid, holder.host, holder.since)

    def release(self) -> None:
        """Gives the lock back."""
        if self._descriptor >= 0:
            with suppress(OSError):  # the text is for those who are refused, and for guesses
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
