"""An event, its canonical bytes, and the chain that lets a log prove itself.

An event is identified by its dot `(replica, seq)`. Its canonical bytes are the msgpack array of its fields in the
order below, maps sorted by key, so that equal events have equal bytes on every machine. `prev` is the SHA-256 of the
canonical bytes of the same replica's event before it (32 zero bytes for the first): whoever knows one head can prove
every earlier event of that replica, as in Haber and Stornetta, "How to Time-Stamp a Digital Document" (1991).

`position` says where the event stands in one log. It is local, so it is no part of the canonical bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from .errors import LogCorrupt

GENESIS = bytes(32)
"""What `prev` of a replica's first event is."""


class Kind(StrEnum):
    """What an event does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RESOLVE = "resolve"
    DEFINE = "define"
    TAG = "tag"
    RESTORE = "restore"


ARCHIVE = ""
"""The collection of what is said about the archive itself: the records `TAGS` and `RESTORES`, of a field each."""

TAGS = ARCHIVE, "tags"
"""A field is the name of a moment, its value the version vector that the log had then; null once it is taken back."""

TAG_NAME = re.compile(r"[^\W\d][\w.-]{0,99}")
"""A tag's name: nothing that could be taken for a time, a position or a version vector."""

RESTORES = ARCHIVE, "restores"
"""A field is the id under which a restored copy writes, its value what the copy was made of."""


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One immutable fact.

    `time` is a hybrid logical clock value (see `refold.clock`), `context` the version vector of the record that the
    writer had seen, `version` the collection's schema version, `batch` the seq of the last event that was written
    together with this one, `meta` free text about the write such as its reason, correlation and causation.
    """

    replica: str
    seq: int
    time: int
    kind: Kind
    collection: str
    key: str
    data: dict[str, Any]
    context: dict[str, int]
    actor: str
    version: int
    batch: int
    request_id: str | None
    meta: dict[str, str]
    prev: bytes
    position: int = 0

    @property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return sha256(canonical(self)).digest()

    @property
    def reason(self) -> str | None:
        """Why it was written, if the writer said so."""
        return self.meta.get("reason")

    @property
    def dot(self) -> tuple[str, int]:
        """Its identity, the same everywhere."""
        return self.replica, self.seq

    @property
    def record(self) -> tuple[str, str]:
        """The collection and key it is about; the key of a definition is empty."""
        return self.collection, self.key


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Event)
_HEADER = bytes([0x90 + len(Event.__struct_fields__) - 1])


def canonical(event: Event) -> bytes:
    """The bytes that are stored, hashed and exchanged: a msgpack array of all fields but `position`.

    An event without a position encodes as an array of one element more, whose last byte is that zero.
    """
    if event.position == 0:
        return _HEADER + _encoder.encode(event)[1:-1]
    return _encoder.encode(msgspec.structs.astuple(event)[:-1])


def seal(event: Event) -> tuple[bytes, bytes]:
    """The canonical bytes of an event and their hash."""
    body = canonical(event)
    return body, sha256(body).digest()


def decode(body: bytes, position: int = 0) -> Event:
    """The event that `body` encodes, standing at `position`.

    Raises `msgspec.DecodeError` (of which `ValidationError` is one) for bytes that encode no event.
    """
    event = _decoder.decode(body)
    if event.position != position:
        msgspec.structs.force_setattr(event, "position", position)
    return event


def stored_event(position: int, body: bytes) -> Event:
    """The event that a log holds at a position. Raises `LogCorrupt` for bytes that encode no event."""
    try:
        return decode(body, position)
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt(position, f"it does not decode as an event: {error}") from error


def is_event(data: bytes) -> bool:
    """Whether canonical bytes are those of an event: what else is stored beside events is a shorter array."""
    return data[:1] == _HEADER


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A replica's newest event in a log: its seq and its hash."""

    seq: int
    hash: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a projection has come: position, version vector, heads, and the digest of the state there.

    `digest` is None where the projection keeps no state of its own to take a digest of.
    """

    position: int = 0
    heads: Mapping[str, Head] = msgspec.field(default_factory=dict[str, Head])
    digest: int | None = 0

    @property
    def vector(self) -> dict[str, int]:
        """The highest seq of every replica."""
        return {replica: head.seq for replica, head in self.heads.items()}
