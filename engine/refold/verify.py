"""The check of the chain, and of what others know of it.

A replica's events form a chain over their canonical bytes, so the log proves itself: `ChainCheck` is fed every stored
event once, in the order of the log, and names the first that does not fit. It keeps one head a replica in memory.

An event whose bytes were altered does not fit the event after it: either its own hash is wrong, or what the later one
says it is. Which of them is told by the one after both, so a break in the chain is named one event later. What a chain
cannot show is that its end is missing, or that all of it was written anew: for that there are witnesses, who remember
heads, and `Testimony` holds what they say against the log.

Sound events are looked at only as far as the chain needs: their data are bound by their hashes and are not decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from .events import Event, Head, Kind, canonical, decode
from .verdict import FINDINGS_LIMIT, Finding, Report

__all__ = ["GENESIS", "ChainCheck", "Claim", "Finding", "Report", "Testimony"]

GENESIS = Head(0, bytes(32))


class _Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the chain needs of an event; the fields are `Event`'s, and the others are not decoded."""

    replica: str
    seq: int
    time: int
    kind: Kind
    collection: str
    key: str
    data: msgspec.Raw
    context: dict[str, int]
    actor: msgspec.Raw
    version: int
    batch: msgspec.Raw
    request_id: msgspec.Raw
    meta: msgspec.Raw
    prev: bytes


_link = msgspec.msgpack.Decoder(_Link).decode


class _Stored(NamedTuple):
    """An event as it stands in the log."""

    link: _Link
    position: int
    body: bytes

    def finding(self, kind: str, detail: str) -> Finding:
        link = self.link
        return Finding(kind, detail, self.position, link.replica, link.seq, link.collection, link.key)


class ChainCheck:
    """Checks a log event by event.

    `heads` is where each replica stands so far, `rotten` holds the findings about events that do not decode and whose
    dots are not known yet, `versions` the highest schema version above 1 of each collection's events. `heads` and
    `after` let it begin in the middle: where the replicas stood, and the position.
    """

    def __init__(self, heads: Mapping[str, Head] | None = None, after: int = 0) -> None:
        self.heads: dict[str, Head] = dict(heads or {})
        self.events = 0
        self.versions: dict[str, int] = {}
        self._last = after
        self._newest: dict[str, _Stored] = {}
        self._suspects: dict[str, _Stored] = {}
        self.rotten: list[Finding] = []

    def feed_all(self, bodies: Sequence[tuple[int, bytes]]) -> list[Finding]:
        """What is wrong with the next stored events, if anything."""
        findings: list[Finding] = []
        heads, newest = self.heads, self._newest
        for position, body in bodies:
            try:
                link = _link(body)
            except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError):
                findings += self.feed(position, body)
                continue
            replica, seq = link.replica, link.seq
            head = heads.get(replica, GENESIS)
            fits = position == self._last + 1 and seq == head.seq + 1 and link.prev == head.hash
            if not fits or self._suspects or self.rotten:
                findings += self.feed(position, body)
                continue
            stored = _Stored(link, position, body)
            if link.context:
                findings += self._early(stored)
            self._last = position
            self.events += 1
            heads[replica] = Head(seq, sha256(body).digest())
            if link.version > 1:
                self._meet(link)
            newest[replica] = stored
        return findings

    def _meet(self, link: _Link) -> None:
        if link.key:
            self.versions[link.collection] = max(link.version, self.versions.get(link.collection, 1))

    def feed(self, position: int, body: bytes) -> Iterator[Finding]:
        """What is wrong with the next stored event, if anything; a break in the chain is told with the next but one."""
        self.events += 1
        if position != self._last + 1:
            yield Finding("log-position", f"position {position} follows {self._last}", position=position)
        self._last = position
        try:
            link = _link(body)
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError) as error:
            self.rotten.append(Finding("log-rot", f"the event does not decode: {error}", position=position))
            return
        stored = _Stored(link, position, body)
        self._meet(link)
        yield from self._follow(stored)
        if not self.rotten:
            yield from self._early(stored)
        self.heads[link.replica] = Head(link.seq, sha256(body).digest())
        self._newest[link.replica] = stored

    def _follow(self, stored: _Stored) -> Iterator[Finding]:
        link = stored.link
        head = self.heads.get(link.replica, GENESIS)
        suspect = self._suspects.pop(link.replica, None)
        if link.seq != head.seq + 1:
            if suspect is not None:
                yield _altered(suspect)
            if self.rotten and link.seq == head.seq + 2:
                rotten = self.rotten.pop(0)
                yield msgspec.structs.replace(rotten, replica=link.replica, seq=link.seq - 1)
            else:
                yield stored.finding("log-chain", f"seq {link.seq} follows {head.seq}")
        elif link.prev != head.hash:
            before = self._newest.get(link.replica)
            if before is None:
                detail = f"it does not follow the stored event {head.seq} of its replica"
                yield stored.finding("log-chain", detail)
            elif suspect is not None:
                yield _altered(before)
            else:
                self._suspects[link.replica] = before
        elif suspect is not None:
            yield _altered(suspect)

    def _early(self, stored: _Stored) -> list[Finding]:
        return [
            stored.finding("log-order", f"it had seen {replica}:{seq}, which is not before it")
            for replica, seq in stored.link.context.items()
            if self.heads.get(replica, GENESIS).seq < seq
        ]

    def follow(self, event: Event, digest: bytes) -> Iterator[Finding]:
        """What is wrong with where a decoded event stands, told at once; `digest` is its hash."""
        head = self.heads.get(event.replica, GENESIS)
        at = event.position, event.replica, event.seq, event.collection, event.key
        if event.seq != head.seq + 1:
            yield Finding("log-chain", f"seq {event.seq} follows {head.seq}", *at)
        elif event.prev != head.hash:
            yield Finding("log-chain", f"it does not follow the stored event {head.seq} of its replica", *at)
        for replica, seq in event.context.items():
            if self.heads.get(replica, GENESIS).seq < seq:
                yield Finding("log-order", f"it had seen {replica}:{seq}, which is not before it", *at)
        self.heads[event.replica] = Head(event.seq, digest)

    def finish(self, known: Mapping[str, Head] | None = None) -> Iterator[Finding]:
        """What can be said only once the last event was fed; `known` are heads that tell which of two was altered."""
        yield from self.rotten
        for replica, suspect in self._suspects.items():
            head = (known or {}).get(replica)
            newest = self._newest[replica]
            newer = head is not None and head.seq == newest.link.seq and head.hash != self.heads[replica].hash
            yield _altered(newest if newer else suspect)
        self.rotten, self._suspects = [], {}
        for stored in self._newest.values():
            finding = _unsound(stored)
            if finding is not None:
                yield finding

    def close(self, heads: Mapping[str, Head], where: str) -> Iterator[Finding]:
        """What is missing or different by the heads that `where`, a part of the archive, remembers."""
        testimony = Testimony(self.heads)
        testimony.hear([Claim(where, replica, head) for replica, head in sorted(heads.items())])
        yield from testimony.findings()


