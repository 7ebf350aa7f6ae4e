"""A share as the other side of a sync session: it sends what its segments hold, and writes what it is sent as new ones.

It has no clock, and proves nothing by itself: whatever it hands on is judged by the log that takes it in. A segment
that is refused is passed over with all that needs it, and named when the session is over, so that one bad file stops
nobody; a replica that has its events does not count them as there, and writes them anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from refold.errors import EventsMissing, StorageFailed
from refold.events import Event, Head, decode
from refold.intake import Taken
from refold.session import Standing
from refold.vector import missing

from .segments import Segment, SegmentRefused, last_number, plan, read, scan, write

SEGMENT_EVENTS = 10_000
SEGMENT_BYTES = 16 << 20
"""How much is collected before a segment is written."""

_NEVER = 1 << 62


class ShareSide:
    """One session's view of a share, written to as `writer`. Implements `refold.sync.Side`."""

    def __init__(self, root: Path, writer: str) -> None:
        self.refused: list[SegmentRefused] = []
        self.waiting: list[Segment] = []
        self._root = root
        self._folder = root / writer
        self._segments: list[Segment] = []
        self._heads: dict[str, Head] = {}
        self._reading: Iterator[bytes] | None = None
        self._events: list[Event] = []
        self._bodies: list[bytes] = []
        self._size = 0
        self._position = 0
        self._vector: dict[str, int] = {}

    async def standing(self) -> tuple[Standing, int]:
        """See `Side.standing`. The share's log ends nowhere: it is read as it is now."""
        await asyncio.to_thread(self._look)
        return Standing(self._root.name or "share", None, dict(self._heads)), _NEVER

    def _look(self) -> None:
        for found in scan(self._root):
            if not isinstance(found, Segment):
                self.refused.append(found)
                continue
            try:
                read(found)  # what it claims is told to the peer as there, so it is not taken on its word
            except SegmentRefused as refused:
                self.refused.append(refused)
            else:
                self._segments.append(found)
        chosen, _, _ = plan(self._segments, {})
        for segment in chosen:
            self._count(segment)

    def _count(self, segment: Segment) -> None:
        for replica, head in segment.header.heads.items():
            known = self._heads.get(replica)
            if known is None or head.seq > known.seq:
                self._heads[replica] = head

    async def hashes(self, dots: Sequence[tuple[str, int]]) -> dict[str, bytes]:
        """See `Side.hashes`. A share has its heads alone at hand; the chain of what it sends proves the rest."""
        return {replica: head.hash for replica, seq in dots if (head := self._heads.get(replica)) and head.seq == seq}

    async def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        """See `Side.since`; the pages of one session follow each other."""
        if self._reading is None:
            self._vector = dict(vector)
            self._reading = self._bodies_since()
        return await asyncio.to_thread(self._page, self._reading, limit)

    def _page(self, reading: Iterator[bytes], limit: int) -> list[tuple[int, bytes]]:
        page = []
        for body in reading:
            self._position += 1
            page.append((self._position, body))
            if len(page) == limit:
                break
        return page

    def _bodies_since(self) -> Iterator[bytes]:
        """What one who has seen `_vector` lacks, segment by segment."""
        left = self._segments
        while True:
            chosen, self.waiting, _ = plan(left, self._vector)
            for segment in chosen:
                try:
                    bodies = read(segment)
                except SegmentRefused as refused:
                    self.refused.append(refused)
                    left = [other for other in left if other is not segment]
                    break
                for body in bodies:
                    event = decode(body)
                    if event.seq > self._vector.get(event.replica, 0):
                        self._vector[event.replica] = event.seq
                        yield body
            else:
                return

    async def take(self, bodies: Sequence[bytes] | None, peer: str, max_skew: int) -> Taken:  # noqa: ARG002 - a port
        """See `Side.take`."""
        await asyncio.to_thread(self._add, bodies)
        return Taken(len(bodies or ()))

    def _add(self, bodies: Sequence[bytes] | None) -> None:
        for body in bodies or ():
            self._events.append(decode(body))
            self._bodies.append(body)
            self._size += len(body)
            if len(self._events) >= SEGMENT_EVENTS or self._size >= SEGMENT_BYTES:
                self._write()
        if bodies is None and self._events:
            self._write()

    def _write(self) -> None:
        try:
            number = last_number(self._folder) + 1
        except OSError as error:
            raise StorageFailed(str(self._folder), "reading the share", str(error)) from error
        self._count(write(self._folder, number, self._events, self._bodies))
        self._events, self._bodies, self._size = [], [], 0

    async def conclusion(self) -> tuple[Mapping[str, Head], str | None]:
        """See `Side.conclusion`."""
        return self._heads, None

    def complain(self) -> None:
        """Raises `SegmentRefused` for the first segment passed over, else `EventsMissing` for what others need."""
        if self.refused:
            raise self.refused[0]
        if self.waiting:
            lacking = {
                f"{replica}:{first}" + (f" to {last}" if last > first else "")
                for segment in self.waiting
                for replica, first, last in missing(self._vector, segment.header.needs)
            }
            raise EventsMissing(sorted(lacking))


def _root(url: str) -> Path:
    root = Path(unquote(urlsplit(url).path)) if "://" in url else Path(url)
    if not root.is_dir():
        raise StorageFailed(str(root), "opening the share", "it is no directory; is the share mounted?")
    if (root / "changelog.db").exists():
        raise StorageFailed(str(root), "opening the share", "it is an archive; sync with its path instead of dir:")
    return root


@asynccontextmanager
async def open_peer(url: str, *, replica: str, **_options: Any) -> AsyncIterator[ShareSide]:
    """The peer of `dir:` URLs; `replica` is who writes there. What was passed over is raised at the end."""
    side = ShareSide(await asyncio.to_thread(_root, url), replica)
    yield side
    side.complain()
