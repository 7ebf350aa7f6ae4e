"""Every value that is taken comes back exactly, through every spelling; every other one is refused with a reason."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.conflict import same
from refold.events import GENESIS, Event, Kind, canonical, decode
from refold.values import DEPTH, TYPES, Refused, show

text = st.text(st.characters(exclude_categories=["Cs"]))
int64 = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
zones = st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
json = st.recursive(
    st.none() | st.booleans() | int64 | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": text,
    "int": int64,
    "float": finite,
    "bool": st.booleans(),
    "date": st.dates(),
    "datetime": st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False),
    "bytes": st.binary(),
    "json": json,
}
typed = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


def test_every_type_is_tried() -> None:
    assert VALUES.keys() == TYPES.keys()


@given(typed)
def test_a_value_comes_back_exactly(case: tuple[str, Any]) -> None:
    name, value = case
    kind = TYPES[name]
    stored = kind.store(value)
    loaded = kind.load(stored)
    assert loaded == value and type(loaded) is type(value)
    if name == "decimal":
        assert str(loaded) == str(value)
    assert same(kind.store(loaded), stored), "what was loaded is stored alike"
    assert same(kind.store(stored), stored), "the stored spelling is taken too"


@given(typed)
def test_text_reads_back_as_the_same_value(case: tuple[str, Any]) -> None:
    name, value = case
    kind = TYPES[name]
    stored = kind.store(value)
    written = kind.text(stored)
    written.encode()
    assert same(kind.parse(written), stored)


@given(typed)
def test_an_event_carries_the_stored_value_exactly(case: tuple[str, Any]) -> None:
    name, value = case
    stored = TYPES[name].store(value)
    event = Event("a", 1, 1, Kind.CREATE, "c", "k", {"field": stored}, {}, "", 1, 1, None, {}, GENESIS)
    body = canonical(event)
    again = decode(body)
    assert canonical(again) == body
    assert same(again.data["field"], stored)


@given(st.sampled_from(sorted(VALUES)), json | typed.map(lambda case: case[1]) | st.floats() | st.complex_numbers())
@settings(max_examples=settings().max_examples * 2)
def test_what_is_taken_is_one_value_and_the_rest_is_refused(name: str, value: Any) -> None:
    kind = TYPES[name]
    try:
        stored = kind.store(value)
    except Refused:
        return
    assert same(kind.store(kind.load(stored)), stored)
    assert same(kind.parse(kind.text(stored)), stored)
    msgspec.json.encode(stored)


@given(st.sampled_from(sorted(VALUES)), text | st.from_regex(r"[-+0-9.eET:ZnaNif _]{0,25}", fullmatch=True))
@settings(max_examples=settings().max_examples * 2)
def test_text_is_parsed_or_refused(name: str, written: str) -> None:
    kind = TYPES[name]
    try:
        stored = kind.parse(written)
    except Refused:
        return
    assert same(kind.parse(kind.text(stored)), stored)


class Colour(Enum):
    RED = "red"
    ONE = 1


class Number(IntEnum):
    ONE = 1


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


NO_TIME = datetime(2024, 7, 29, 10, 0)
REFUSED: list[tuple[str, Any, str]] = [
    ("str", "a\ud800", "lone surrogate at character 1"),
    ("str", 1, "not int"),
    ("str", b"a", "not bytes"),
    ("str", Colour.ONE, "not Colour"),
    ("int", 2**63, "64 bits"),
    ("int", -(2**63) - 1, "64 bits"),
    ("int", 2**64, "64 bits"),
    ("int", True, "not bool"),
    ("int", 1.0, "not float"),
    ("int", "1", "not str"),
    ("int", Number.ONE, "not Number"),
    ("float", math.nan, "NaN"),
    ("float", math.inf, "infinity"),
    ("float", -math.inf, "infinity"),
    ("float", 2**53 + 1, "2\\*\\*53"),
    ("float", "1.0", "not str"),
    ("float", True, "not bool"),
    ("bool", 1, "not int"),
    ("bool", "true", "not str"),
    ("date", NO_TIME, "not datetime"),
    ("date", "2024-7-29", "YYYY-MM-DD"),
    ("date", "20240729", "YYYY-MM-DD"),
    ("date", "2024-W31-1", "YYYY-MM-DD"),
    ("date", "2024-02-30", "YYYY-MM-DD"),
    ("datetime", NO_TIME, "needs a zone"),
    ("datetime", "2024-07-29T10:00:00", "needs a zone"),
    ("datetime", "2024-07-29", "2024-07-29T10:00:00Z"),
    ("datetime", "2024-07-29T25:00:00Z", "2024-07-29T10:00:00Z"),
    ("datetime", "2024-07-29T10:00:00.1234567Z", "microsecond"),
    ("datetime", "0001-01-01T00:00:00+23:00", "years 1 to 9999"),
    ("datetime", date(2024, 7, 29), "not date"),
    ("decimal", Decimal("NaN"), "NaN"),
    ("decimal", "sNaN", "NaN"),
    ("decimal", "Infinity", "infinity"),
    ("decimal", "1_000", "12.50"),
    ("decimal", " 1", "12.50"),
    ("decimal", "１", "12.50"),
    ("decimal", 1.5, "not float"),
    ("bytes", "a", "base64"),
    ("bytes", "AB==", "base64"),
    ("bytes", "AA==\n", "base64"),
    ("bytes", [1], "not list"),
    ("json", math.nan, "value: NaN"),
    ("json", {"a": [0, math.inf]}, r"\.a\[1\]: NaN"),
    ("json", {"a": {"b": 2**63}}, r"\.a\.b: .*64 bits"),
    ("json", ["\udfff"], r"\[0\]: a lone surrogate"),
    ("json", {"\ud800": 1}, "key: a lone surrogate"),
    ("json", {1: 2}, "keys are text, not int"),
    ("json", {"when": date(2024, 7, 29)}, r"\.when: date is not exact"),
    ("json", {"x": b"raw"}, r"\.x: bytes is not exact"),
    ("json", {1, 2}, "set is not exact"),
    ("json", nested(DEPTH + 1), "nested too deeply"),
    ("json", nested(100_000), "nested too deeply"),
]


@pytest.mark.parametrize(("name", "value", "reason"), REFUSED, ids=lambda case: show(case, 30))
def test_what_is_not_exact_is_refused_with_the_reason(name: str, value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        TYPES[name].store(value)


PARSED: list[tuple[str, str, Any]] = [
    ("int", "+7", 7),
    ("int", "-0", 0),
    ("float", "1e3", 1000.0),
    ("float", "5", 5.0),
    ("bool", "TRUE", True),
    ("bool", "0", False),
    ("datetime", "2024-07-29T12:00:00.500+02:00", "2024-07-29T10:00:00.500000Z"),
    ("datetime", "2024-07-29 10:00Z", "2024-07-29T10:00:00Z"),
    ("datetime", "2024-07-29T10:00:00.123456000Z", "2024-07-29T10:00:00.123456Z"),
    ("decimal", "012.50", "12.50"),
    ("json", ' {"b": 1, "a": [1.0]} ', {"b": 1, "a": [1.0]}),
]


@pytest.mark.parametrize(("name", "written", "stored"), PARSED)
def test_spellings_that_people_use(name: str, written: str, stored: Any) -> None:
    assert same(TYPES[name].parse(written), stored)


UNREADABLE = [
    *[("int", text) for text in ("", "1.0", "٣", "1_0", "--1", " 1", "9223372036854775808", "1" * 5000)],
    *[("float", text) for text in ("", "nan", "inf", "-Infinity", "1e999", "1_0", "0x1p3", " 1")],
    *[("bool", text) for text in ("", "yes", "2")],
    *[
        ("json", text)
        for text in ("", "{", "nan", '"\\ud800"', "1e999", "9" * 30, "[" * 100_000, "[" * 101 + "]" * 101)
    ],
]


@pytest.mark.parametrize(("name", "written"), UNREADABLE, ids=lambda case: show(case, 30))
def test_text_that_is_no_value_is_refused(name: str, written: str) -> None:
    with pytest.raises(Refused):
        TYPES[name].parse(written)


def test_other_python_values_that_are_exact() -> None:
    class Point(msgspec.Struct):
        x: int
        tags: tuple[str, ...]

    assert TYPES["json"].store(Point(1, ("a",))) == {"x": 1, "tags": ["a"]}
    assert TYPES["str"].store(Colour.RED) == "red"
    assert TYPES["bytes"].store(bytearray(b"a")) == TYPES["bytes"].store(memoryview(b"a")) == "YQ=="
    assert TYPES["datetime"].store(datetime(2024, 7, 29, 10, tzinfo=UTC)) == "2024-07-29T10:00:00Z"
    assert same(TYPES["float"].store(-0.0), -0.0) and not same(-0.0, 0.0)
    assert TYPES["json"].store(nested(DEPTH)) == nested(DEPTH)


def test_messages_show_values_that_cannot_be_printed() -> None:
    assert show("a\ud800") == "'a\\ud800'"
    assert show(nested(100_000)) == "list too large to show"
    assert show(10**5000) == "int too large to show"
    assert show("x" * 100, 10) == "'xxxxxxxxx… (102 characters)"
