"""Definitions: what may be defined, what it may become, how it is written and read back."""

import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Optional

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refold
from refold.conflict import FIELD_STRATEGIES, STRATEGIES, same
from refold.errors import DefinitionRefused, FieldUnknown, ValueRefused
from refold.schema import (
    KEY_LIMIT,
    Collection,
    Field,
    Schema,
    check,
    collection_of,
    evolve,
    from_data,
    from_struct,
    from_toml,
    parse_field,
    to_data,
)
from refold.values import TYPES

from .test_values import VALUES, nested

fields = st.sampled_from(sorted(TYPES)).flatmap(
    lambda name: st.builds(
        Field,
        st.just(name),
        null=st.booleans(),
        pattern=st.none() | st.just("^[a-z]*") if name == "str" else st.none(),
        default=st.none() | VALUES[name].map(TYPES[name].store),
        strategy=st.none() | st.sampled_from(STRATEGIES),
        references=st.none() | st.just("others"),
    )
)
collections = st.builds(
    lambda names, **rest: check(Collection(fields={"id": Field("str"), **names}, **rest)),
    st.dictionaries(st.sampled_from(["a", "b", "Größe", "x y", "order"]), fields, max_size=4),
    name=st.just("things"),
    key=st.just("id"),
    folder=st.sampled_from(["", "{id}", "x/{id}"]),
    strategy=st.sampled_from(STRATEGIES),
    version=st.integers(1, 9),
    neutralise=st.booleans(),
)


