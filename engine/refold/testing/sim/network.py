"""Links between two processes whose frames are late, lost, told twice, swapped, altered, or cut off.

A link is a stream, as TCP is: what is lost breaks it off. Faults that a stream does not have (frames told twice, out of
order, with a bit flipped) are there because a session must refuse them or survive them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from random import Random

FAULTS = ("break", "twice", "swap", "flip", "cut", "stall")
"""What may happen to one frame of a link: each ends the stream, or sends on it what the peer did not say."""


class End:
    """One end of a link. Implements `Peer`."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.other = self
        self.inbox: deque[bytes] = deque()
        self.on_way = 0
        self.over = False
        self._due = 0.0
        self._moved = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        """See `Peer.send`. Raises `ConnectionResetError` when the link is broken or the other end is closed."""
        other = self.other
        while not self.over and other.on_way + len(other.inbox) >= self.link.room:
            await other._wait()
        if self.over:
            raise ConnectionResetError("the link is broken")
        self.link.carry(frame, other)

    def frames(self) -> AsyncIterator[bytes]:
        """See `Peer.frames`."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self.inbox:
            if self.over and (self.link.broken or not self.on_way):
                raise StopAsyncIteration
            await self._wait()
        self.moved()
        return self.inbox.popleft()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def moved(self) -> None:
        """Wakes whoever waits for frames here, or for room."""
        self._moved.set()

    def deliver_at(self, delay: float) -> float:
        """When a frame that is sent now arrives: later than all before it."""
        loop = asyncio.get_running_loop()
        self._due = max(self._due + 1e-6, loop.time() + delay)
        return self._due

    def close(self) -> None:
        """Lets go of this end; the other hears the frames that are on their way, and then the end."""
        self.over = True
        self.moved()
        self.other.on_way += 1
        self.link.loop.call_at(self.other.deliver_at(self.link.delay()), self.other.hear_the_end)

    def hear_the_end(self) -> None:
        """Nothing more will come."""
        self.on_way -= 1
        self.over = True
        self.moved()


class Link:
    """A stream of frames each way; the nth frame that it carries meets the fault."""

    def __init__(self, random: Random, *, fault: str = "", nth: int = 0, room: int = 4, latency: float = 0.02) -> None:
        self.loop = asyncio.get_running_loop()
        self.room = room
        self.broken = False
        self._random, self._latency = random, latency
        self._fault, self._left = fault, nth
        self._held: tuple[bytes, End] | None = None
        self.ends = End(self), End(self)
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]

    def delay(self) -> float:
        """How long something takes from one end to the other."""
        return self._random.random() * self._latency

    def carry(self, frame: bytes, to: End) -> None:
        """Takes a frame on its way, to arrive or not."""
        self._left -= 1
        fault = self._fault if self._left == 0 else ""
        match fault:
            case "break":
                self.break_off()
                return
            case "stall":
                self._latency = 120.0
            case "swap":
                self._held = frame, to
                self.loop.call_later(1, self._let_go)
                return
            case "flip":
                at = self._random.randrange(len(frame))
                frame = frame[:at] + bytes([frame[at] ^ 1 << self._random.randrange(8)]) + frame[at + 1 :]
            case "cut":
                frame = frame[: self._random.randrange(len(frame))]
            case "twice":
                self._send(frame, to)
        self._send(frame, to)
        if self._held is not None and self._held[1] is to:
            self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._send(*held)

    def _send(self, frame: bytes, to: End) -> None:
        to.on_way += 1
        self.loop.call_at(to.deliver_at(self.delay()), self._arrive, frame, to)

    def _arrive(self, frame: bytes, to: End) -> None:
        to.on_way -= 1
        if not self.broken:
            to.inbox.append(frame)
        to.moved()

    def break_off(self) -> None:
        """Ends the link for both; what is on its way is lost."""
        self.broken = True
        for end in self.ends:
            end.over = True
            end.moved()
