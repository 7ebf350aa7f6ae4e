"""Schema versions: what older writers wrote is read as the current version has it, wherever and whenever it comes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from refold.conversions import conversion_entries, describe_conversion
from refold.events import Event, canonical
from refold.fold import State, decode_state, encode_state, fold
from refold.schema import Schema

from .generations import GENERATIONS, NAME, means, mixed_histories, told
from .histories import reordered

SCHEMAS = [Schema(collection) for collection in GENERATIONS]


def states(events: Sequence[Event]) -> dict[str, State]:
    found: dict[str, State] = {}
    for event in events:
        found[event.key] = fold(found.get(event.key), event)
    return found


def plain(state: State) -> tuple[dict[str, list[tuple[str, int, Any]]], list[tuple[str, int, bool]]]:
    """A state as the model has it: of each field who wrote what, and of presence."""
    fields: dict[str, list[tuple[str, int, Any]]] = {}
    presence = []
    for one in state.writes:
        for name, value in one.data.items():
            fields.setdefault(name, []).append((one.replica, one.seq, value))
        if one.present is not None:
            presence.append((one.replica, one.seq, one.present))
    return fields, presence


@given(mixed_histories(), st.integers(0, 2), st.randoms())
def test_any_version_reads_a_history_of_any_as_the_definition_says(
    events: list[Event], generation: int, random: Random
) -> None:
    schema = SCHEMAS[generation]
    for key, state in states(reordered(events, random)).items():
        own = [event for event in events if event.key == key and event.version <= generation + 1]
        if any(event.version > generation + 1 for event in events):
            continue
        fields, presence = means(own, generation)
        wanted = {name: [(*one.dot, one.data[name]) for one in left] for name, left in fields.items()}
        assert plain(schema.read(state)) == (wanted, [(*one.dot, one.kind != "delete") for one in presence])


@given(mixed_histories(), st.randoms())
def test_states_do_not_depend_on_the_order_and_come_back_from_their_bytes(events: list[Event], random: Random) -> None:
    newest = {event.key: canonical(event) for event in events}
    for key, state in states(events).items():
        again = states(reordered(events, random))[key]
        assert again == state
        assert decode_state(encode_state(state, newest[key])) == state
        assert encode_state(again, newest[key]) == encode_state(state, newest[key])


@given(mixed_histories(), st.integers(0, 2))
def test_reading_twice_is_reading_once(events: list[Event], generation: int) -> None:
    schema = SCHEMAS[generation]
    for state in states(events).values():
        read = schema.read(state)
        assert schema.read(read) == read
        assert read.version == state.version
    for event in events:
        assert schema.read_event(schema.read_event(event)) == schema.read_event(event)


@given(mixed_histories())
def test_what_cannot_be_read_is_kept_in_sight_while_it_stands(events: list[Event]) -> None:
    schema = SCHEMAS[2]
    for key, state in states(events).items():
        own = [event for event in events if event.key == key]
        standing, _ = means(own, 2)
        kept = {
            (name, *event.dot, told(event, 2)[1][name])
            for name, left in standing.items()
            for event in own
            if event.dot in {one.dot for one in left} and name in told(event, 2)[1]
        }
        entries = conversion_entries((NAME, key), schema, state)
        found = [describe_conversion(entry, schema, state, {}) for entry in entries]
        shown = {
            (name, side.replica, side.seq, side.value)
            for conflict in found
            if conflict is not None
            for name, sides in conflict.sides.items()
            for side in sides
        }
        assert shown == kept and None not in found


def test_states_of_the_first_version_are_spelt_as_before() -> None:
    state = State({"a": 2}, [])
    assert encode_state(state) == msgspec.msgpack.encode([{"a": 2}, []])
