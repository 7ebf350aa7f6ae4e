"""What a recovery reads from: anything that still holds events, however damaged.

A source yields what it finds in whatever order it can, a piece at a time: events that are canonical, dots that it
remembers without having the event, and damage, with the bytes it could make nothing of. It judges nothing else: which
events prove themselves is decided over all sources together (`union`, `chains`).

An event is *sealed* where it came with a hash or a checksum of its own that fits, as in a line of events.jsonl or a
whole segment of a share: rot cannot have made it. A row of a log is not; what proves it is its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Protocol

import msgspec

from refold.clock import MAX_MILLIS
from refold.errors import RefoldError
from refold.events import Event
from refold.intake import Intake
from refold.verify import Finding


class Found(msgspec.Struct, frozen=True):
    """An event with its canonical bytes and their hash."""

    event: Event
    body: bytes
    hash: bytes
    sealed: bool = False


class Known(msgspec.Struct, frozen=True):
    """A dot that `place` remembers as written, with the hash of its event unless that is empty."""

    replica: str
    seq: int
    hash: bytes
    place: str


class Damage(msgspec.Struct, frozen=True):
    """Something that is not as it should be, and the bytes that nothing could be made of."""

    finding: Finding
    raw: bytes = b""


Item = Found | Known | Damage


class Source(Protocol):
    """One thing to recover from."""

    @property
    def name(self) -> str:
        """What the user called it: a path, or a URL."""

    @property
    def label(self) -> str:
        """What it is called where no path of this machine belongs: in the log and in receipts."""

    @property
    def kind(self) -> str:
        """What it was taken for: `archive`, `folders`, `share`, …"""

    def events(self) -> Iterator[Item]:
        """What is in it, in any order, with bounded memory. Raises `StorageFailed` where it cannot be read at all."""


class Reading:
    """Bytes that are said to be events, on their way into a recovery."""

    def __init__(self) -> None:
        self._intake = Intake("", MAX_MILLIS, 0)

    def event(self, body: bytes, *, sealed: bool, finding: Finding) -> Found | Damage:
        """The event that the bytes are; else the damage, which is `finding` with why as its detail."""
        try:
            event = self._intake.event(body)
        except RefoldError as error:
            return Damage(msgspec.structs.replace(finding, detail=getattr(error, "why", str(error))), body)
        return Found(event, body, sha256(body).digest(), sealed)
