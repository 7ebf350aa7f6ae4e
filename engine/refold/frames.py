"""Frames: the messages of a sync session as bounded, checksummed, versioned bytes.

    frame = "rfs" version(1 byte) length(4) crc32(4) payload(length)

Numbers are big-endian; the checksum is of the payload, which is a msgpack array of the message's tag and fields. A
length beyond `FRAME_LIMIT`, another version or another start is refused when the twelve bytes of the header are read,
before anything is allocated for what they promise. The checksum finds accidents; against forgery each event stands in
its replica's hash chain.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from .errors import FormatUnknown, RefoldError
from .events import Head

VERSION = 1
MAGIC = b"rfs"
HEADER = 12

FRAME_EVENTS = 1000
"""Events of one frame, at most."""

FRAME_BYTES = 4 << 20
"""Bytes of events of one frame, unless a single event is larger."""

FRAME_LIMIT = 256 << 20
"""Bytes of a frame that is not refused."""


@dataclass(eq=False)
class FrameRefused(RefoldError):
    """Bytes that are no frame, or a message that has no place where it came."""

    code: ClassVar[str] = "bad-frame"
    message: ClassVar[str] = "the peer sent what cannot be taken: {why}"
    hint: ClassVar[str] = "what was taken in before it is kept; sync again, and mend the peer if it happens again"
    why: str


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first message of each side: who it is, its wall clock in Unix milliseconds if it has one, its heads."""

    replica: str
    wall: int | None
    heads: dict[str, Head]


class Events(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Events that the other side lacks, as canonical bytes, in the order of the sender's log."""

    bodies: list[bytes]


class Done(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """All events have been sent; so many they were."""

    sent: int


class Result(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """What the sender's log holds once it has taken in everything; the digest is None where there is no state."""

    heads: dict[str, Head]
    digest: str | None


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The session ends for this reason: an error's code, message and fields."""

    code: str
    message: str
    fields: dict[str, Any]


Message = Hello | Events | Done | Result | Refused

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Message).decode


def to_frame(message: Message) -> bytes:
    """A message as a frame. Raises `FrameRefused` for one that nobody would take."""
    payload = _encode(message)
    if len(payload) > FRAME_LIMIT:
        raise FrameRefused(f"{len(payload)} bytes are more than the {FRAME_LIMIT} that a frame can have")
    return b"".join(
        (MAGIC, bytes([VERSION]), len(payload).to_bytes(4, "big"), zlib.crc32(payload).to_bytes(4, "big"), payload)
    )


def payload_size(header: bytes) -> int:
    """How many bytes follow a frame's header. Raises `FrameRefused`, and `FormatUnknown` for another version."""
    if len(header) < HEADER or header[:3] != MAGIC:
        raise FrameRefused("it does not start as a frame does")
    if header[3] != VERSION:
        raise FormatUnknown("the peer", f"version {header[3]} of sync", f"version {VERSION}")
    size = int.from_bytes(header[4:8], "big")
    if size > FRAME_LIMIT:
        raise FrameRefused(f"a frame of {size} bytes is announced, the limit is {FRAME_LIMIT}")
    return size


def from_frame(frame: bytes) -> Message:
    """The message of a whole frame. Raises as `payload_size` does."""
    size = payload_size(frame[:HEADER])
    payload = memoryview(frame)[HEADER:]
    if len(payload) != size:
        raise FrameRefused(f"a frame of {size} bytes has {len(payload)}")
    if zlib.crc32(payload) != int.from_bytes(frame[8:HEADER], "big"):
        raise FrameRefused("a frame's checksum is not that of its bytes")
    try:
        message: Message = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameRefused(f"a frame holds no message: {error}") from None
    if isinstance(message, Refused):
        try:
            _encode(message)
        except TypeError as error:
            raise FrameRefused(f"a refusal has fields of no JSON: {error}") from None
    if isinstance(message, Events) and len(message.bodies) > FRAME_EVENTS:
        raise FrameRefused(f"{len(message.bodies)} events are more than the {FRAME_EVENTS} of a frame")
    return message