@given(collections)
@settings(max_examples=settings().max_examples // 3)
def test_a_definition_comes_back_from_its_event(collection: Collection) -> None:
    data = to_data(collection)
    assert from_data("things", msgspec.msgpack.decode(msgspec.msgpack.encode(data))) == collection
    assert from_data("things", dict(reversed(data.items()))) == collection
    assert list(from_data("things", data).fields) == list(collection.fields)


@given(collections)
@settings(max_examples=settings().max_examples // 3)
def test_defining_the_same_again_changes_nothing(collection: Collection) -> None:
    assert evolve(collection, collection) == collection == evolve(None, collection)


@given(collections, collections)
@settings(max_examples=settings().max_examples // 3)
def test_a_definition_evolves_or_is_refused(old: Collection, new: Collection) -> None:
    try:
        after = evolve(old, new)
    except DefinitionRefused:
        return
    assert after.fields.keys() == {*old.fields, *new.fields}
    for name, field in old.fields.items():
        assert after.fields[name].type == field.type
        assert after.fields[name].null or not field.null, "null stays possible where it was"
    for name in new.fields.keys() - old.fields.keys():
        assert new.fields[name].null or new.fields[name].default is not None


THINGS = Collection(name="things", key="id", fields={"id": Field("str"), "n": Field("int", null=True)})


def changed(**changes: Any) -> Collection:
    return msgspec.structs.replace(THINGS, **changes)


def with_field(name: str, field: Field) -> Collection:
    return changed(fields={**THINGS.fields, name: field})


REFUSED = [
    (changed(name=""), "a name is"),
    (changed(name="1st"), "a name is"),
    (changed(name="a/b"), "a name is"),
    (changed(name="sqlite_x"), "a name is"),
    (changed(name="_refold_records"), "a name is"),
    (changed(name="x" * 65), "a name is"),
    (changed(key="never"), "the key"),
    (changed(key="n"), "the key"),
    (changed(fields={"id": Field("float")}), "the key"),
    (changed(fields={"id": Field("str", null=True)}), "the key"),
    (changed(strategy="max"), "strategy"),
    (changed(version=0), "version"),
    (changed(folder="{never}"), "no field"),
    (changed(folder="../{id}"), "folder"),
    (changed(folder="{id"), "folder"),
    (with_field("ID", Field("str", null=True)), "differ in case"),
    (with_field("", Field("str")), "cannot be a field's name"),
    (with_field("a\nb", Field("str")), "cannot be a field's name"),
    (with_field("a\ud800", Field("str")), "cannot be a field's name"),
    (with_field("_refold", Field("str")), "cannot be a field's name"),
    (with_field("x", Field("text")), "types are"),
    (with_field("x", Field("int", pattern="a")), "only text"),
    (with_field("x", Field("str", pattern="(")), "pattern"),
    (with_field("x", Field("str", pattern="\ud800")), "surrogate"),
    (with_field("x", Field("str", references="\ud800")), "surrogate"),
    (with_field("x", Field("str", strategy="best")), "strategy"),
    (with_field("x", Field("str", strategy="sum")), "strategy sum is for"),
    (with_field("x", Field("str", strategy="union")), "strategy union is for"),
    (with_field("x", Field("int", default="one")), "whole number"),
    (with_field("x", Field("date", default="29.7.2024")), "YYYY-MM-DD"),
    (with_field("x", Field("str", null=True, required=True)), "required and null"),
]


@pytest.mark.parametrize(("collection", "reason"), REFUSED)
def test_a_definition_that_makes_no_sense_is_refused(collection: Collection, reason: str) -> None:
    with pytest.raises(DefinitionRefused, match=reason):
        check(collection)


@pytest.mark.parametrize("strategy", FIELD_STRATEGIES)
def test_every_field_strategy_has_a_type_that_it_fits(strategy: str) -> None:
    kind = {"union": "json"}.get(strategy, "int")
    check(with_field("x", Field(kind, strategy=strategy)))


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (changed(fields={"no": Field("str"), **THINGS.fields}, key="no"), "the key is 'id'"),
        (with_field("n", Field("float", null=True)), "has type int"),
        (with_field("n", Field("int")), "may be null"),
        (with_field("n", Field("int", default=3)), "may be null"),
        (with_field("more", Field("str")), "must allow null or have a default"),
    ],
)
def test_what_a_definition_cannot_become(new: Collection, reason: str) -> None:
    with pytest.raises(DefinitionRefused, match=reason):
        evolve(THINGS, new)


def test_fields_that_are_left_out_stay() -> None:
    after = evolve(with_field("old", Field("str", null=True)), with_field("new", Field("str", default="x")))
    assert list(after.fields) == ["id", "n", "old", "new"]


TOML = """
[collections.airports]
key = "icao"
folder = "{country}"
strategy = "manual"
[collections.airports.fields]
icao = "str"
country = { type = "str?", default = "??" }
elevation = "float?"
opened = { type = "date", required = true, default = 2024-01-01 }
code = { type = "str", pattern = "^\\\\d{6}$" }
"""


def test_collections_from_toml() -> None:
    (collection,) = from_toml(TOML)
    assert collection.fields == {
        "icao": Field("str"),
        "country": Field("str", null=True, default="??"),
        "elevation": Field("float", null=True),
        "opened": Field("date", required=True, default=datetime.date(2024, 1, 1)),
        "code": Field("str", pattern="^\\d{6}$"),
    }
    assert (collection.name, collection.key, collection.strategy) == ("airports", "icao", "manual")
    assert Schema(collection).blank["opened"] == "2024-01-01"
    assert Schema(from_data("airports", to_data(collection))).blank == Schema(collection).blank


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "defines no"),
        ("a = 1", "defines no"),
        ("collections = 1", "defines no"),
        ("[collections", "not TOML"),
        ("[collections.a]", "key"),
        ("[collections.a]\nkey = 'id'\nfields = 3", "dictionary|int"),
        ("[collections.a]\nkey = 'id'\nfields = { id = 'text' }", "types are"),
        ("[collections.a]\nkey = 'id'\nfields = { id = { type = 'str', size = 3 } }", "size"),
        ("[collections.a]\nkey = 'id'\ncolour = 'red'\nfields = { id = 'str' }", "unknown setting colour"),
        ("[collections]\na = 3", "int"),
    ],
)
def test_toml_that_defines_nothing_good_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DefinitionRefused, match=reason):
        from_toml(text)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(msgspec.Struct):
    key: str
    n: int
    maybe: float | None = None
    older: Optional[datetime.date] = None  # noqa: UP045 - both spellings of null
    when: datetime.datetime = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    price: Decimal = Decimal("1.50")
    raw: bytes = b"x"
    flag: bool = True
    tags: list[str] = []
    either: int | str = 1
    named: Annotated[int, msgspec.Meta(ge=0)] = 0
    colour: Colour = Colour.RED
    other: int = msgspec.field(default=0, name="other-name")


