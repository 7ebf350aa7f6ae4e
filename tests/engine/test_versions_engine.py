"""Schema versions through the engine: what people ask of records whose collection went on to a further version."""

from __future__ import annotations

from typing import Any

import pytest

import refold
from refold import Change, Collection, Field
from refold.errors import ResolutionRefused, UniqueTaken
from refold.testing import MemoryStore, Scribe, append, memory_engine
from refold.versions import Convert, Drop, Rename

pytestmark = pytest.mark.anyio

TEXT = Field("str", null=True)
FIRST = Collection(
    name="people",
    key="no",
    fields={
        "no": Field("str"),
        "mail": Field("str", null=True, unique=True),
        "boss": Field("str", null=True, references="people"),
        "age": TEXT,
        "fax": TEXT,
    },
)
SECOND = Collection(
    name="people",
    key="id",
    version=2,
    steps=[Rename("no", "id"), Rename("mail", "email"), Rename("boss", "lead"), Convert("age", "int"), Drop("fax")],
    fields={
        "id": Field("str"),
        "email": Field("str", null=True, unique=True),
        "lead": Field("str", null=True, references="people", missing="refuse"),
        "age": Field("int", null=True),
    },
)
ANN: dict[str, Any] = {"no": "1", "mail": "a@x", "boss": "9", "age": "old", "fax": "1"}


async def kinds(engine: refold.Engine) -> list[tuple[str, str]]:
    return sorted([(conflict.kind.value, conflict.key) async for conflict in engine.conflicts("open")])


async def test_unique_values_and_references_go_with_their_fields() -> None:
    async with memory_engine() as engine:
        await engine.define(FIRST)
        await engine.put("people", ANN)
        await engine.put("people", {"no": "2", "mail": "b@x"})
        await engine.define(SECOND)
        assert await kinds(engine) == [("conversion-conflict", "1"), ("dependency-conflict", "1")]
        with pytest.raises(UniqueTaken):
            await engine.put("people", {"id": "3", "email": "a@x"})
        with pytest.raises(UniqueTaken):
            await engine.put("people", {"no": "3", "mail": "a@x"}, schema_version="1.0")
        await engine.put("people", {"id": "9"})
        conflict = await anext(engine.conflicts("open"))
        assert (conflict.kind, conflict.sides["age"][0].value, conflict.outcome) == (
            "conversion-conflict",
            "old",
            {"age": None},
        )
        with pytest.raises(ResolutionRefused):
            await engine.resolve(conflict.id, take=conflict.sides["age"][0].dot)
        await engine.resolve(conflict.id, values={"age": 70})
        assert await kinds(engine) == []
        assert (await engine.verify()).findings == []


async def test_a_moment_has_the_version_of_then_and_blame_follows_a_name() -> None:
    async with memory_engine() as engine:
        await engine.define(FIRST)
        event = await engine.put("people", {**ANN, "age": "30"}, actor="ann")
        await engine.define(SECOND)
        await engine.patch("people", "1", {"age": 31}, actor="bob")
        then = await (await engine.at("@2")).get("people", "1")
        assert then is not None and then.values == {**ANN, "age": "30"}
        told = await engine.blame("people", "1")
        assert told is not None and event is not None
        assert [(one.value, one.event.dot) for one in told.fields["email"]] == [("a@x", event.dot)]
        assert [(one.value, one.event.actor) for one in told.fields["age"]] == [(31, "bob")]
        (change,) = [found async for found in engine.diff("@3", "@end") if found.kind == "changed"]
        assert {name: (one.old, one.new) for name, one in change.fields.items()} == {"age": (30, 31)}


async def test_a_client_of_the_first_version_pushes_to_the_second() -> None:
    async with memory_engine() as engine:
        await engine.define(FIRST)
        await engine.put("people", ANN)
        record = await engine.get("people", "1")
        assert record is not None
        await engine.define(SECOND)
        await engine.patch("people", "1", {"email": "new@x"})

        def change(operation: str, key: str, version: Any = 1, **values: Any) -> Change:
            seen = record.version if operation == "update" else None
            told = {"collection": "people", "key": key, "values": values, "version": seen, "schema_version": version}
            return Change(operation=operation, **told)

        result = await engine.push(
            [
                change("update", "1", age="33", fax="2"),
                change("create", "5", mail="e@x", fax="3"),
                change("update", "1", mail="mine@x"),
                change("update", "1", age="many"),
                change("update", "1", 7, age="1"),
            ],
            client="phone",
        )
        assert [answer.index for answer in (*result.applied, *result.merged)] == [1, 0]
        assert [answer.index for answer in result.conflicts] == [2]
        codes = {answer.index: answer.error.code for answer in result.failed if answer.error is not None}
        assert codes == {3: "value-refused", 4: "schema-version-unknown"}
        shown = await engine.get("people", "5")
        assert shown is not None and shown.values == {"id": "5", "email": "e@x", "lead": None, "age": None}
        events = [event async for event in engine.history("people", "5")]
        assert events[0].data["fax"] == "3", "what was dropped is kept in the log"


async def test_events_of_a_version_that_is_not_known_are_kept_until_it_is() -> None:
    store = MemoryStore("a")
    ahead = Scribe("b")
    append(store.log, [ahead.define(FIRST), ahead.write("people", "1", ANN)])
    append(store.log, [ahead.write("people", "1", {"email": "new@x", "age": 4}, version=2)])
    async with memory_engine(store) as engine:
        record = await engine.get("people", "1")
        assert record is not None and (record.values["mail"], record.values["age"]) == ("a@x", 4)
        (finding,) = (await engine.verify()).findings
        assert (finding.kind, finding.collection) == ("version-unknown", "people")
        assert "version 2" in finding.detail and "known are 1" in finding.detail
        digest = await engine.digest()
        await engine.define(SECOND)
        record = await engine.get("people", "1")
        assert record is not None
        assert record.values == {"id": "1", "email": "new@x", "lead": "9", "age": 4}
        assert (await engine.verify()).findings == []
        assert await engine.digest() != digest, "the definition is one more event; records are as they were"
