"""Sync sessions over peers: performs what `refold.session` asks for.

A side of a session is a `Side`: the archive of an engine, or anything else that holds events and can take them. Sending
and taking in go on at the same time, so neither side waits for the other to read; the pipe between two sides in one
process is bounded, and so are the pages read from a log. What was applied stays applied: a session that fails is taken
up by the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec

from .errors import RefoldError
from .events import Head
from .frames import FRAME_BYTES, FRAME_EVENTS, Events, to_frame
from .installed import installed
from .intake import Taken
from .ports import Peer
from .session import MAX_SKEW, Apply, Conclude, Effect, PeerRefused, Prove, Send, Serve, Session, Standing

GROUP = "refold.peers"

PIPE_FRAMES = 4
"""Frames that may be on their way between two sides in one process."""

Tell = Callable[[str, int], None]


def silent(what: str, done: int) -> None:
    """A `Tell` that nobody listens to."""


@dataclass(eq=False)
class SyncInterrupted(RefoldError):
    """The peer went away in the middle of a session."""

    code: ClassVar[str] = "sync-interrupted"
    message: ClassVar[str] = "the session with {peer} ended before it was finished"
    hint: ClassVar[str] = "what was taken in is kept; sync again to go on from there"
    peer: str


class SyncReport(msgspec.Struct, frozen=True):
    """What a session did on this side.

    `sent` and `received` count events. `merged` counts the records that both sides had written apart: of these,
    `conflicts` have a conflict that is open now, and the others are settled. `related` tells whether the two logs had a
    replica in common, or one was empty: if not, two archives met that had nothing to do with each other.
    """

    peer: str
    sent: int
    received: int
    merged: int
    conflicts: int
    related: bool


class Side(Protocol):
    """What a session needs of the log that it syncs."""

    async def standing(self) -> tuple[Standing, int]:
        """Where it stands, and the position at which its log ends."""

    async def hashes(self, dots: Sequence[tuple[str, int]]) -> dict[str, bytes]:
        """The hashes of events that it holds, by replica; each replica is asked for once."""

    async def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        """See `Changelog.since`."""

    async def take(self, bodies: Sequence[bytes] | None, peer: str, max_skew: int) -> Taken:
        """Takes in events; None says that there are no more to come."""

    async def conclusion(self) -> tuple[Mapping[str, Head], str | None]:
        """The heads and the digest of what it holds."""


class _Dot(msgspec.Struct, array_like=True):
    replica: str
    seq: int


_dot = msgspec.msgpack.Decoder(_Dot).decode


class Conversation:
    """One side of a session over a peer."""

    def __init__(self, side: Side, peer: Peer, *, max_skew: int = MAX_SKEW, tell: Tell = silent) -> None:
        self._side = side
        self._peer = peer
        self._max_skew = max_skew
        self._tell = tell
        self._taken = Taken()
        self._sent = 0
        self._end = 0
        self._turn = asyncio.Lock()

    async def run(self) -> SyncReport:
        """The whole session. Raises what it was ended for; the peer is told."""
        standing, self._end = await self._side.standing()
        self._session = session = Session(standing, max_skew=self._max_skew)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._perform(session.begin())
                async for frame in self._peer.frames():
                    await self._perform(session.receive(frame))
                    if session.heard:
                        break
                else:
                    raise SyncInterrupted(session.peer or "the peer")
            if not session.finished:
                raise SyncInterrupted(session.peer)
        except BaseExceptionGroup as group:
            error = _first(group)
            if isinstance(error, RefoldError) and not isinstance(error, SyncInterrupted):
                await self._refuse(error)
            raise error from None
        taken = self._taken
        return SyncReport(session.peer, self._sent, taken.events, len(taken.merged), len(taken.open), session.related)

    async def _refuse(self, error: RefoldError) -> None:
        """Tells the peer, if it still listens, why the session ends."""
        try:
            async with asyncio.timeout(1):
                await self._send(self._session.refuse(error))
        except (TimeoutError, OSError, RefoldError):
            return

    async def _send(self, frame: bytes) -> None:
        """Frames leave in the order in which the session made them, also when one has to wait for room."""
        async with self._turn:
            await self._peer.send(frame)

    async def _perform(self, effects: Sequence[Effect]) -> None:
        session = self._session
        for effect in effects:
            match effect:
                case Send():
                    await self._send(effect.frame)
                case Prove():
                    await self._perform(session.proved(await self._side.hashes(effect.dots)))
                case Serve():
                    self._tasks.create_task(self._serve(effect.vector))
                case Apply():
                    self._taken.add(await self._side.take(effect.bodies, session.peer, self._max_skew))
                    self._tell("received", self._taken.events)
                case Conclude():
                    self._taken.add(await self._side.take(None, session.peer, self._max_skew))
                    await self._perform(session.concluded(*await self._side.conclusion()))

    async def _serve(self, vector: Mapping[str, int]) -> None:
        """Sends what the peer lacks of the log as it was when the session began."""
        covered = dict(vector)
        while page := await self._side.since(covered, FRAME_EVENTS):
            bodies = [body for position, body in page if position <= self._end]
            for frame in frames_of(bodies):
                await self._send(frame)
            self._sent += len(bodies)
            self._tell("sent", self._sent)
            if len(bodies) < len(page):
                break
            for body in bodies:
                dot = _dot(body)
                covered[dot.replica] = dot.seq
        await self._perform(self._session.served(self._sent))


def frames_of(bodies: Sequence[bytes]) -> list[bytes]:
    """Events as frames, each of a bounded size."""
    frames: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for body in bodies:
        if part and (len(part) >= FRAME_EVENTS or size + len(body) > FRAME_BYTES):
            frames.append(to_frame(Events(part)))
            part, size = [], 0
        part.append(body)
        size += len(body)
    if part:
        frames.append(to_frame(Events(part)))
    return frames


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that ended a session: a refusal before the loss of the connection that came of it."""
    errors: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack += reversed(error.exceptions)
        else:
            errors.append(error)
    return next((error for error in errors if not isinstance(error, SyncInterrupted)), errors[0])


