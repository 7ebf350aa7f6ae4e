"""A share as the other side of a sync session: it sends what its segments hold, and writes what it is sent as new ones.

It has no clock, and proves nothing by itself: whatever it hands on is judged by the log that takes it in. A segment
that is refused, or holds an event that is ahead of the clock, is passed over with all that needs it, and named when the
session is over, so that one bad file stops nobody; a replica that has its events does not count them as there, and
writes them anew.

What the share says it has, the peer does not send again, so a header is not taken at its word. One that names nothing
but what the peer lacks withholds nothing: it is told of once its file was read, which is once. One that names some of
what the peer has is held against its file first. Of those that name nothing else, which is nearly all of an old share,
the newest heads are held against the peer's own events, and some of the files are read, other ones each time: a file
that rots is found by whoever needs it, and by and by without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from refold.clock import to_millis
from refold.errors import EventsMissing, StorageFailed
from refold.events import Event, Head, decode
from refold.intake import Taken
from refold.session import MAX_SKEW, ClockAhead, Standing
from refold.sync import Side
from refold.vector import covers, includes, missing

from .segments import Segment, SegmentRefused, clear, last_number, plan, read_events, scan, write

SEGMENT_EVENTS = 10_000
SEGMENT_BYTES = 16 << 20
"""How much is collected before a segment is written."""

SAMPLE_SEGMENTS = 100
SAMPLE_BYTES = 4 << 20
"""How much is read of what the peer knows already."""

_NEVER = 1 << 62


class ShareSide:
    """One session's view of a share, written to as `writer`. Implements `refold.sync.Side`."""

    def __init__(self, root: Path, writer: str, asker: Side, max_skew: int = MAX_SKEW) -> None:
        self.refused: list[SegmentRefused] = []
        self.ahead: list[ClockAhead] = []
        self.waiting: list[Segment] = []
        self._root = root
        self._folder = root / writer
        self._asker = asker
        self._max_skew = max_skew
        self._wall: int | None = None
        self._segments: list[Segment] = []
        self._checked: set[Path] = set()
        self._heads: dict[str, Head] = {}
        self._reading: Iterator[bytes] | None = None
        self._events: list[Event] = []
        self._bodies: list[bytes] = []
        self._size = 0
        self._position = 0
        self._vector: dict[str, int] = {}

    async def standing(self) -> tuple[Standing, int]:
        """See `Side.standing`. The share's log ends nowhere: it is read as it is now."""
        asking, _ = await self._asker.standing()
        self._wall = asking.wall
        theirs = {replica: head.seq for replica, head in asking.heads.items()}
        turn = sum(int.from_bytes(head.hash[:8], "big") for head in asking.heads.values())
        claiming, doubtful = await asyncio.to_thread(self._look, theirs, turn)
        while True:
            await asyncio.to_thread(self._check, doubtful)
            sound = {segment.path for segment in self._segments}
            claiming = [segment for segment in claiming if segment.path in sound]
            self._heads = {}
            for segment in plan(claiming, {})[0]:
                self._count(segment)
            doubtful = await self._doubtful(claiming, asking.heads)
            if not doubtful:
                break
        return Standing(self._root.name or "share", None, dict(self._heads)), _NEVER

    def _look(self, theirs: Mapping[str, int], turn: int) -> tuple[list[Segment], list[Segment]]:
        """The segments that name something of what the peer has, and those of them to be read now."""
        clear(self._folder)
        for found in scan(self._root):
            if isinstance(found, Segment):
                self._segments.append(found)
            else:
                self.refused.append(found)
        known = [segment for segment in self._segments if includes(theirs, segment.header.vector)]
        partly = [
            segment
            for segment in self._segments
            if not includes(theirs, segment.header.vector)
            and any(covers(theirs, replica, seq) for replica, seq in segment.header.first.items())
        ]
        return known + partly, partly + _sample(known, turn)

    def _check(self, segments: Sequence[Segment]) -> None:
        """Reads segments, and passes over those that are not what they say."""
        for segment in segments:
            try:
                read_events(segment)
            except SegmentRefused as refused:
                self._pass_over(segment, refused)
            self._checked.add(segment.path)

    def _pass_over(self, segment: Segment, why: SegmentRefused | ClockAhead) -> None:
        self._segments = [other for other in self._segments if other is not segment]
        if isinstance(why, ClockAhead):
            self.ahead.append(why)
        else:
            self.refused.append(why)

    async def _doubtful(self, claiming: Sequence[Segment], theirs: Mapping[str, Head]) -> list[Segment]:
        """The unread segments that name a newest event which is not the peer's own."""
        told = {
            replica: head
            for replica, head in self._heads.items()
            if replica in theirs and head != theirs[replica] and head.seq <= theirs[replica].seq
        }
        dots = [(replica, head.seq) for replica, head in told.items()]
        hashes = await self._asker.hashes(dots) if dots else {}
        wrong = {(replica, head) for replica, head in told.items() if hashes.get(replica) != head.hash}
        return [
            segment
            for segment in claiming
            if segment.path not in self._checked and not wrong.isdisjoint(segment.header.heads.items())
        ]

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
        while True:
            chosen, self.waiting, _ = plan(self._segments, self._vector)
            for segment in chosen:
                try:
                    events = self._in_time(segment, read_events(segment))
                except (SegmentRefused, ClockAhead) as error:
                    self._pass_over(segment, error)
                    break
                self._count(segment)
                for event, body in events:
                    self._vector[event.replica] = event.seq
                    yield body
            else:
                return

    def _in_time(self, segment: Segment, events: Sequence[tuple[Event, bytes]]) -> list[tuple[Event, bytes]]:
        """Those of a segment's events that the peer lacks. Raises `ClockAhead` when one of them is."""
        lacking = [one for one in events if one[0].seq > self._vector.get(one[0].replica, 0)]
        newest = max((event for event, _ in lacking), key=lambda event: event.time, default=None)
        if newest is not None and self._wall is not None:
            skew = to_millis(newest.time) - self._wall
            if skew > self._max_skew:
                raise ClockAhead(f"{segment.path}: event {newest.replica}:{newest.seq}", skew, self._max_skew)
        return lacking

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
        """Raises `SegmentRefused` or `ClockAhead` for what was passed over, `EventsMissing` for what others lack."""
        passed = [*self.refused, *self.ahead]
        if passed:
            raise passed[0]
        if self.waiting:
            lacking = {
                f"{replica}:{first}" + (f" to {last}" if last > first else "")
                for segment in self.waiting
                for replica, first, last in missing(self._vector, segment.header.needs)
            }
            raise EventsMissing(sorted(lacking))


def _sample(segments: Sequence[Segment], turn: int) -> list[Segment]:
    """Some of many segments, other ones at another turn."""
    chosen: list[Segment] = []
    size = 0
    for offset in range(min(len(segments), SAMPLE_SEGMENTS)):
        segment = segments[(turn + offset) % len(segments)]
        size += segment.header.size
        if chosen and size > SAMPLE_BYTES:
            break
        chosen.append(segment)
    return chosen


def _root(url: str) -> Path:
    root = Path(unquote(urlsplit(url).path)) if "://" in url else Path(url)
    if not root.is_dir():
        raise StorageFailed(str(root), "opening the share", "it is no directory; is the share mounted?")
    if (root / "changelog.db").exists():
        raise StorageFailed(str(root), "opening the share", "it is an archive; sync with its path instead of dir:")
    return root


@asynccontextmanager
async def open_peer(
    url: str, *, replica: str, asker: Side, max_skew: int = MAX_SKEW, **_options: Any
) -> AsyncIterator[ShareSide]:
    """The peer of `dir:` URLs; `replica` is who writes there. What was passed over is raised at the end."""
    side = ShareSide(await asyncio.to_thread(_root, url), replica, asker, max_skew)
    yield side
    side.complain()
