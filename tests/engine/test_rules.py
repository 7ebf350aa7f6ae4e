"""Rules between records: what a write here is refused for, and that what comes by sync is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import permutations
from typing import Any

import msgspec
import pytest

import refold
from refold import Collection, Conflict, Engine, Field
from refold.clients import Change
from refold.errors import DefinitionRefused, ReferenceMissing, ReferredTo, ResolutionRefused, UniqueTaken
from refold.schema import check, from_toml
from refold.testing import START, MemoryStore, Ticks, memory_engine

pytestmark = pytest.mark.anyio

PEOPLE = Collection(
    name="people",
    key="id",
    fields={
        "id": Field("str"),
        "name": Field("str", null=True),
        "mail": Field("str", null=True, unique=True),
        "boss": Field("str", null=True, references="people", missing="refuse"),
        "team": Field("str", null=True, references="teams", missing="refuse"),
        "friend": Field("str", null=True, references="people"),
    },
)
TEAMS = Collection(name="teams", key="id", fields={"id": Field("str"), "code": Field("int", unique=True)})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def replica(stack: AsyncExitStack, name: str, ahead: int = 0) -> Engine:
    return await stack.enter_async_context(memory_engine(MemoryStore(name), Ticks(START + ahead)))


async def one_of(stack: AsyncExitStack) -> Engine:
    engine = await replica(stack, "one")
    await engine.define(TEAMS)
    await engine.define(PEOPLE)
    await engine.put("teams", {"id": "t", "code": 1})
    await engine.put("people", {"id": "ann", "mail": "a@x", "team": "t"})
    return engine


async def two_of(stack: AsyncExitStack) -> tuple[Engine, Engine]:
    one, two = await one_of(stack), await replica(stack, "two", 1000)
    await one.sync(two)
    return one, two


async def clashes(engine: Engine, kind: str = "unique-conflict") -> list[Conflict]:
    return [conflict async for conflict in engine.conflicts(kind=kind)]


async def together(engine: Engine, *rows: dict[str, Any], delete: tuple[str, str] | None = None) -> None:
    async with engine.batch() as batch:
        if delete is not None:
            batch.delete(*delete)
        for row in rows:
            batch.put("people", row)


async def test_a_reference_that_must_lead_somewhere_is_refused_when_it_does_not(stack: AsyncExitStack) -> None:
    engine = await one_of(stack)
    with pytest.raises(ReferenceMissing) as caught:
        await engine.put("people", {"id": "bob", "team": "u"})
    fields = {"collection": "people", "key": "bob", "field": "team", "target": "teams", "target_key": "u"}
    assert (caught.value.fields(), caught.value.code) == (fields, "reference-missing")
    assert await engine.get("people", "bob") is None
    with pytest.raises(ReferenceMissing):
        await engine.patch("people", "ann", {"boss": "bob"})
    await engine.put("people", {"id": "bob", "friend": "nobody", "boss": "ann"})
    await engine.patch("people", "ann", {"boss": "ann"})
    await engine.delete("people", "bob")
    with pytest.raises(ReferenceMissing):
        await engine.patch("people", "ann", {"boss": "bob"})


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_parents_and_children_of_a_batch_or_push_come_in_any_order(
    stack: AsyncExitStack, order: tuple[int, ...]
) -> None:
    engine = await one_of(stack)
    rows = [{"id": "c", "boss": "d"}, {"id": "d", "boss": "e", "mail": "d@x"}, {"id": "e", "boss": "c"}]
    async with engine.batch() as batch:
        for index in order:
            batch.put("people", rows[index])
    rows = [{"id": "p", "boss": "q"}, {"id": "q", "boss": "r"}, {"id": "r", "boss": "p"}]
    changes = [
        Change(operation="create", collection="people", key=rows[i]["id"], values={"boss": rows[i]["boss"]})
        for i in order
    ]
    result = await engine.push(changes, client="phone")
    assert len(result.applied) == 3 and not result.failed


async def test_a_push_refuses_what_rests_on_what_it_refuses_and_nothing_else(stack: AsyncExitStack) -> None:
    engine = await one_of(stack)

    def create(key: str, **values: Any) -> Change:
        return Change(operation="create", collection="people", key=key, values=values, request_id=f"r-{key}")

    changes = [
        create("c", boss="b"),
        create("b", boss="a"),
        create("a", boss="nobody"),
        create("z", mail="z@x", boss="ann"),
        create("y", mail="z@x"),
        create("x", mail="a@x"),
        Change(operation="update", collection="people", key="a", values={"name": "A"}),
        Change(operation="delete", collection="teams", key="t"),
    ]
    result = await engine.push(changes, client="phone")
    assert [answer.key for answer in result.applied] == ["z"]
    codes = {(answer.collection, answer.key, answer.error.code) for answer in result.failed if answer.error}
    assert codes == {
        ("people", "a", "reference-missing"),
        ("people", "b", "reference-missing"),
        ("people", "c", "reference-missing"),
        ("people", "a", "record-unknown"),
        ("people", "y", "unique-taken"),
        ("people", "x", "unique-taken"),
        ("teams", "t", "referred-to"),
    }
    assert (await engine.push([create("a", boss="ann"), *changes[:2]], client="phone")).failed == []
    assert (await engine.verify()).findings == []


async def test_a_record_that_others_must_find_is_not_deleted(stack: AsyncExitStack) -> None:
    engine = await one_of(stack)
    for number in range(5):
        await engine.put("people", {"id": f"p{number}", "boss": "ann", "friend": "p4"})
    with pytest.raises(ReferredTo) as caught:
        await engine.delete("people", "ann")
    assert caught.value.referrers == ["people 'p0'", "people 'p1'", "people 'p2'", "others"]
    await engine.delete("people", "p4")
    async with engine.batch() as batch:
        batch.delete("people", "ann")
        for number in range(3):
            batch.delete("people", f"p{number}")
        batch.patch("people", "p3", {"boss": None})
    with pytest.raises(ReferredTo):
        await together(engine, {"id": "n", "team": "t"}, delete=("teams", "t"))
    await engine.delete("teams", "t")


async def test_what_came_broken_can_be_written_otherwise(stack: AsyncExitStack) -> None:
    one, two = await two_of(stack)
    await one.put("people", {"id": "bob", "team": "t"})
    await two.delete("people", "ann")
    await two.delete("teams", "t")
    await one.sync(two)
    (conflict,) = await clashes(one, "dependency-conflict")
    assert conflict.key == "bob"
    assert [other.id for other in await clashes(two, "dependency-conflict")] == [conflict.id]
    await one.patch("people", "bob", {"name": "Bob", "team": "t"})
    with pytest.raises(ReferenceMissing):
        await one.put("people", {"id": "eve", "team": "t"})
    await two.patch("people", "bob", {"team": None})
    await one.sync(two)
    assert await clashes(one, "dependency-conflict") == []


async def test_a_value_that_a_record_holds_is_refused_to_others(stack: AsyncExitStack) -> None:
    engine = await one_of(stack)
    with pytest.raises(UniqueTaken) as caught:
        await engine.put("people", {"id": "bob", "mail": "a@x"})
    fields = {"collection": "people", "key": "bob", "field": "mail", "value": "'a@x'", "holder": "ann"}
    assert caught.value.fields() | {"value": "'a@x'"} == fields and caught.value.code == "unique-taken"
    await engine.put("people", {"id": "ann", "mail": "a@x", "name": "Ann"})
    await engine.put("people", {"id": "bob", "mail": "b@x"})
    await engine.put("people", {"id": "eve", "mail": None})
    await engine.put("people", {"id": "joe", "mail": None})
    async with engine.batch() as batch:
        batch.patch("people", "ann", {"mail": "b@x"})
        batch.patch("people", "bob", {"mail": "a@x"})
    with pytest.raises(UniqueTaken):
        await together(engine, {"id": "n1", "mail": "n@x"}, {"id": "n2", "mail": "n@x"})
    await engine.delete("people", "bob")
    await engine.patch("people", "eve", {"mail": "a@x"})
    with pytest.raises(UniqueTaken):
        await engine.put("people", {"id": "bob", "mail": "a@x"})
    assert await clashes(engine) == []


async def test_the_tables_are_asked_once_a_batch_and_only_where_there_are_rules(stack: AsyncExitStack) -> None:
    store = MemoryStore("one")
    engine = await stack.enter_async_context(memory_engine(store, Ticks(START)))
    asked: list[int] = []
    holders = store.tables.holders

    def counting(values: Any, limit: int) -> Any:
        asked.append(len(values))
        return holders(values, limit)

    store.tables.holders = counting  # type: ignore[method-assign]
    await engine.define(msgspec.structs.replace(TEAMS, name="plain", fields={"id": Field("str")}))
    async with engine.batch() as batch:
        for number in range(20):
            batch.put("plain", {"id": str(number)})
    await engine.define(PEOPLE)
    await engine.put("plain", {"id": "x"})
    assert asked == []
    await together(engine, *({"id": str(number), "mail": f"{number}@x"} for number in range(20)))
    assert asked == [20]


async def test_writers_that_wait_together_see_each_other(stack: AsyncExitStack) -> None:
    engine = await one_of(stack)
    puts = [engine.put("people", {"id": f"p{n}", "mail": "same", "boss": "ann"}) for n in range(4)]
    deleted = engine.delete("people", "ann")
    outcomes = await asyncio.gather(*puts, deleted, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[1:]] == [UniqueTaken] * 3 + [ReferredTo]
    freed = [engine.delete("people", "p0"), engine.put("people", {"id": "p1", "mail": "same"})]
    assert not [one for one in await asyncio.gather(*freed, return_exceptions=True) if isinstance(one, Exception)]


async def test_replicas_that_took_a_value_apart_have_one_open_conflict(stack: AsyncExitStack) -> None:
    one, two = await two_of(stack)
    first = await one.put("people", {"id": "bob", "mail": "b@x"})
    second = await two.put("people", {"id": "eve", "mail": "b@x"})
    await one.sync(two)
    (conflict,) = await clashes(one)
    (other,) = await clashes(two)
    assert (await one.conflict(conflict.id)) == conflict
    assert (other.id, other.sides, other.outcome) == (conflict.id, conflict.sides, conflict.outcome)
    assert (conflict.collection, conflict.key, conflict.status) == ("people", "bob", "open")
    assert [side.value for side in conflict.sides["mail"]] == ["bob", "eve"]
    assert conflict.outcome == {"mail": "bob"}
    assert [event.hash for event in conflict.events] == [e.hash for e in (first, second) if e is not None]
    assert await one.digest() == await two.digest()
    await two.patch("people", "eve", {"name": "Eve"})
    assert [one.id for one in await clashes(two)] == [conflict.id]
    with pytest.raises(UniqueTaken):
        await two.patch("people", "ann", {"mail": "b@x"})
    await two.patch("people", "eve", {"mail": "e@x"})
    await one.sync(two)
    assert await clashes(one) == [] == await clashes(two)


async def test_three_holders_are_one_conflict_and_each_way_out_closes_it(stack: AsyncExitStack) -> None:
    one, two = await two_of(stack)
    three = await replica(stack, "three", 2000)
    await one.sync(three)
    for engine, key in ((one, "b"), (two, "c"), (three, "d")):
        await engine.put("people", {"id": key, "mail": "same"})
    await one.sync(two)
    (pair,) = await clashes(one)
    await one.sync(three)
    (conflict,) = await clashes(one)
    assert conflict.id == pair.id and [side.value for side in conflict.sides["mail"]] == ["b", "c", "d"]
    for wrong in ({"keep_both": True}, {}, {"values": {"mail": "x"}}, {"values": {"id": "c", "mail": "same"}}):
        with pytest.raises(ResolutionRefused):
            await one.resolve(conflict.id, **wrong)
    with pytest.raises(ResolutionRefused):
        await one.resolve(conflict.id, values={"id": "ann", "mail": "x"})
    await one.resolve(conflict.id, values={"id": "b", "mail": "b@x"})
    (rest,) = await clashes(one)
    assert [side.value for side in rest.sides["mail"]] == ["c", "d"] and rest.id != conflict.id
    events = await one.resolve(rest.id, take=rest.sides["mail"][1].dot)
    assert [(event.key, event.data) for event in events] == [("c", {"mail": None})]
    await one.sync(two)
    await one.sync(three)
    for engine in (one, two, three):
        assert await clashes(engine) == []
    record = await two.get("people", "d")
    assert record is not None and record.values["mail"] == "same"


async def test_a_value_that_may_not_be_null_is_not_taken_away(stack: AsyncExitStack) -> None:
    one, two = await two_of(stack)
    await one.put("teams", {"id": "u", "code": 7})
    await two.put("teams", {"id": "v", "code": 7})
    await one.sync(two)
    (conflict,) = await clashes(one)
    with pytest.raises(ResolutionRefused, match="null"):
        await one.resolve(conflict.id, take=conflict.sides["code"][0].dot)
    with pytest.raises(UniqueTaken):
        await one.resolve(conflict.id, values={"id": "v", "code": 1})
    await one.resolve(conflict.id, values={"id": "v", "code": 8})
    assert await clashes(one) == []


async def test_two_fields_of_two_records_are_two_conflicts(stack: AsyncExitStack) -> None:
    fields = {"id": Field("str"), "a": Field("int", unique=True), "b": Field("json", null=True, unique=True)}
    one, two = await replica(stack, "one"), await replica(stack, "two", 1000)
    await one.define(Collection(name="c", key="id", fields=fields))
    await one.sync(two)
    await one.put("c", {"id": "1", "a": 1, "b": ["long"] * 50})
    await two.put("c", {"id": "2", "a": 1, "b": ["long"] * 50})
    await one.sync(two)
    found = await clashes(one)
    assert sorted(next(iter(conflict.sides)) for conflict in found) == ["a", "b"]
    assert len({conflict.id for conflict in found}) == 2


async def test_a_field_may_become_unique_over_records_that_clash(stack: AsyncExitStack) -> None:
    one, two = await two_of(stack)
    for key in "bc":
        await one.put("people", {"id": key, "name": "same", "friend": "ghost"})
    fields = PEOPLE.fields | {"name": Field("str", null=True, unique=True), "friend": Field("str", null=True)}
    await one.define(msgspec.structs.replace(PEOPLE, fields=fields))
    await one.sync(two)
    (conflict,) = await clashes(two)
    assert conflict.outcome == {"name": "b"} and await clashes(two, "dependency-conflict") == []
    with pytest.raises(UniqueTaken):
        await two.put("people", {"id": "d", "name": "same"})
    await two.define(PEOPLE)
    assert await clashes(two) == [] and len(await clashes(two, "dependency-conflict")) == 2


async def test_a_branch_holds_nothing(stack: AsyncExitStack) -> None:
    one, two = await two_of(stack)
    await one.define(msgspec.structs.replace(PEOPLE, strategy="keep-both"))
    await one.sync(two)
    await one.patch("people", "ann", {"name": "Ann", "mail": "a1@x"})
    await two.patch("people", "ann", {"name": "Anna", "mail": "a2@x"})
    await one.sync(two)
    keys = [record.key async for record in one.find("people")]
    assert len(keys) == 2 and await clashes(one) == []
    await one.put("people", {"id": "bob", "mail": "a1@x"})
    (conflict,) = [one async for one in one.conflicts() if one.kind == "concurrent-modification"]
    with pytest.raises(UniqueTaken):
        await one.resolve(conflict.id, take=conflict.sides["mail"][0].dot)
    with pytest.raises(UniqueTaken):
        await one.resolve(conflict.id, keep_both=True)
    await one.resolve(conflict.id, take=conflict.sides["mail"][1].dot)


def test_the_rules_are_spelt_in_every_way_a_collection_is() -> None:
    text = """
    [collections.c]
    key = "id"
    [collections.c.fields]
    id = "str"
    mail = { type = "str?", unique = true }
    team = { type = "str?", references = "teams", missing = "refuse" }
    """
    (collection,) = from_toml(text)

    @refold.collection(
        "c",
        key="id",
        fields={
            "mail": {"type": "str?", "unique": True},
            "team": {"type": "str?", "references": "teams", "missing": "refuse"},
        },
    )
    class Thing(msgspec.Struct):
        id: str
        mail: str | None = None
        team: str | None = None

    assert Thing.__refold_collection__ == collection  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (Field("str", references="teams", missing="ignore"), "there are conflict, refuse"),
        (Field("str", missing="refuse"), "refers to no collection"),
        (Field("str", unique=True, default="x"), "cannot be unique and have a default"),
    ],
)
def test_rules_that_make_no_sense_are_refused(field: Field, why: str) -> None:
    with pytest.raises(DefinitionRefused, match=why):
        check(Collection(name="c", key="id", fields={"id": Field("str"), "f": field}))


async def test_a_definition_tells_of_circles_and_of_what_nobody_defined(stack: AsyncExitStack) -> None:
    engine = await replica(stack, "one")
    told = await engine.define(PEOPLE)
    assert told.cycles == [["people"]] and told.undefined == [("people", "team", "teams")] and len(told) == 1
    told = await engine.define(TEAMS)
    assert (told.cycles, told.undefined, len(told)) == ([], [], 1)
    told = await engine.define(PEOPLE)
    assert (told.cycles, told.undefined, list(told)) == ([["people"]], [], [])
