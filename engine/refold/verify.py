"""Verification: what was found, and the check of the chain.

A replica's events form a chain over their canonical bytes, so the log proves itself: `ChainCheck` is fed every stored
event once, in the order of the log, and names the first that does not fit. It keeps one head a replica in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

import msgspec

from .events import Event, Head, canonical, decode

GENESIS = Head(0, bytes(32))


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is not as it should be; fields that say nothing are left out.

    Kinds: `log-rot` (an event does not decode, or is not in canonical form), `log-chain` (it does not follow its
    replica's event before), `log-order` (it stands before something it had seen), `log-cut` (the log ends before a head
    that is known), `log-position` (positions are not the unbroken run that appending makes), `table-altered`,
    `table-missing`, `table-stray`, `tables-behind`, and those of projections.
    """

    kind: str
    detail: str = ""
    position: int | None = None
    replica: str | None = None
    seq: int | None = None
    collection: str | None = None
    key: str | None = None
    folder: str | None = None
    file: str | None = None
    row: int | None = None


class Report(msgspec.Struct, frozen=True):
    """What a verification looked at and found."""

    findings: list[Finding]
    events: int

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return not self.findings


class ChainCheck:
    """Checks a log event by event; `heads` is where each replica stands so far."""

    def __init__(self, heads: Mapping[str, Head] | None = None) -> None:
        self.heads: dict[str, Head] = dict(heads or {})
        self.events = 0
        self._last = 0

    def feed(self, position: int, body: bytes) -> Iterator[Finding]:
        """What is wrong with the next stored event, if anything."""
        self.events += 1
        if position != self._last + 1:
            yield Finding("log-position", f"position {position} follows {self._last}", position=position)
        self._last = position
        try:
            event = decode(body, position)
            whole = canonical(event) == body
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError) as error:
            yield Finding("log-rot", f"the event does not decode: {error}", position=position)
            return
        if not whole:
            yield self._about(event, "log-rot", "the stored bytes are not canonical")
        yield from self.follow(event, sha256(body).digest())

    def follow(self, event: Event, digest: bytes) -> Iterator[Finding]:
        """What is wrong with where an event stands, if anything; `digest` is its hash."""
        head = self.heads.get(event.replica, GENESIS)
        if event.seq != head.seq + 1:
            yield self._about(event, "log-chain", f"seq {event.seq} follows {head.seq}")
        elif event.prev != head.hash:
            yield self._about(event, "log-chain", f"it does not follow the stored event {head.seq} of its replica")
        for replica, seq in event.context.items():
            if self.heads.get(replica, GENESIS).seq < seq:
                yield self._about(event, "log-order", f"it had seen {replica}:{seq}, which is not before it")
        self.heads[event.replica] = Head(event.seq, digest)

    def _about(self, event: Event, kind: str, detail: str) -> Finding:
        return Finding(
            kind,
            detail,
            position=event.position,
            replica=event.replica,
            seq=event.seq,
            collection=event.collection,
            key=event.key,
        )

    def close(self, heads: Mapping[str, Head], where: str) -> Iterator[Finding]:
        """What is missing or different by the heads that `where` remembers."""
        for replica, head in sorted(heads.items()):
            found = self.heads.get(replica, GENESIS)
            if found.seq < head.seq:
                detail = f"{where} knows seq {head.seq}, the log ends at {found.seq}"
                yield Finding("log-cut", detail, replica=replica, seq=found.seq + 1)
            elif found.seq == head.seq and found.hash != head.hash:
                detail = f"{where} knows another event as seq {head.seq}"
                yield Finding("log-chain", detail, replica=replica, seq=head.seq)
