"""One writer a store: a lock that the kernel releases when its owner dies.

The lock is `flock` on a file that stays; the file's text tells whoever is refused which process holds it, on which
host, since when. It is never stale: a dead owner's lock is free, whatever the file says.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
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


PAUSE_SECONDS = 0.1
"""How often whoever waits for a lock asks for it."""


class Lock:
    """A lock that is held from `acquire` to `release`. `left` is who held it last, and died without giving it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left: Holder | None = None
        self._descriptor = -1

    def acquire(self, now: int) -> None:
        """Takes the lock at once; `now` (Unix milliseconds) is told to those who come later. Raises `Locked`."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageFailed(str(self.path), "opening the lock", str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.left = _holder(os.pread(descriptor, 4096, 0))
            holder = Holder(os.getpid(), os.uname().nodename, format_time(from_millis(now)))
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
            if holder.host == os.uname().nodename:
                os.kill(holder.pid, 0)
        except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    def acquire_within(
        self,
        seconds: float,
        clock: Callable[[], int],
        *,
        waiting: Callable[[Locked], None] = lambda refusal: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Takes the lock, for which it waits so long; `waiting` is told once who holds it. Raises `Locked`.

        `clock` tells Unix milliseconds. For code that may block.
        """
        deadline = clock() + round(seconds * 1000)
        told = False
        while True:
            try:
                return self.acquire(clock())
            except Locked as refusal:
                if clock() >= deadline:
                    raise
                if not told:
                    waiting(refusal)
                told = True
            pause(PAUSE_SECONDS)

    def _refusal(self, text: bytes) -> Locked:
        holder = _holder(text) or Holder(0, "unknown", "unknown")
        return Locked(str(self.path), holder.pid, holder.host, holder.since)

    def release(self) -> None:
        """Gives the lock back."""
        if self._descriptor >= 0:
            with suppress(OSError):  # the text is for those who are refused, and for guesses
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(text: bytes) -> Holder | None:
    """Who a lock's text names; None where it names nobody."""
    try:
        return msgspec.json.decode(text, type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
