"""Which events of a log belong to a moment.

At a time, those up to it. Hybrid clocks make that a causally closed set: what an event had seen is earlier than itself,
on whatever replica it was written. At a position, a prefix of the log. Events written together are never taken apart; a
group that reaches beyond the mark is left out whole, and the report says so.
"""

from __future__ import annotations

import msgspec

from refold.clock import format_time, from_millis, to_millis
from refold.errors import PositionUnknown
from refold.replay import events_after
from refold_adapters.sqlite_log import SqliteLog

_PAGE = 1000


class At(msgspec.Struct, frozen=True):
    """Up to where: a position of the source's log, or a time in Unix milliseconds."""

    position: int | None = None
    millis: int | None = None

    def __str__(self) -> str:
        if self.position is not None:
            return f"position {self.position}"
        return format_time(from_millis(self.millis or 0))


def cut(source: SqliteLog, at: At) -> tuple[dict[str, int], list[str]]:
    """The last seq of each replica that belongs to a restore `at`, and what is left out to keep groups whole."""
    end = source.end()
    if at.position is not None and not 0 < at.position <= end:
        raise PositionUnknown(at.position, end)
    whole: dict[str, int] = {}
    part: dict[str, tuple[int, int]] = {}
    position = 0
    while events := events_after(source, position, _PAGE):
        for event in events:
            position = event.position
            if at.position is not None and position > at.position:
                break
            if at.millis is not None and to_millis(event.time) > at.millis:
                continue
            if event.seq >= event.batch:
                whole[event.replica] = event.seq
                part.pop(event.replica, None)
            else:
                part.setdefault(event.replica, (position, event.batch))
        if at.position is not None and position > at.position:
            break
    skipped = [
        f"{at} stands inside a group of events that were written together ({replica}:{whole.get(replica, 0) + 1} to"
        f" {last}); the group, from position {first} on, is left out"
        for replica, (first, last) in sorted(part.items())
    ]
    return whole, skipped
