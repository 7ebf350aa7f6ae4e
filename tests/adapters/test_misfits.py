"""Replicas that defined a collection differently, and values that do not fit: both go on, and nothing is lost."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refold
from refold import Collection, Engine, Field
from refold.errors import DefinitionRefused
from refold.events import canonical
from refold.frames import FrameRefused
from refold.intake import Intake, is_json
from refold.testing import START, MemoryStore, Scribe, Ticks, append, memory_engine

from .cli.support import bytes_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def both(root: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    async with refold.open(root / "a", replica="a") as one, refold.open(root / "b", replica="b") as two:
        yield one, two


async def agree(root: Path, one: Engine, two: Engine) -> None:
    await one.sync(two)
    for engine in (one, two):
        await engine.settled()
        assert (await engine.verify()).findings == []
        for name in engine.schemas:
            async for record in engine.find(name):
                assert record.key
    assert await one.digest() == await two.digest()
    assert bytes_of(root / "a") == bytes_of(root / "b")
    await one.rebuild()
    assert (await one.verify()).findings == []
    assert bytes_of(root / "a") == bytes_of(root / "b")


def notes(fields: dict[str, Field], **rest: Any) -> Collection:
    return Collection(
        **{"name": "notes", "key": "id", "folder": "{n}", "fields": {"id": Field("str"), **fields}, **rest}
    )


async def test_fields_that_were_added_apart_are_all_there(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes({"n": Field("int", null=True)}))
        await one.sync(two)
        await one.define(notes({"n": Field("int", null=True), "x": Field("str", null=True)}))
        await two.define(notes({"n": Field("int", null=True), "y": Field("float", null=True)}))
        await one.put("notes", {"id": "1", "n": 1, "x": "x"})
        await two.put("notes", {"id": "2", "n": 2, "y": 0.5})
        await agree(tmp_path, one, two)
        await one.patch("notes", "2", {"x": "now"})
        record = await one.get("notes", "2")
        assert record is not None and record.values == {"id": "2", "n": 2, "x": "now", "y": 0.5}


@pytest.mark.parametrize(
    ("ours", "theirs", "value", "other"),
    [("int", "str", 5, "five"), ("date", "float", "2024-07-29", 1.5), ("bytes", "bool", "AP8=", True)],
)
async def test_a_field_of_two_types_takes_both(tmp_path: Path, ours: str, theirs: str, value: Any, other: Any) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes({"n": Field(ours, null=True)}))
        await two.define(notes({"n": Field(theirs, null=True)}))
        await one.put("notes", {"id": "1", "n": value})
        await two.put("notes", {"id": "2", "n": other})
        await agree(tmp_path, one, two)
        assert {record.key: record.values["n"] async for record in two.find("notes")} == {"1": value, "2": other}
        (conflict,) = [found async for found in one.conflicts(collection="notes")]
        assert conflict.key == "" and {side.value["type"] for side in conflict.sides["field:n"]} == {ours, theirs}
        await two.put("notes", {"id": "3", "n": {"any": [1]}})
        await agree(tmp_path, one, two)


async def test_two_keys_are_the_one_that_was_first_written(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes({"n": Field("int", null=True)}))
        await two.define(
            Collection(name="notes", key="no", fields={"no": Field("int"), "n": Field("int", null=True)}, folder="{no}")
        )
        await one.put("notes", {"id": "1", "n": 1})
        await two.put("notes", {"no": 2, "n": 2})
        await agree(tmp_path, one, two)
        assert one.schemas["notes"].collection.key == "id" == two.schemas["notes"].collection.key
        record = await one.get("notes", "2")
        assert record is not None and record.values["n"] == 2


async def test_a_key_of_two_types_loses_no_record(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(Collection(name="notes", key="id", fields={"id": Field("int")}))
        await two.define(Collection(name="notes", key="id", fields={"id": Field("str")}))
        await one.put("notes", {"id": 1})
        await two.put("notes", {"id": "abc"})
        await two.put("notes", {"id": "1"})
        await agree(tmp_path, one, two)
        history = [event.key async for event in one.events() if event.key]
        assert sorted(history) == ["1", "1", "abc"]


async def test_collections_that_differ_in_case_alone_are_refused_before_anything_is_taken(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes({"n": Field("int", null=True)}))
        await two.define(notes({"n": Field("int", null=True)}, name="Notes"))
        with pytest.raises(DefinitionRefused, match="case alone"):
            await one.sync(two)
        await one.put("notes", {"id": "1"})
        assert (await one.verify()).ok and (await two.verify()).ok


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
FIELDS = {
    "id": Field("int"),
    **{
        kind: Field(kind, null=True)
        for kind in ("str", "float", "bool", "date", "datetime", "decimal", "bytes", "json")
    },
    "sum": Field("decimal", null=True, strategy="sum"),
    "max": Field("date", null=True, strategy="max"),
    "union": Field("json", null=True, strategy="union"),
}
STRANGE = Collection(name="strange", key="id", folder="{date:%Y}/{str}", fields=FIELDS)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["1", "2", "abc", "", "9" * 30, "~"]),
            st.dictionaries(st.sampled_from([*FIELDS, "unknown"]), JSON, max_size=6),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_values_of_any_kind_from_a_peer_are_carried(writes: list[tuple[bool, str, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(_carry(Path(place), writes))


async def _carry(root: Path, writes: list[tuple[bool, str, dict[str, Any]]]) -> None:
    scribes = [Scribe(name, Ticks(START + skew)) for name, skew in (("x", 0), ("y", 500))]
    events = [scribes[0].define(STRANGE)]
    scribes[1].see(events)
    for turn, (second, key, data) in enumerate(writes):
        scribe = scribes[second]
        events.append(scribe.write("strange", key or "k", data))
        if turn % 3 == 2:
            scribes[not second].see(events)
    store = MemoryStore("peer")
    append(store.log, events)
    async with both(root) as (one, two), memory_engine(store, lambda: START) as peer:
        await one.sync(peer, max_skew=2**60)
        await agree(root, one, two)
        for scribe in scribes:
            for name, key in scribe.states:
                if key:
                    await one.get(name, key)
        listed = [found.id async for found in one.conflicts()]
        assert listed == [found.id async for found in two.conflicts()]
        assert {event.hash async for event in two.events()} == {event.hash for event in events}


STRANGE_PARTS: list[dict[str, Any]] = [
    *({"replica": name} for name in ("a,b", "")),
    *({"context": context} for context in ({"x\n": 1}, {"x": 0})),
    *({"time": -1}, {"batch": 0}),
    *({"data": {"n": value}} for value in (2**64 - 1, b"raw")),
]


@pytest.mark.parametrize("change", STRANGE_PARTS)
async def test_an_event_that_no_replica_writes_is_refused(change: dict[str, Any]) -> None:
    scribe = Scribe("x")
    event = scribe.write("notes", "1", {"n": 1}, **{name: value for name, value in change.items() if name == "batch"})
    strange = msgspec.structs.replace(event, **change)
    with pytest.raises(FrameRefused):
        Intake("peer", START + 10**6, 1000).take([canonical(strange)])
    assert not is_json(float("inf")) and is_json({"a": [1, "b", None, 0.5, True]})


async def test_both_branches_are_kept_until_somebody_settles_them(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes({"n": Field("int", null=True)}, strategy="keep-both"))
        await one.put("notes", {"id": "1", "n": 0})
        await one.put("notes", {"id": "9", "n": 0})
        await one.sync(two)
        lost = await one.patch("notes", "1", {"n": 1})
        await asyncio.sleep(0.002)
        await two.patch("notes", "1", {"n": 2})
        await agree(tmp_path, one, two)
        assert lost is not None
        branch = f"1~a-{lost.seq}"
        for engine in (one, two):
            assert [(record.key, record.values["n"]) async for record in engine.find("notes")] == [
                ("1", 2),
                (branch, 1),
                ("9", 0),
            ]
            assert [record.key async for record in engine.find("notes", {"n": 1}, limit=1)] == [branch]
            record = await engine.get("notes", branch)
            assert record is not None and record.values == {"id": branch, "n": 1}
            assert (await engine.status()).collections == {"notes": 3}
        assert f"{branch},1" in (tmp_path / "a/2/data.csv").read_text()
        (conflict,) = [found async for found in one.conflicts()]
        await one.resolve(conflict.id, take=("b", 1))
        await agree(tmp_path, one, two)
        assert [record.key async for record in two.find("notes")] == ["1", "9"]
        assert await two.get("notes", branch) is None
        with pytest.raises(DefinitionRefused, match="keep-both"):
            await one.define(Collection(name="k", key="n", fields={"n": Field("int")}, strategy="keep-both"))


async def test_a_policy_that_no_longer_keeps_both_takes_the_branches_away(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        kept = notes({"n": Field("int", null=True)}, strategy="keep-both")
        await one.define(kept)
        await one.put("notes", {"id": "1", "n": 0})
        await one.sync(two)
        await one.patch("notes", "1", {"n": 1})
        await two.patch("notes", "1", {"n": 2})
        await agree(tmp_path, one, two)
        assert len([record async for record in one.find("notes")]) == 2
        await two.define(msgspec.structs.replace(kept, strategy="last-write-wins"))
        await agree(tmp_path, one, two)
        assert len([record async for record in one.find("notes")]) == 1
        await two.define(kept)
        await agree(tmp_path, one, two)
        assert len([record async for record in one.find("notes")]) == 2