class Pipe:
    """One end of a pipe between two sides in one process. Implements `Peer`."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue(PIPE_FRAMES + 1)
        self._closed = False
        self.other = self

    async def send(self, frame: bytes) -> None:
        """See `Peer.send`."""
        if not self.other._closed:
            await self.other._inbox.put(frame)
        if self.other._closed:
            raise SyncInterrupted("the peer")

    async def frames(self) -> AsyncIterator[bytes]:
        """See `Peer.frames`."""
        while (frame := await self._inbox.get()) is not None:
            yield frame

    def close(self) -> None:
        """Tells the other end that nothing more comes, and lets go of what it waits to send."""
        self._closed = True
        while not self._inbox.empty():
            self._inbox.get_nowait()
        if not self.other._closed:
            if self.other._inbox.full():
                self.other._inbox.get_nowait()
            self.other._inbox.put_nowait(None)


def pipe() -> tuple[Pipe, Pipe]:
    """Both ends of a pipe."""
    one, other = Pipe(), Pipe()
    one.other, other.other = other, one
    return one, other


async def between(one: Side, other: Side, *, max_skew: int = MAX_SKEW, tell: Tell = silent) -> SyncReport:
    """A session between two sides in one process, as the first of them reports it."""

    async def run(side: Side, end: Pipe, tell: Tell) -> SyncReport:
        try:
            return await Conversation(side, end, max_skew=max_skew, tell=tell).run()
        finally:
            end.close()

    here, there = pipe()
    ours, theirs = await asyncio.gather(run(one, here, tell), run(other, there, silent), return_exceptions=True)
    if isinstance(ours, BaseException):
        hearsay = isinstance(ours, SyncInterrupted | PeerRefused)
        raise theirs if hearsay and isinstance(theirs, BaseException) else ours
    if isinstance(theirs, BaseException):
        raise theirs
    return ours


class OpenPeer(Protocol):
    """What an entry point of the group `refold.peers` is: it opens the other side at a URL of its scheme."""

    def __call__(self, url: str, **options: Any) -> AbstractAsyncContextManager[Side]:
        """The other side, for as long as the context lasts.

        Among the options are always `replica` and `asker`, the id and the `Side` of who syncs, and its `max_skew`.
        """


@asynccontextmanager
async def open_peer(url: str, **options: Any) -> AsyncIterator[Side]:
    """The other side at a URL of any installed scheme, or at a path."""
    opener: OpenPeer = await asyncio.to_thread(installed, GROUP, url)
    async with opener(url, **options) as side:
        yield side
