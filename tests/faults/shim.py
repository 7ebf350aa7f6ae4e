"""The shim as Python sees it: built with the C compiler of the machine, preloaded, and armed for one experiment."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
PRELOADED = "REFOLD_FAULTS_SHIM"


class Call(IntEnum):
    """What the shim can let fail or write down: some system calls under one name."""

    OPEN = 0
    READ = 1
    WRITE = 2
    TRUNCATE = 3
    FSYNC = 4
    SYNCFS = 5
    RENAME = 6
    LINK = 7
    UNLINK = 8
    MKDIR = 9
    RMDIR = 10
    MARK = 11


class Mode(IntEnum):
    """How: only counted, failing once, from then on, writing half, or writing half and failing from then on; or the
    process dies, before the call or when half is written."""

    COUNT = 0
    ONCE = 1
    ALWAYS = 2
    SHORT = 3
    HALF = 4
    KILL = 5
    TORN = 6


CHANGING = [call for call in Call if call not in {Call.OPEN, Call.READ, Call.MARK}]
"""The calls that change something, or make it durable."""


def compiler() -> str | None:
    """The C compiler of this machine."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def environment() -> dict[str, str]:
    """This process's environment with the shim preloaded, which is built where it is not there yet."""
    found = compiler()
    if found is None:
        raise RuntimeError("needs a C compiler")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"refold-faults-{os.getuid()}-{digest}.so"
    if not library.exists():
        with tempfile.NamedTemporaryFile(dir=library.parent, suffix=".so", delete=False) as file:
            command = [found, "-O1", "-shared", "-fPIC", "-o", file.name, str(SOURCE), "-ldl", "-lpthread"]
        subprocess.run(command, check=True)
        os.replace(file.name, library)
    return {**os.environ, "LD_PRELOAD": str(library), PRELOADED: str(library)}


class Shim:
    """The library that is preloaded into this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[PRELOADED])
        self._library.faults_seen.restype = ctypes.c_long
        self._library.faults_struck.restype = ctypes.c_char_p

    def inject(self, root: Path, call: Call, nth: int, mode: Mode, error: str = "EIO") -> None:
        """Lets calls on what is below `root` fail from now on."""
        number = getattr(errno, error)
        self._library.faults_inject(os.fsencode(root), 1 << call, ctypes.c_long(nth), number, int(mode))

    def kill(self, root: Path, nth: int, *, torn: bool) -> None:
        """Has this process die at the n-th call that changes something below `root`, or in the middle of its n-th
        write."""
        chosen = 1 << Call.WRITE if torn else sum(1 << call for call in CHANGING)
        how = Mode.TORN if torn else Mode.KILL
        self._library.faults_inject(os.fsencode(root), chosen, ctypes.c_long(nth), 0, int(how))

    def count(self, root: Path) -> None:
        """Counts the calls on what is below `root` from now on."""
        every = (1 << Call.MARK) - 1
        self._library.faults_inject(os.fsencode(root), every, ctypes.c_long(0), 0, int(Mode.COUNT))

    def trace(self, root: Path, file: Path) -> None:
        """Writes down what changes below `root` from now on."""
        self._library.faults_trace(os.fsencode(root), os.fsencode(file))

    def mark(self, text: str) -> None:
        """Writes a word of the process into the trace, between the calls."""
        self._library.faults_mark(text.encode())

    def stop(self) -> None:
        """Lets everything pass again."""
        self._library.faults_stop()

    def seen(self, call: Call) -> int:
        """How many such calls there were."""
        return int(self._library.faults_seen(int(call)))

    @property
    def struck(self) -> str:
        """The call that failed first, with its path; empty when none did."""
        return bytes(self._library.faults_struck()).decode(errors="replace")
