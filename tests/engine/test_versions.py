"""Schema versions: what older writers wrote is read as the current version has it, wherever and whenever it comes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.conversions import conversion_entries, describe_conversion
from refold.errors import DefinitionRefused, FieldUnknown, SchemaVersionUnknown, ValueRefused
from refold.events import Event, canonical
from refold.fold import State, decode_state, encode_state, fold
from refold.schema import Collection, Field, Schema, check, evolve, from_data, from_toml, to_data
from refold.values import Refused
from refold.versions import Add, Convert, Drop, Rename, Step, converted

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


TEXT = Field("str", null=True)
BASE = Collection(name="orders", key="id", folder="{name}", fields={"id": Field("str"), "name": TEXT, "size": TEXT})


def second(*steps: Step, version: Any = 2, **fields: Field) -> Collection:
    """The collection at a further version: its fields but those that are given as null, with others."""
    kept = {"id": Field("str"), "name": TEXT, "size": TEXT} | fields
    return Collection(name="orders", key="id", version=version, steps=list(steps), fields=kept)


def without(collection: Collection, *names: str) -> Collection:
    fields = {name: field for name, field in collection.fields.items() if name not in names}
    return msgspec.structs.replace(collection, fields=fields)


REFUSED = [
    (second(version="2.1"), "version counts"),
    (second(version=0), "version counts"),
    (second(Add("tel"), version=1, tel=TEXT), "leads to version 1"),
    (second(Add("tel", version=3), tel=TEXT), "leads to version 3"),
    (second(Add("tel")), "no field"),
    (second(Add("tel"), tel=Field("str")), "null or have a default"),
    (second(Add("tel", default="x"), tel=Field("str", default="y")), "has default 'x'"),
    (second(Add("name")), "it has a field 'name'"),
    (second(Rename("name", "title"), title=TEXT), "taken away"),
    (without(second(Rename("title", "name"))), "no field 'title'"),
    (without(second(Rename("name", "size")), "name"), "it has a field 'size'"),
    (without(second(Rename("name", "a"), Rename("name", "b"), a=TEXT, b=TEXT), "name"), "any more"),
    (without(second(Drop("name"), Add("name", version=3), version=3), ""), "another meaning"),
    (without(second(Drop("id")), "id"), "the key"),
    (second(Convert("id", "int"), id=Field("int")), "never converted"),
    (second(Convert("size", "number")), "types are"),
    (second(Convert("size", "int")), "leads to int"),
    (second(Convert("size", "int"), size=Field("int")), "name what it is otherwise"),
    (second(Convert("size", "int", mapping={"x": "y"}), size=Field("int", null=True)), "whole number"),
    (second(Convert("size", "int", otherwise="0"), size=Field("int")), "whole number"),
    (second(Convert("size", "date", form="%d.%m"), size=Field("date", null=True)), "form"),
    (second(Convert("size", "str", form="%d.%m.%Y")), "dates and times"),
    (second(size=Field("int", null=True)), "cannot become int"),
]


@pytest.mark.parametrize(("wanted", "why"), REFUSED)
def test_steps_that_make_no_sense_are_refused(wanted: Collection, why: str) -> None:
    with pytest.raises(DefinitionRefused, match=why):
        evolve(BASE, wanted)


def test_a_version_has_the_same_steps_for_good() -> None:
    renamed = without(second(Rename("name", "title"), title=TEXT), "name")
    known = evolve(BASE, renamed)
    assert evolve(known, renamed) == known == evolve(known, check(BASE))
    assert from_data("orders", to_data(known)) == known
    with pytest.raises(DefinitionRefused, match="version 2 is known"):
        evolve(known, without(second(Drop("name")), "name"))
    with pytest.raises(DefinitionRefused, match="taken away"):
        evolve(known, msgspec.structs.replace(known, version=3, fields={**known.fields, "name": TEXT}))
    with pytest.raises(DefinitionRefused, match="took away"):
        evolve(known, msgspec.structs.replace(known, steps=[], fields={**known.fields, "name": TEXT}))


def test_steps_stand_in_a_toml_file() -> None:
    (found,) = from_toml(
        """
        [collections.orders]
        key = "id"
        version = "2.0"
        steps = [
            { step = "rename", old = "name", new = "title" },
            { step = "convert", field = "size", to = "int", mapping = { XL = 4 }, otherwise = 0, version = "2.0" },
        ]
        [collections.orders.fields]
        id = "str"
        title = "str?"
        size = "int?"
        """
    )
    assert found.version == 2
    assert found.steps == [
        Rename("name", "title", version=2),
        Convert("size", "int", mapping={"XL": 4}, otherwise=0, version=2),
    ]


CONVERSIONS = [
    ("int", "12", 12),
    ("int", 12.0, 12),
    ("int", True, 1),
    ("float", "1.5", 1.5),
    ("float", 3, 3.0),
    ("str", 12, "12"),
    ("str", True, "true"),
    ("str", 0.5, "0.5"),
    ("str", [1], "[1]"),
    ("bool", "true", True),
    ("bool", 0, False),
    ("decimal", 1.1, "1.1"),
    ("decimal", "1.10", "1.10"),
    ("date", "2024-07-29", "2024-07-29"),
    ("datetime", "2024-07-29", "2024-07-29T00:00:00Z"),
    ("json", "x", "x"),
    ("int", None, None),
]


@pytest.mark.parametrize(("to", "value", "wanted"), CONVERSIONS)
def test_a_value_becomes_what_it_spells(to: str, value: Any, wanted: Any) -> None:
    found = converted(Convert("x", to), value)
    assert (type(found), found) == (type(wanted), wanted)


@pytest.mark.parametrize(("to", "value"), [("int", "1.5"), ("int", 1.5), ("bool", 2), ("date", "29.07.2024")])
def test_a_value_that_spells_nothing_of_a_type_is_refused(to: str, value: Any) -> None:
    with pytest.raises(Refused):
        converted(Convert("x", to), value)


def test_a_form_says_how_dates_were_written() -> None:
    assert converted(Convert("x", "date", form="%d.%m.%Y"), "9.7.2024") == "2024-07-09"
    time = Convert("x", "datetime", form="%d.%m.%Y %H:%M")
    assert converted(time, "29.07.2024 10:30") == "2024-07-29T10:30:00Z"
    with pytest.raises(Refused):
        converted(Convert("x", "date", form="%d.%m.%Y"), "31.02.2024")


def test_values_of_an_older_version_are_read_where_they_are_written() -> None:
    schema = SCHEMAS[2]
    assert schema.store_as({"id": "1", "label": "x", "amount": "none"}, "1.0") == {
        "id": "1",
        "title": "x",
        "count": "0",
    }
    assert schema.store_as({"title": "x"}, 3) == {"title": "x"}
    with pytest.raises(ValueRefused, match="of version 1"):
        schema.store_as({"amount": "many"}, 1)
    assert schema.store_as({"note": "kept"}, 2) == {"note": "kept"}
    with pytest.raises(FieldUnknown):
        schema.store_as({"nothing": 1}, 2)
    for version in (0, 4, "1.5", "x"):
        with pytest.raises(SchemaVersionUnknown) as error:
            schema.store_as({}, version)
        assert error.value.known == ["1", "2", "3"]
