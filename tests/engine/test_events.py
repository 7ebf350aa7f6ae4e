"""Canonical bytes: one spelling an event, the inverse of decoding, and a chain that shows any change."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.events import GENESIS, Checkpoint, Event, Head, Kind, canonical, decode, seal

from .histories import histories
from .test_values import int64, json, text

events = st.builds(
    Event,
    replica=text,
    seq=st.integers(1, 2**63 - 1),
    time=st.integers(0, 2**63 - 1),
    kind=st.sampled_from(Kind),
    collection=text,
    key=text,
    data=st.dictionaries(text, json, max_size=3),
    context=st.dictionaries(text, st.integers(1, 2**63 - 1), max_size=3),
    actor=text,
    version=st.integers(1, 1000),
    batch=int64,
    request_id=st.none() | text,
    meta=st.dictionaries(text, text, max_size=3),
    prev=st.binary(min_size=32, max_size=32),
    position=st.integers(0, 2**63 - 1),
)


def shuffled(value: Any) -> Any:
    """The same value with every mapping in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(events, st.integers(0, 10))
def test_decoding_is_the_inverse(event: Event, position: int) -> None:
    body = canonical(event)
    again = decode(body, position)
    assert again == msgspec.structs.replace(event, position=position)
    assert repr(again.data) == repr(decode(canonical(again)).data)
    assert canonical(again) == body


@given(events)
def test_position_and_the_order_of_mappings_leave_no_trace(event: Event) -> None:
    other = msgspec.structs.replace(
        event, position=event.position // 2, data=shuffled(event.data), context=shuffled(event.context)
    )
    assert canonical(other) == canonical(event)
    assert other.hash == event.hash == seal(event)[1]
    assert seal(event)[0] == canonical(event)


@given(events, events)
def test_different_events_have_different_bytes(one: Event, other: Event) -> None:
    equal = msgspec.structs.replace(one, position=0) == msgspec.structs.replace(other, position=0)
    assert equal or canonical(one) != canonical(other)


@pytest.mark.parametrize("twins", [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (None, ""), ([], {})])
def test_values_that_python_takes_for_equal_are_told_apart(twins: tuple[Any, Any]) -> None:
    bodies = [
        canonical(Event("a", 1, 1, Kind.CREATE, "c", "k", {"x": value}, {}, "", 1, 1, None, {}, GENESIS))
        for value in twins
    ]
    assert bodies[0] != bodies[1]


@given(histories())
def test_events_of_a_replica_form_a_chain(written: list[Event]) -> None:
    heads: dict[str, Head] = {}
    for event in written:
        head = heads.get(event.replica, Head(0, GENESIS))
        assert (event.seq, event.prev) == (head.seq + 1, head.hash)
        heads[event.replica] = Head(event.seq, event.hash)


@given(events, st.data())
def test_a_flipped_bit_changes_the_hash_or_cannot_be_read(event: Event, data: st.DataObject) -> None:
    body = bytearray(canonical(event))
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    try:
        found = decode(bytes(body))
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError):
        return
    assert canonical(found) != canonical(event)


@pytest.mark.parametrize(
    "body", [b"", b"\x80", b"\x9e", b"\xc0", canonical.__doc__.encode() if canonical.__doc__ else b""]
)
def test_bytes_that_are_no_event_are_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(body)


def test_what_an_event_says() -> None:
    event = Event("a", 1, 1, Kind.UPDATE, "c", "k", {}, {}, "", 1, 1, None, {"reason": "why"}, GENESIS)
    assert (event.reason, event.record) == ("why", ("c", "k"))
    assert msgspec.structs.replace(event, meta={}).reason is None
    assert Checkpoint(3, {"b": Head(1, b""), "a": Head(2, b"")}).vector == {"a": 2, "b": 1}
