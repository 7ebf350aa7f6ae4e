"""The hybrid clock against any wall clock, its 64-bit form, and the text of times."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.clock import (
    MAX_MILLIS,
    MAX_TIME,
    HybridClock,
    TimeRangeError,
    TimeTextError,
    format_time,
    from_millis,
    parse_time,
    to_millis,
)
from refold.errors import RefoldError

millis = st.integers(0, MAX_MILLIS)
walls = st.integers(-1000, 1000) | st.integers(0, MAX_MILLIS // 2)


def wall(*readings: int) -> HybridClock:
    source: Iterator[int] = iter(readings)
    return HybridClock(lambda: next(source))


@given(st.lists(walls, min_size=1))
def test_ticks_increase_whatever_the_wall_clock_does(readings: list[int]) -> None:
    clock = wall(*readings)
    times = [clock.tick() for _ in readings]
    assert all(later > earlier for earlier, later in zip([0, *times], times, strict=False))
    assert clock.last == times[-1]


@given(st.lists(st.tuples(walls, st.none() | st.integers(0, MAX_TIME // 2)), min_size=1))
def test_a_tick_is_greater_than_all_that_was_observed(steps: list[tuple[int, int | None]]) -> None:
    clock = wall(*(reading for reading, _ in steps))
    greatest = 0
    for _, remote in steps:
        if remote is not None:
            clock.observe(remote)
            greatest = max(greatest, remote)
            assert clock.last == greatest
        greatest = max(greatest, clock.tick())
        assert clock.last == greatest


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.integers(0, 1000))
def test_it_is_ahead_of_the_wall_clock_only_by_what_was_seen(readings: list[int], remote: int) -> None:
    clock = wall(*readings)
    clock.observe(from_millis(remote))
    seen = remote
    for reading in readings:
        seen = max(seen, reading)
        assert to_millis(clock.tick()) == seen


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 50)), max_size=60))
def test_happened_before_implies_a_smaller_time(messages: list[tuple[int, int, int]]) -> None:
    reading = 0
    clocks = [HybridClock(lambda: reading) for _ in range(3)]
    for sender, receiver, reading in messages:  # noqa: B007 - the clocks read it
        sent = clocks[sender].tick()
        clocks[receiver].observe(sent)
        assert clocks[receiver].tick() > sent


def test_the_wall_clock_moves_it_and_going_back_does_not() -> None:
    clock = wall(1000, 1000, 400, 1001)
    assert [clock.tick() for _ in range(4)] == [1000 << 16, (1000 << 16) + 1, (1000 << 16) + 2, 1001 << 16]


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    clock = wall(7, 7, 8)
    clock.observe((7 << 16) + 0xFFFF)
    assert clock.tick() == 8 << 16
    assert clock.tick() == (8 << 16) + 1
    assert clock.tick() == (8 << 16) + 2


def test_it_goes_on_where_an_earlier_run_ended() -> None:
    assert HybridClock(lambda: 0, last=from_millis(99)).tick() == (99 << 16) + 1


def test_observing_reads_no_clock() -> None:
    clock = wall()
    clock.observe(from_millis(5))
    assert clock.last == from_millis(5)


@given(millis)
def test_millis_round_trip_and_fit_64_bits_with_a_sign(ms: int) -> None:
    time = from_millis(ms)
    assert 0 <= time <= 2**63 - 1
    assert to_millis(time) == to_millis(time | 0xFFFF) == ms


@pytest.mark.parametrize("value", [-1, MAX_TIME + 1])
def test_numbers_that_are_no_time_are_refused(value: int) -> None:
    clock = HybridClock(lambda: 1)
    with pytest.raises(TimeRangeError) as caught:
        clock.observe(value)
    error = caught.value
    assert isinstance(error, RefoldError)
    assert (error.code, error.value, error.limit) == ("time-out-of-range", value, MAX_TIME)
    assert clock.last == 0
    for function in (to_millis, format_time):
        with pytest.raises(TimeRangeError):
            function(value)
    with pytest.raises(TimeRangeError):
        HybridClock(lambda: 1, last=value)


def test_a_clock_at_its_end_refuses_and_stays() -> None:
    clock = HybridClock(lambda: 0, last=MAX_TIME)
    with pytest.raises(TimeRangeError):
        clock.tick()
    assert clock.last == MAX_TIME
    with pytest.raises(TimeRangeError):
        HybridClock(lambda: MAX_MILLIS + 1).tick()


@pytest.mark.parametrize("ms", [-1, MAX_MILLIS + 1])
def test_millis_out_of_range_are_refused(ms: int) -> None:
    with pytest.raises(TimeRangeError):
        from_millis(ms)


@given(millis)
def test_text_round_trips(ms: int) -> None:
    text = format_time(from_millis(ms))
    assert parse_time(text) == ms
    assert len(text) == len("2026-01-01T12:00:00.123Z")


@given(millis, millis)
def test_text_sorts_as_times_do(a: int, b: int) -> None:
    assert (format_time(from_millis(a)) < format_time(from_millis(b))) == (a < b)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(6000, 1, 1)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_any_offset_is_the_same_moment(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_time(moment.isoformat()) == elapsed // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T12:00:00.123Z", 1767268800123),
        ("2026-01-01T12:00:00.1239999Z", 1767268800123),
        ("2026-01-01T12:00:00.1Z", 1767268800100),
        ("2026-01-01T12:00:00Z", 1767268800000),
        ("2026-01-01T12:00Z", 1767268800000),
        ("2026-01-01 12:00z", 1767268800000),
        (" 2026-01-01t13:00+01:00 ", 1767268800000),
        ("2026-01-01T06:30-05:30", 1767268800000),
        ("2026-01-01T12:00-00:00", 1767268800000),
        ("2026-01-01", 1767225600000),
        ("1970-01-01", 0),
        ("1969-12-31T23:00-01:00", 0),
    ],
)
def test_accepted_forms(text: str, expected: int) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1767268800",
        "2026-01-01T12:00",
        "2026-01-01T12Z",
        "2026-01-01Z",
        "2026-02-30",
        "2026-13-01",
        "2026-1-1",
        "2026-01-01T24:00Z",
        "2026-01-01T12:60Z",
        "2026-01-01T12:00:60Z",
        "2026-01-01T12:00:00.Z",
        "2026-01-01T12:00.5Z",
        "2026-01-01T12:00+24:00",
        "2026-01-01T12:00+01:60",
        "2026-01-01T12:00+0100",
        "２０２６-01-01",
        "1969-12-31",
        "1970-01-01T00:00+00:01",
        "6430-01-01",
        "9999-12-31T23:59-23:59",
        "0000-01-01",
        "2026-01-01T12:00Z\n2026",
    ],
)
def test_other_text_is_refused_and_told_what_is_accepted(text: str) -> None:
    with pytest.raises(TimeTextError) as caught:
        parse_time(text)
    error = caught.value
    assert isinstance(error, RefoldError)
    assert (error.code, error.text) == ("bad-time", text)
    assert error.why
    assert "2026-01-01T12:00:00.123Z" in error.hint
    assert repr(text) in str(error)


def test_format_cuts_the_counter() -> None:
    assert format_time(from_millis(1767268800123) + 5) == "2026-01-01T12:00:00.123Z"
    assert format_time(0) == "1970-01-01T00:00:00.000Z"
    assert format_time(MAX_TIME).startswith("6429-")
