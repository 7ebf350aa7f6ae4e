"""Where a client stands that pulls page by page: a cursor, as text that only the log that gave it understands. Pure.

Positions are local to one log, so a cursor names the log it is of: its owner, and the hash of the event at the last
position that the cursor speaks of. A copy that writes under an id of its own, a log that was cut, and one that was
rebuilt in another order each answer that it is not theirs, and never with a gap.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from zlib import crc32

import msgspec

from .errors import CursorRefused
from .events import Event

_VERSION = 1
_LONGEST = 2000


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far a client has come.

    It holds the state of its collections as of `since`. `upto` is the position that the pull under way leads to, 0
    between two pulls; of that pull it has what stands before `collection`, and in it what stands up to `at`. `total`
    and `left` count the records of that pull. `log` and `scope` are what tells the log, and what was asked of it.
    """

    since: int = 0
    upto: int = 0
    collection: str = ""
    at: int = 0
    total: int = 0
    left: int = 0
    log: bytes = b""
    scope: bytes = b""
    version: int = _VERSION

    @property
    def end(self) -> int:
        """The last position that it speaks of."""
        return self.upto or self.since


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cursor).decode


def log_mark(owner: str, last: Event | None) -> bytes:
    """What tells a log, up to its event `last`, from any other."""
    return sha256(owner.encode() + b"\0" + (last.hash if last is not None else b"")).digest()[:16]


def scope_mark(collections: Sequence[str], priority: str) -> bytes:
    """What tells a pull of these collections from pulls of others."""
    return sha256(_encode([sorted(set(collections)), priority])).digest()[:8]


def format_cursor(cursor: Cursor) -> str:
    """The text of a cursor: letters, digits, - and _."""
    body = _encode(cursor)
    return urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def parse_cursor(text: str, scope: bytes) -> Cursor:
    """The cursor that a text stands for, in a pull of this scope. Raises `CursorRefused`."""
    if not text:
        return Cursor(scope=scope)
    shown = text if len(text) <= 80 else f"{text[:80]}..."
    cursor = _decoded(text) if len(text) <= _LONGEST else None
    if cursor is None or cursor.version != _VERSION or not _makes_sense(cursor):
        raise CursorRefused(shown, "is none that a page ended with")
    if cursor.scope != scope:
        raise CursorRefused(shown, "is of a pull of other collections, or of another priority")
    return cursor


def _decoded(text: str) -> Cursor | None:
    """The cursor whose text this is, to the letter; None where there is none."""
    try:
        cursor = _decode(urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))[4:])
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return cursor if format_cursor(cursor) == text else None


def _makes_sense(cursor: Cursor) -> bool:
    if cursor.upto == 0:
        return cursor.since > 0 and not cursor.collection
    return 0 <= cursor.since < cursor.upto and 0 < cursor.at <= cursor.upto and 0 < cursor.left < cursor.total
