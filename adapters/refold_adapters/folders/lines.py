"""An event as a line of JSON, for people and for whoever has to rebuild a log from its folders.

The line holds every field of the event but its position, which is local, and its hash besides: so a line proves
itself, and needs neither its file nor its neighbours to be believed. The log holds JSON types alone, and a double is
written with the shortest digits that read back as the same double, so the canonical bytes can be made again exactly.
A time is spelt for people, RFC 3339 with milliseconds, and the clock's counter stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from refold.clock import COUNTER_BITS, TimeTextError, format_time, from_millis, parse_time
from refold.errors import RefoldError
from refold.events import Event, Kind, canonical

_SECOND = 1000 << COUNTER_BITS
_COUNTER_MASK = (1 << COUNTER_BITS) - 1


@dataclass(eq=False)
class LineRefused(RefoldError):
    """A line that is no event, or not the event that it was."""

    code: ClassVar[str] = "bad-line"
    message: ClassVar[str] = "{folder}/events.jsonl, line {line}: {why}"
    hint: ClassVar[str] = "the same event may stand whole in another copy of the archive; `refold verify` says more"
    folder: str
    line: int
    why: str


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """What a line holds, in the order in which it is written."""

    time: str
    counter: int
    replica: str
    seq: int
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
    prev: str
    hash: str


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Line).decode


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return format_time(second * _SECOND)[: -len("000Z")]


def stamp(time: int) -> str:
    """The same as `format_time`, for times that come close to one another."""
    second, rest = divmod(time, _SECOND)
    return f"{_second(second)}{rest >> COUNTER_BITS:03}Z"


def line_of(event: Event, digest: bytes) -> bytes:
    """The line of an event whose hash is `digest`, with its line end."""
    line = Line(
        stamp(event.time),
        event.time & _COUNTER_MASK,
        event.replica,
        event.seq,
        event.kind,
        event.collection,
        event.key,
        event.data,
        event.context,
        event.actor,
        event.version,
        event.batch,
        event.request_id,
        event.meta,
        event.prev.hex(),
        digest.hex(),
    )
    return _encode(line) + b"\n"


def to_line(event: Event) -> bytes:
    """The line of an event, with its line end."""
    return line_of(event, event.hash)


def from_line(text: bytes) -> Event:
    """The event of a line. Raises `LineRefused` when it does not parse or its hash does not fit."""
    return proved(text)[0]


def proved(text: bytes) -> tuple[Event, bytes, bytes]:
    """The event of a line, its canonical bytes and its hash. Raises `LineRefused`."""
    try:
        line = _decode(text)
        if not 0 <= line.counter <= _COUNTER_MASK:
            raise LineRefused("", 0, f"counter {line.counter} is out of range")
        event = Event(
            line.replica,
            line.seq,
            from_millis(parse_time(line.time)) | line.counter,
            line.kind,
            line.collection,
            line.key,
            line.data,
            line.context,
            line.actor,
            line.version,
            line.batch,
            line.request_id,
            line.meta,
            bytes.fromhex(line.prev),
        )
        body = canonical(event)
    except (msgspec.DecodeError, TimeTextError, ValueError, OverflowError, RecursionError) as error:
        raise LineRefused("", 0, f"it is no event: {error}") from None
    digest = sha256(body).digest()
    if digest.hex() != line.hash:
        raise LineRefused("", 0, f"its hash is {digest.hex()}, and not {line.hash} as it says")
    return event, body, digest