def test_collections_from_a_class() -> None:
    collection = from_struct(Everything, "things", key="key", fields={"n": {"type": "int", "strategy": "sum"}})
    assert {name: (field.type, field.null) for name, field in collection.fields.items()} == {
        "key": ("str", False),
        "n": ("int", False),
        "maybe": ("float", True),
        "older": ("date", True),
        "when": ("datetime", False),
        "price": ("decimal", False),
        "raw": ("bytes", False),
        "flag": ("bool", False),
        "tags": ("json", False),
        "either": ("json", False),
        "named": ("int", False),
        "colour": ("str", False),
        "other-name": ("int", False),
    }
    blank = Schema(collection).blank
    assert blank["when"] == "2024-01-01T00:00:00Z" and blank["price"] == "1.50" and blank["raw"] == "eA=="
    assert collection.fields["n"].strategy == "sum"


def test_a_decorated_class_knows_its_collection() -> None:
    @refold.collection("orders", key="id")
    class Order(msgspec.Struct):
        id: str

    class Other(Order):
        pass

    assert collection_of(Order).name == "orders"
    for plain in (Other, Everything):
        with pytest.raises(TypeError, match="not decorated"):
            collection_of(plain)


def test_field_specs() -> None:
    assert parse_field("float?") == Field("float", null=True)
    assert parse_field({"type": "str?", "pattern": "a"}) == Field("str", null=True, pattern="a")
    for bad in (3, {"null": True}, {"type": "str", "never": 1}, None):
        with pytest.raises(ValueError, match=r"."):
            parse_field(bad)


KEYED = Schema(
    Collection(
        name="things",
        key="id",
        fields={
            "id": Field("str"),
            "code": Field("str", null=True, pattern="^[0-9]{3}$"),
            "title": Field("str", required=True),
            "tags": Field("json", required=True, default=["x"]),
            "x": Field("float", default=1),
        },
    )
)


@pytest.mark.parametrize(
    ("values", "field", "reason"),
    [
        ({"id": ""}, "id", "a key has"),
        ({"id": "x" * (KEY_LIMIT + 1)}, "id", "a key has"),
        ({"id": "ä" * (KEY_LIMIT // 2 + 1)}, "id", "a key has"),
        ({"id": None}, "id", "must not be null"),
        ({"title": ""}, "title", "is required"),
        ({"title": None}, "title", "must not be null"),
        ({"tags": []}, "tags", "is required"),
        ({"code": "12"}, "code", "does not match"),
        ({"code": "\ud800"}, "code", "surrogate"),
        ({"x": float("nan")}, "x", "NaN"),
        ({"x": 10**5000}, "x", "2\\*\\*53"),
        ({"tags": nested(100_000)}, "tags", "nested too deeply"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_field(values: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(ValueRefused, match=reason) as caught:
        KEYED.store(values)
    assert caught.value.field == field and caught.value.collection == "things"
    str(caught.value).encode()


def test_a_record_is_made_whole() -> None:
    assert KEYED.whole({"id": "1", "title": "t"}) == {"id": "1", "code": None, "title": "t", "tags": ["x"], "x": 1.0}
    assert same(KEYED.blank["x"], 1.0)
    with pytest.raises(ValueRefused, match="title"):
        KEYED.whole({"id": "1"})
    with pytest.raises(FieldUnknown, match="never"):
        KEYED.store({"never": 1})
    assert KEYED.store({"id": "x" * KEY_LIMIT})["id"]


@pytest.mark.parametrize(
    ("kind", "key", "text"),
    [
        ("str", "007", "007"),
        ("int", 7, "7"),
        ("int", "007", "7"),
        ("int", "-7", "-7"),
        ("date", datetime.date(2024, 7, 29), "2024-07-29"),
        ("datetime", "2024-07-29T12:00:00+02:00", "2024-07-29T10:00:00Z"),
    ],
)
def test_keys_as_events_hold_them(kind: str, key: Any, text: str) -> None:
    schema = Schema(Collection(name="c", key="id", fields={"id": Field(kind)}))
    assert schema.key_text(key) == text
    for bad in (None, 1.5, "", b"1"):
        with pytest.raises(ValueRefused):
            schema.key_text(bad)


def test_values_are_loaded_in_the_order_of_the_definition() -> None:
    schema = Schema(Collection(name="c", key="id", fields={"id": Field("int"), "d": Field("date", null=True)}))
    assert list(schema.load({"d": "2024-07-29", "id": 1}).items()) == [("id", 1), ("d", datetime.date(2024, 7, 29))]
    assert schema.load({"id": 1}) == {"id": 1, "d": None}
