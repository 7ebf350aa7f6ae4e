"""Moments: how people say them, and the events that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given

from refold.clock import TimeTextError, to_millis
from refold.errors import EventsMissing, MomentRefused, MomentUnknown, PositionUnknown
from refold.events import Event
from refold.moment import (
    AtEnd,
    AtPosition,
    AtTag,
    AtTime,
    AtVector,
    Moment,
    cut,
    moment_of,
    parse_moment,
    tags_in,
)
from refold.testing import MemoryLog, Scribe, append, caught

from .pasts import belongs, moments, pasts

NOW = 10**12
NOON = 1_767_268_800_000


def log_of(events: Sequence[Event]) -> MemoryLog:
    log = MemoryLog()
    append(log, events)
    return log


def cut_of(log: MemoryLog, moment: Moment, now: int = NOW) -> list[tuple[str, int]]:
    found = cut(moment, log, lambda: tags_in(log), now)
    return [event.dot for event in log.at(range(1, log.end() + 1)) if found.has(event)]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T12:00Z", AtTime(NOON)),
        (" 2026-01-01T13:00:00.000+01:00 ", AtTime(NOON)),
        ("1970-01-01", AtTime(0)),
        ("@12", AtPosition(12)),
        ("@end", AtEnd()),
        ("v1.0-rc", AtTag("v1.0-rc")),
        ("Ende", AtTag("Ende")),
        ("laptop:3, office:12", AtVector({"laptop": 3, "office": 12})),
        ("7:3", AtVector({"7": 3})),
    ],
)
def test_a_moment_is_read_as_people_write_it(text: str, moment: Moment) -> None:
    assert parse_moment(text) == moment == moment_of(text) == moment_of(moment)


@pytest.mark.parametrize("text", ["", "@", "@x", "@-1", "a b", "-x", "12", "2026", "a:0", "a:1,a:2", "12:30"])
def test_what_says_no_moment_is_refused(text: str) -> None:
    if text == "12:30":
        assert parse_moment(text) == AtVector({"12": 30})
    else:
        caught(MomentRefused, parse_moment, text)


@pytest.mark.parametrize("text", ["2026-01-01T12:30", "2026-13-01", "2026-01-01x", "2026-01-01T12:00"])
def test_a_time_without_its_offset_is_no_vector(text: str) -> None:
    caught(TimeTextError if "x" not in text else MomentRefused, parse_moment, text)


def test_programs_say_moments_with_values() -> None:
    assert moment_of(7) == AtPosition(7)
    assert moment_of({"a": 1}) == AtVector({"a": 1})
    assert moment_of(datetime(2026, 1, 1, 12, tzinfo=UTC)) == AtTime(NOON)
    assert moment_of(datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))) == AtTime(NOON)
    caught(MomentRefused, moment_of, datetime(2026, 1, 1))


@given(pasts())
def test_a_cut_has_the_events_that_a_look_at_each_would_find(events: list[Event]) -> None:
    log = log_of(events)
    for moment in moments(events):
        expected = [event.dot for event in belongs(events, moment)]
        if not expected:
            caught(MomentUnknown, cut_of, log, moment)
            continue
        assert cut_of(log, moment) == expected
        vector = cut(moment, log, dict, NOW).vector
        assert cut_of(log, AtVector(vector)) == expected


@given(pasts())
def test_a_cut_is_causally_closed(events: list[Event]) -> None:
    log = log_of(events)
    for moment in moments(events):
        chosen = belongs(events, moment)
        if chosen:
            vector = cut(moment, log, dict, NOW).vector
            append(MemoryLog(), [event for event in events if event.seq <= vector.get(event.replica, 0)])


def group() -> tuple[Scribe, MemoryLog]:
    scribe = Scribe("a")
    events = [scribe.write("things", "1", {"n": 1})]
    events += [scribe.write("things", str(number), {"n": 1}, batch=4) for number in (2, 3, 4)]
    return scribe, log_of(events)


def test_a_group_is_left_out_whole_and_said() -> None:
    _, log = group()
    found = cut(AtPosition(3), log, dict, NOW)
    assert found.vector == {"a": 1}
    (note,) = found.notes()
    assert note.startswith("position 3 stands inside a group of events that were written together (a:2 to 4);")
    assert note.endswith("the group, from position 2 on, is left out")
    assert cut(AtVector({"a": 2}), log, dict, NOW).vector == {"a": 1}
    assert cut(AtPosition(4), log, dict, NOW).notes() == []


def test_what_is_no_moment_of_the_log_is_told_apart() -> None:
    scribe, log = group()
    append(log, [scribe.write("", "tags", {"early": {"a": 1}, "elsewhere": {"b": 1}})])
    first, last = (to_millis(event.time) for event in log.at([1, 5]))
    assert cut_of(log, AtTag("early")) == [("a", 1)]
    for moment in (AtTime(first - 1), AtTag("late"), AtTag("elsewhere"), AtVector({"a": 6}), AtVector({})):
        assert caught(MomentUnknown, cut_of, log, moment).moment == str(moment)
    assert "early, elsewhere" in caught(MomentUnknown, cut_of, log, AtTag("late")).why
    for position in (0, 6, -1):
        assert caught(PositionUnknown, cut_of, log, AtPosition(position)).end == 5
    assert len(cut_of(log, AtTime(last + 5), last + 5)) == 5
    assert "still to come" in caught(MomentUnknown, cut_of, log, AtTime(last + 5), last + 4).why
    assert len(cut_of(log, AtTime(last), 0)) == 5


def test_an_empty_log_has_its_end_and_no_other_moment() -> None:
    log = MemoryLog()
    assert cut(AtEnd(), log, dict, NOW).vector == {}
    caught(MomentUnknown, cut_of, log, AtTime(5))


def test_a_log_with_a_hole_says_so() -> None:
    class Holed(MemoryLog):
        def positions(self, dots: Sequence[tuple[str, int]]) -> list[int]:
            return [position for position in super().positions(dots) if position != 2]

    log = Holed()
    append(log, [Scribe("a").write("things", "1", {"n": 1})])
    scribe = Scribe("b")
    append(log, [scribe.write("things", "1", {"n": 1}), scribe.write("things", "2", {"n": 1})])
    assert caught(EventsMissing, cut_of, log, AtPosition(1)).missing == ["b:1"]


class Counted(MemoryLog):
    """A log that counts what is read of it."""

    reads = 0

    def at(self, positions: Sequence[int]) -> list[Event]:
        self.reads += len(positions)
        return super().at(positions)


def test_a_long_log_is_not_read_whole() -> None:
    scribe, log = Scribe("a"), Counted()
    append(log, [scribe.write("things", "1", {"n": number}) for number in range(3000)])
    middle = to_millis(log.at([1500])[0].time)
    log.reads = 0
    assert cut(AtTime(middle), log, dict, NOW).vector == {"a": 1500}
    assert log.reads < 20
