"""A sync session as a state machine: frames in, effects out. It does no I/O and reads no clock.

    each side:  Hello -> (prove the common prefix) -> Events* Done -> (apply everything) -> Result

Vectors say what the other lacks, so it takes one exchange to know everything that has to be sent, and a session that
breaks off anywhere is taken up by the next one from whatever was applied. What both know has to be the same: a side
that knows at least as much of a replica as the other compares the other's head with its own event at that seq. Where
it knows less, the events that come say it: each names the hash of the one before, and the log takes no other. By the
chain, equal hashes at one seq are equal events up to it, so both sides end with the union of two logs that agree
wherever they overlap, or know the two heads that do not (`EventForked`).

Afterwards the sides tell each other their heads and digests. The state is a function of the event set, so equal heads
with unequal digests are a fault of one side's tables, and are not passed over in silence.

The caller performs effects in their order, and answers `Prove` by `proved`, `Serve` by `served` once everything has
been sent, `Conclude` by `concluded`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import msgspec

from .errors import EventForked, EventsMissing, RefoldError
from .events import Head
from .frames import Done, Events, FrameRefused, Hello, Refused, Result, from_frame, to_frame

MAX_SKEW = 5 * 60 * 1000
"""Milliseconds that a peer's clock, or the time of an event, may be ahead of ours."""


@dataclass(eq=False)
class ClockAhead(RefoldError):
    """A peer's clock, or an event's time, is further ahead than is allowed."""

    code: ClassVar[str] = "clock-ahead"
    message: ClassVar[str] = "{whose} is {skew} ms ahead of this clock; {bound} ms are allowed"
    hint: ClassVar[str] = "set the clocks of both machines; nothing of what is ahead was taken in"
    whose: str
    skew: int
    bound: int


@dataclass(eq=False)
class DigestDiffers(RefoldError):
    """Two sides hold the same events and do not agree on the state that they make."""

    code: ClassVar[str] = "digest-differs"
    message: ClassVar[str] = "this side and {peer} hold the same events, with digests {ours} and {theirs}"
    hint: ClassVar[str] = "run `refold verify` on both sides: the tables of one are not what its log says"
    peer: str
    ours: str
    theirs: str


@dataclass(eq=False)
class PeerRefused(RefoldError):
    """The other side ended the session."""

    code: ClassVar[str] = "peer-refused"
    message: ClassVar[str] = "the peer refused: {why}"
    hint: ClassVar[str] = "what was taken in on either side before is kept; mend the cause and sync again"
    why: str
    reason: str


class Standing(msgspec.Struct, frozen=True):
    """Where one side stands when a session begins: its id, its heads, and its wall clock in ms if it has one."""

    replica: str
    wall: int | None
    heads: Mapping[str, Head]


class Send(msgspec.Struct, frozen=True):
    """Hand this frame to the peer."""

    frame: bytes


class Prove(msgspec.Struct, frozen=True):
    """Look up the hashes of our own events with these dots, and call `proved`."""

    dots: list[tuple[str, int]]


class Serve(msgspec.Struct, frozen=True):
    """Send all that this vector does not cover, as far as our log goes now, beside what follows; then `served`."""

    vector: dict[str, int]


class Apply(msgspec.Struct, frozen=True):
    """Take in these events."""

    bodies: list[bytes]


class Conclude(msgspec.Struct, frozen=True):
    """Take in what is left, and call `concluded` with the heads and the digest then."""


Effect = Send | Prove | Serve | Apply | Conclude


class Phase(Enum):
    """What a session waits for."""

    HELLO = "hello"
    PROOF = "proof"
    EVENTS = "events"
    RESULT = "result"
    FINISHED = "finished"


