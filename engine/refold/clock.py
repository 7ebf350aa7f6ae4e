"""A hybrid logical clock in 64 bits: close to the wall clock, never at odds with causality.

A time is `milliseconds since 1970 << 16 | counter`. `tick` gives the greater of the wall clock and the last time plus
one; `observe` takes in a time that came with a remote event. So a time that was given out is greater than every time
given out or seen before it, whatever the wall clock does: if e happened before f, then time(e) < time(f). And it runs
ahead of the wall clock by no more than the clocks of the replicas differ, plus one millisecond for each 65,536
events in one millisecond. Kulkarni et al. (2014), "Logical Physical Clocks and Consistent Snapshots in Globally
Distributed Databases", prove both; their pair (l, c) is here one integer, on which their case distinction is a single
`max`, and a counter that overflows carries into the milliseconds by itself.

The converse does not hold: a greater time does not mean later in causality. Times break ties between writes that
version vectors found concurrent, and tell a person when; they decide nothing else.

A time is at most 2**63 - 1, so that it fits the signed integers of SQLite and msgpack: enough until the year 6429.
The wall clock is an argument. Nothing here reads one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from .errors import RefoldError

COUNTER_BITS = 16
MAX_TIME = 2**63 - 1
MAX_MILLIS = MAX_TIME >> COUNTER_BITS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9])))?"
)


@dataclass(eq=False)
class TimeTextError(RefoldError, ValueError):
    """Text that is no time that an event can have."""

    code: ClassVar[str] = "bad-time"
    message: ClassVar[str] = "{text!r} is no time: {why}"
    hint: ClassVar[str] = (
        "accepted are 2026-01-01T12:00:00.123Z, 2026-01-01T13:00+01:00 and 2026-01-01 (midnight UTC), from 1970 to 6429"
    )
    text: str
    why: str


@dataclass(eq=False)
class TimeRangeError(RefoldError, ValueError):
    """A number that is no time, or no milliseconds of one: negative, or too great for 64 bits with a sign."""

    code: ClassVar[str] = "time-out-of-range"
    message: ClassVar[str] = "{value} is not between 0 and {limit}"
    hint: ClassVar[str] = "check the clock of the machine that gave this time"
    value: int
    limit: int


class HybridClock:
    """Gives out strictly increasing times: `now` tells Unix milliseconds, `last` is where an earlier run ended."""

    __slots__ = ("_last", "_now")

    def __init__(self, now: Callable[[], int], last: int = 0) -> None:
        self._now = now
        self._last = _in_range(last, MAX_TIME)

    @property
    def last(self) -> int:
        """The greatest time that was given out or observed."""
        return self._last

    def wall(self) -> int:
        """The wall clock in Unix milliseconds."""
        return self._now()

    def tick(self, millis: int | None = None) -> int:
        """A time for a new event, greater than any before it: of now, or of a moment in Unix milliseconds."""
        wall = (self._now() if millis is None else millis) << COUNTER_BITS
        time = wall if wall > self._last else self._last + 1
        self._last = time if 0 <= time <= MAX_TIME else _in_range(time, MAX_TIME)
        return time

    def observe(self, time: int) -> None:
        """Takes in the time of an event from elsewhere, so that what is written next stands after it."""
        self._last = max(self._last, _in_range(time, MAX_TIME))


def to_millis(time: int) -> int:
    """Unix milliseconds of a time, without its counter."""
    return _in_range(time, MAX_TIME) >> COUNTER_BITS


def from_millis(ms: int) -> int:
    """The first time in a millisecond: the bound for "since", and exclusive for "until"."""
    return _in_range(ms, MAX_MILLIS) << COUNTER_BITS


def format_time(time: int) -> str:
    """RFC 3339 in UTC with milliseconds; two times in one millisecond look the same."""
    moment = _EPOCH + to_millis(time) * _MILLISECOND
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_time(text: str) -> int:
    """Unix milliseconds of RFC 3339 text, seconds optional, or of a plain date; finer than a millisecond is cut off."""
    found = _RFC3339.fullmatch(text.strip())
    if found is None:
        raise TimeTextError(text, "not a time with its offset from UTC, nor a date")
    date, clock, seconds, fraction, sign, hours, minutes = found.groups(default="")
    try:
        local = datetime.fromisoformat(f"{date}T{clock or '00:00'}:{seconds or '00'}+00:00")
    except ValueError as error:
        raise TimeTextError(text, str(error)) from None
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    ms = (local - _EPOCH + (ahead if sign == "-" else -ahead)) // _MILLISECOND + int(fraction[:3].ljust(3, "0"))
    if not 0 <= ms <= MAX_MILLIS:
        raise TimeTextError(text, "outside the years that a time can tell")
    return ms


def _in_range(value: int, limit: int) -> int:
    if not 0 <= value <= limit:
        raise TimeRangeError(value, limit)
    return value
