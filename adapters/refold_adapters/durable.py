"""Names that outlive a power cut: a directory entry is durable once the directory that it stands in was synced.

POSIX promises no more, and file systems differ in what they do beyond it (Pillai et al., "All File Systems Are Not
Created Equal", OSDI 2014): a synced file whose name was never synced may be gone with its whole directory, and two
names may come back in another order than they were given in.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: what was made, renamed or removed there before."""
    sync_file(path)


def sync_file(path: Path) -> None:
    """Makes durable what was written to a file, by whoever it was."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Makes a directory, and those above it, where they are missing, and their names durable."""
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copies the bytes of a small file; they are durable on return, the name with the next sync of its directory."""
    with target.open("wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())
