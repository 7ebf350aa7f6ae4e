"""A moment of an archive, as people say it, and the events that belong to it.

A moment resolves to a *cut*: a version vector. An event belongs to it when its seq is not beyond what the vector says
of its replica. At a time, that is a causally closed set: hybrid clocks give an event a greater time than all it had
seen, on whatever replica that was written. At a position it is a prefix of one log. A tag says a vector outright.

Nothing is scanned. A replica's times and its positions ascend with its seq, so the last event that belongs is found by
bisection, in a few dozen reads a replica at most, however long the log is. Events written together are never taken
apart: `Event.batch` ascends with the seq as well, and a second bisection leads to where a group that reaches beyond the
mark began.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from .clock import format_time, from_millis, parse_time, to_millis
from .errors import EventsMissing, MomentRefused, MomentUnknown, PositionUnknown
from .events import TAG_NAME, TAGS, Event
from .fold import State, fold, latest
from .ports import Changelog
from .replay import events_after
from .vector import VectorError, format_vector, parse_vector

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ]|$)")
_SCANNED = 1000


class AtTime(msgspec.Struct, frozen=True):
    """All that was written up to a time, in Unix milliseconds, which is included."""

    millis: int

    def __str__(self) -> str:
        return format_time(from_millis(self.millis))


class AtPosition(msgspec.Struct, frozen=True):
    """All that stands in this log up to a position, which is included."""

    position: int

    def __str__(self) -> str:
        return f"position {self.position}"


class AtEnd(msgspec.Struct, frozen=True):
    """All that the log holds now."""

    def __str__(self) -> str:
        return "the end of the log"


class AtTag(msgspec.Struct, frozen=True):
    """What a tag names."""

    name: str

    def __str__(self) -> str:
        return f"tag {self.name}"


class AtVector(msgspec.Struct, frozen=True):
    """Of each replica the events up to a seq."""

    vector: dict[str, int]

    def __str__(self) -> str:
        return format_vector(self.vector) or "nothing"


Moment = AtTime | AtPosition | AtEnd | AtTag | AtVector
Said = Moment | str | int | datetime | Mapping[str, int]
"""A moment as programs say it; see `moment_of`."""


class LeftOut(msgspec.Struct, frozen=True):
    """A group of events, written together, that reaches beyond the mark: its replica, its first and last seq, and the
    position of the first."""

    replica: str
    first: int
    last: int
    position: int


class Cut(msgspec.Struct, frozen=True):
    """Which events belong to a moment, and the groups that were left out whole because not all of them do."""

    moment: Moment
    vector: dict[str, int]
    left_out: list[LeftOut] = []

    def has(self, event: Event) -> bool:
        """Whether an event belongs to the moment."""
        return event.seq <= self.vector.get(event.replica, 0)

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        return [
            f"{self.moment} stands inside a group of events that were written together"
            f" ({group.replica}:{group.first} to {group.last});"
            f" the group, from position {group.position} on, is left out"
            for group in self.left_out
        ]


def parse_moment(text: str) -> Moment:
    """The moment that a text says: a time or a date, `@POSITION`, `@end`, the name of a tag, or `replica:seq,…`.

    Raises `TimeTextError` for a time that is none, `MomentRefused` for what is nothing of all that.
    """
    text = text.strip()
    if text == "@end":
        return AtEnd()
    if text.startswith("@"):
        if not re.fullmatch(r"@[0-9]{1,18}", text):
            raise MomentRefused(text, "after @ stands the position of an event, or end")
        return AtPosition(int(text[1:]))
    if TAG_NAME.fullmatch(text):
        return AtTag(text)
    if _DATE.match(text) or ":" not in text:
        return _time(text)
    try:
        return AtVector(parse_vector(text))
    except VectorError as error:
        raise MomentRefused(text, f"{error.entry!r}: {error.why}") from None


def _time(text: str) -> Moment:
    if not _DATE.match(text):
        raise MomentRefused(text, "neither a time, a position, the name of a tag nor a version vector")
    return AtTime(parse_time(text))


def moment_of(what: Said) -> Moment:
    """A moment as programs say it: as `parse_moment` reads it, a position, a time with zone, a version vector."""
    if isinstance(what, str):
        return parse_moment(what)
    if isinstance(what, int):
        return AtPosition(what)
    if isinstance(what, datetime):
        if what.tzinfo is None:
            raise MomentRefused(str(what), "a time needs its zone")
        return AtTime(parse_time(what.isoformat()))
    if isinstance(what, Mapping):
        return AtVector(dict(what))
    return what


def cut(moment: Moment, log: Changelog, tags: Callable[[], Mapping[str, Mapping[str, int]]], now: int) -> Cut:
    """The events of a log that belong to a moment.

    `tags` tells what the tags name, and is asked for them when one is meant; `now` is the wall clock in Unix
    milliseconds. Raises `PositionUnknown` for a position that is not in the log, `MomentUnknown` for a time before the
    first event or still to come, a tag that is not there, and a vector of what the log does not hold.
    """
    heads = {replica: head.seq for replica, head in sorted(log.heads().items())}
    match moment:
        case AtEnd():
            return Cut(moment, heads)
        case AtTag(name):
            known = tags()
            if name not in known:
                named = f"; the tags are {', '.join(sorted(known))}" if known else ""
                raise MomentUnknown(str(moment), f"there is no such tag{named}")
            marks = _held(moment, known[name], heads)
        case AtVector(vector):
            marks = _held(moment, vector, heads)
        case AtPosition(position):
            if not 0 < position <= log.end():
                raise PositionUnknown(position, log.end())
            marks = vector_at(log, position)
        case _:
            millis = moment.millis
            newest = max((to_millis(_event(log, *dot).time) for dot in heads.items()), default=0)
            if millis > max(now, newest):
                raise MomentUnknown(str(moment), "that is still to come")
            last = from_millis(millis + 1) - 1
            marks = {replica: _upto(log, replica, seq, _event_time, last) for replica, seq in heads.items()}
    return _whole(moment, log, {replica: seq for replica, seq in marks.items() if seq})


def vector_at(log: Changelog, position: int) -> dict[str, int]:
    """Of each replica, how many events stand up to a position."""
    heads = log.heads()
    return {replica: _upto(log, replica, head.seq, _position, position) for replica, head in sorted(heads.items())}


def _held(moment: Moment, vector: Mapping[str, int], heads: Mapping[str, int]) -> dict[str, int]:
    for replica, seq in vector.items():
        if seq > heads.get(replica, 0):
            raise MomentUnknown(str(moment), f"of {replica} the log holds {heads.get(replica, 0)} events, not {seq}")
    return dict(sorted(vector.items()))


def _whole(moment: Moment, log: Changelog, marks: dict[str, int]) -> Cut:
    """The cut at these marks, drawn back to where the groups begin that they would take apart."""
    vector, left_out = dict(marks), []
    for replica, seq in marks.items():
        batch = _event(log, replica, seq).batch
        if batch > seq:
            vector[replica] = whole = _before_group(log, replica, seq)
            left_out.append(LeftOut(replica, whole + 1, batch, _position(log, replica, whole + 1)))
    vector = {replica: seq for replica, seq in vector.items() if seq}
    if not vector:
        why = "its only events were not all written by then" if left_out else "the log holds nothing that early"
        raise MomentUnknown(str(moment), why)
    return Cut(moment, vector, left_out)


Measure = Callable[[Changelog, str, int], int]


def _upto(log: Changelog, replica: str, head: int, measure: Measure, mark: int) -> int:
    """How many of a replica's first `head` events measure at most `mark`, where the measure ascends with the seq.

    Every other step halves what is left; those between guess from how the measure has risen, which in a log that grew
    evenly needs a handful of steps.
    """
    above = measure(log, replica, head) if head else mark
    if above <= mark:
        return head
    low, high, below, guess = 0, head, 0, True
    while high - low > 1:
        ahead = (high - low) * (mark - below) // (above - below) if guess else (high - low) // 2
        seq = min(max(low + ahead, low + 1), high - 1)
        found = measure(log, replica, seq)
        if found <= mark:
            low, below = seq, found
        else:
            high, above = seq, found
        guess = not guess
    return low


def _before_group(log: Changelog, replica: str, seq: int) -> int:
    """The last seq before the group that stands at `seq` and goes on beyond it; groups are short beside a log."""
    high, step = seq, 1
    while (low := max(0, high - step)) and _batch(log, replica, low) > seq:
        high, step = low, step * 2
    return low + bisect_right(range(low + 1, high), seq, key=lambda place: _batch(log, replica, place))


def _position(log: Changelog, replica: str, seq: int) -> int:
    found = log.positions([(replica, seq)])
    if not found:
        raise EventsMissing([f"{replica}:{seq}"])
    return found[0]


def _event(log: Changelog, replica: str, seq: int) -> Event:
    return log.at([_position(log, replica, seq)])[0]


def _event_time(log: Changelog, replica: str, seq: int) -> int:
    return _event(log, replica, seq).time


def _batch(log: Changelog, replica: str, seq: int) -> int:
    return _event(log, replica, seq).batch


def named(state: State | None) -> dict[str, dict[str, int]]:
    """What the tags name, from the state of the record that holds them."""
    values = latest(state)[0] if state is not None else {}
    return {name: vector for name, vector in sorted(values.items()) if vector is not None}


def tags_in(log: Changelog) -> dict[str, dict[str, int]]:
    """What the tags name, from the log alone, which is read whole: for where its tables are not at hand."""
    state, position = None, 0
    while events := events_after(log, position, _SCANNED):
        position = events[-1].position
        for event in events:
            if event.record == TAGS:
                state = fold(state, event)
    return named(state)