class Session:
    """One side of a conversation; both sides run the same machine."""

    def __init__(self, standing: Standing, *, max_skew: int = MAX_SKEW) -> None:
        self.standing = standing
        self.phase = Phase.HELLO
        self.peer = ""
        self.related = True
        self.received = 0
        self._max_skew = max_skew
        self._heads: dict[str, Head] = {}
        self._served = self._done = False
        self._mine: Result | None = None
        self._theirs: Result | None = None

    @property
    def finished(self) -> bool:
        """Whether both sides have said all there is to say."""
        return self.phase is Phase.FINISHED

    @property
    def heard(self) -> bool:
        """Whether the peer has said all it has to say."""
        return self._theirs is not None

    def begin(self) -> list[Effect]:
        """What a session starts with."""
        standing = self.standing
        return [Send(to_frame(Hello(standing.replica, standing.wall, dict(standing.heads))))]

    def refuse(self, error: RefoldError) -> bytes:
        """The frame that tells the peer why the session ends."""
        fields = {name: value for name, value in error.fields().items() if isinstance(value, str | int | list)}
        return to_frame(Refused(error.code, str(error), fields))

    def receive(self, frame: bytes) -> list[Effect]:
        """What a frame calls for. Raises what the peer has to be refused for, or has refused us for."""
        message = from_frame(frame)
        match message:
            case Refused():
                raise _refusal(message)
            case Hello() if self.phase is Phase.HELLO:
                return self._greet(message)
            case Events() if self.phase is Phase.EVENTS and not self._done:
                self.received += len(message.bodies)
                return [Apply(message.bodies)]
            case Done() if self.phase is Phase.EVENTS and not self._done:
                if message.sent != self.received:
                    raise FrameRefused(f"{message.sent} events are said to be sent, {self.received} came")
                self._done = True
                return self._conclude()
            case Result() if self._done and self._theirs is None:
                self._theirs = message
                return self._compare()
            case _:
                raise FrameRefused(f"{type(message).__name__} has no place while waiting for {self.phase.value}")

    def _greet(self, hello: Hello) -> list[Effect]:
        self.peer = hello.replica
        if hello.wall is not None and self.standing.wall is not None:
            skew = hello.wall - self.standing.wall
            if skew > self._max_skew:
                raise ClockAhead(f"the clock of {hello.replica}", skew, self._max_skew)
        ours = self.standing.heads
        if any(head.seq < 1 or len(head.hash) != 32 for head in hello.heads.values()):
            raise FrameRefused("a head that no event has")
        self._heads = hello.heads
        self.related = not ours or not hello.heads or not ours.keys().isdisjoint(hello.heads)
        common = [
            (replica, head.seq)
            for replica, head in sorted(hello.heads.items())
            if replica in ours and head.seq <= ours[replica].seq and head != ours[replica]
        ]
        self.phase = Phase.PROOF
        return [Prove(common)] if common else self.proved({})

    def proved(self, hashes: Mapping[str, bytes]) -> list[Effect]:
        """Goes on once our hashes at the peer's heads are known, by replica. Raises `EventForked`."""
        for replica, ours in hashes.items():
            head = self._heads[replica]
            if ours != head.hash:
                raise EventForked(replica, head.seq, ours.hex(), head.hash.hex())
        self.phase = Phase.EVENTS
        return [Serve({replica: head.seq for replica, head in self._heads.items()})]

    def served(self, sent: int) -> list[Effect]:
        """Goes on once everything has been sent."""
        self._served = True
        return [Send(to_frame(Done(sent))), *self._conclude()]

    def _conclude(self) -> list[Effect]:
        if not (self._served and self._done):
            return []
        self.phase = Phase.RESULT
        return [Conclude()]

    def concluded(self, heads: Mapping[str, Head], digest: str | None) -> list[Effect]:
        """Goes on once everything is taken in. Raises `DigestDiffers`."""
        self._mine = Result(dict(heads), digest)
        return [Send(to_frame(self._mine)), *self._compare()]

    def _compare(self) -> list[Effect]:
        mine, theirs = self._mine, self._theirs
        if mine is None or theirs is None:
            return []
        for replica in mine.heads.keys() & theirs.heads.keys():
            one, other = mine.heads[replica], theirs.heads[replica]
            if one.seq == other.seq and one.hash != other.hash:
                raise EventForked(replica, one.seq, one.hash.hex(), other.hash.hex())
        if mine.heads == theirs.heads and None not in {mine.digest, theirs.digest} and mine.digest != theirs.digest:
            raise DigestDiffers(self.peer, str(mine.digest), str(theirs.digest))
        self.phase = Phase.FINISHED
        return []


_SHARED: dict[str, Any] = {kind.code: kind for kind in (EventForked, EventsMissing)}


def _refusal(refused: Refused) -> RefoldError:
    """The error that the other side found, if it is one of both sides, seen from here; else that it refused."""
    kind = _SHARED.get(refused.code)
    fields = refused.fields
    if kind is EventForked and fields.keys() == {"replica", "seq", "ours", "theirs"}:
        return EventForked(fields["replica"], fields["seq"], fields["theirs"], fields["ours"])
    if kind is EventsMissing and isinstance(fields.get("missing"), list):
        return EventsMissing(fields["missing"])
    return PeerRefused(refused.message, refused.code)
