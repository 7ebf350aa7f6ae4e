"""When each piece of an archive was verified last: `refold-verified.json`, beside the log.

It says whose turn it is and nothing else, so it may be deleted at any time, and what cannot be read in it, or is about
another log, counts as never looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from refold.errors import StorageFailed
from refold.rota import Checked

from .durable import sync_directory

NAME = "refold-verified.json"
FORMAT = 1
_LIMIT = 64 << 20


class _Notes(msgspec.Struct):
    format: int
    replica: str
    pieces: dict[str, Checked]


def load_checked(root: Path, replica: str) -> dict[str, Checked]:
    """When each piece of the log of this replica, and of what was made of it, was looked at last."""
    try:
        with (root / NAME).open("rb") as file:
            notes = msgspec.json.decode(file.read(_LIMIT), type=_Notes)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return notes.pieces if (notes.format, notes.replica) == (FORMAT, replica) else {}


def save_checked(root: Path, replica: str, checked: dict[str, Checked]) -> None:
    """Notes it, in the place of what was noted before. Raises `StorageFailed`."""
    path, begun = root / NAME, root / f"{NAME}.refold"
    text = msgspec.json.encode(_Notes(FORMAT, replica, checked)) + b"\n"
    try:
        with begun.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        begun.replace(path)
        sync_directory(root)
    except OSError as error:
        raise StorageFailed(str(path), "noting what was verified", str(error)) from error