def _altered(stored: _Stored) -> Finding:
    return stored.finding("log-rot", f"its hash is not the one that seq {stored.link.seq + 1} of its replica follows")


def _unsound(stored: _Stored) -> Finding | None:
    """What is wrong with the newest event of a replica in itself: nothing follows it that would show it."""
    try:
        whole = canonical(decode(stored.body)) == stored.body
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError) as error:
        return stored.finding("log-rot", f"the event does not decode: {error}")
    return None if whole else stored.finding("log-rot", "the stored bytes are not canonical")


class Claim(NamedTuple):
    """What a witness remembers of a replica; a hash of no bytes where it remembers the seq alone.

    A `foreign` witness is no part of the archive, and is named so that it can be asked for what is missing.
    """

    witness: str
    replica: str
    head: Head
    foreign: bool = False


class Testimony:
    """Holds what witnesses remember against the log's heads; one finding a replica, kind and group of witnesses.

    Where the event that a witness knows otherwise has successors, somebody wrote on after it, and the log forked. The
    newest event may as well be altered, which is what one of the archive's own parts means by it.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        self._heads = heads
        self._found: dict[tuple[str, str, str], tuple[Claim, int]] = {}

    def hear(self, claims: Iterable[Claim]) -> list[Claim]:
        """Takes in some claims; those about events that have successors are returned, to be compared."""
        older: list[Claim] = []
        for claim in claims:
            head = self._heads.get(claim.replica, GENESIS)
            if head.seq < claim.head.seq:
                self._note("log-cut", claim)
            elif not claim.head.hash:
                continue
            elif head.seq > claim.head.seq:
                older.append(claim)
            elif head.hash != claim.head.hash:
                self._note("log-fork" if claim.foreign else "log-rot", claim)
        return older

    def compare(self, claims: Iterable[Claim], hashes: Mapping[tuple[str, int], bytes]) -> None:
        """Holds claims against the hashes of the log's events at their dots."""
        for claim in claims:
            if hashes.get((claim.replica, claim.head.seq)) != claim.head.hash:
                self._note("log-fork", claim)

    def _note(self, kind: str, claim: Claim) -> None:
        group = kind, claim.replica, claim.witness if claim.foreign else ""
        known, count = self._found.get(group, (claim, 0))
        least = claim.head.seq < known.head.seq
        if least != (kind == "log-cut"):
            known = claim
        if group in self._found or len(self._found) < FINDINGS_LIMIT:
            self._found[group] = known, count + 1

    def findings(self) -> Iterator[Finding]:
        """What is missing or different: the first event that is, by the witness that knows most."""
        for (kind, replica, _), (claim, count) in sorted(self._found.items()):
            end, seq = self._heads.get(replica, GENESIS).seq, claim.head.seq
            others = f", and so do {count - 1} others" if count > 1 else ""
            if kind == "log-cut":
                detail = f"{claim.witness} knows seq {seq}, the log ends at {end}{others}"
            else:
                detail = f"{claim.witness} knows another event as seq {seq}{others}"
            yield Finding(
                kind,
                detail,
                replica=replica,
                seq=end + 1 if kind == "log-cut" else seq,
                witness=claim.witness if claim.foreign else None,
            )
