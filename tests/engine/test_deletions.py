"""What was deleted and how conflicts ended, as an archive tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from refold import Collection, Deletion, Engine, Field, Quality
from refold.deletions import RUN
from refold.errors import CollectionUnknown
from refold.testing import MemoryStore, Ticks, memory_engine

pytestmark = pytest.mark.anyio

FIELDS = {"id": Field("str"), "a": Field("str", null=True), "b": Field("str", null=True, strategy="manual")}


@asynccontextmanager
async def opened(name: str = "one") -> AsyncIterator[Engine]:
    async with memory_engine(MemoryStore(name), Ticks()) as engine:
        yield engine


async def told(engine: Engine, *collections: str, **which: object) -> list[Deletion]:
    return [deletion async for deletion in engine.deletions(collections, **which)]  # type: ignore[arg-type]


async def test_the_deletion_log_tells_every_delete_and_whether_it_stands() -> None:
    async with opened() as engine:
        for name in ("cars", "notes"):
            await engine.define(Collection(name=name, key="id", fields=FIELDS))
        await engine.put("cars", {"id": "x", "a": "delete"})
        await engine.put("cars", {"id": "y"})
        await engine.put("notes", {"id": "x"})
        event = await engine.delete("cars", "x", actor="ann", reason="sold")
        await engine.delete("cars", "y", actor="bob")
        await engine.put("cars", {"id": "x"})
        await engine.delete("notes", "x", actor="ann")
        assert event is not None
        found = await told(engine)
        assert [(one.collection, one.key, one.standing) for one in found] == [
            ("cars", "x", False),
            ("cars", "y", True),
            ("notes", "x", True),
        ]
        assert (found[0].actor, found[0].reason, found[0].position, found[0].time) == (
            "ann",
            "sold",
            event.position,
            event.time,
        )
        assert await told(engine, "cars") == found[:2] and await told(engine, actor="ann") == found[::2]
        assert await told(engine, after=found[0].position) == found[1:]
        assert await told(engine, limit=2) == found[:2] and await told(engine, limit=0) == []
        with pytest.raises(CollectionUnknown):
            await told(engine, "nothing")


async def test_deletes_far_apart_are_found_run_by_run() -> None:
    async with opened() as engine:
        await engine.define(Collection(name="cars", key="id", fields=FIELDS))
        for part in range(3):
            async with engine.batch() as batch:
                for number in range(RUN - 1):
                    batch.put("cars", {"id": f"{part}-{number}"})
            await engine.delete("cars", f"{part}-0")
        assert [one.key for one in await told(engine)] == ["0-0", "1-0", "2-0"]
        assert [one.key for one in await told(engine, limit=2)] == ["0-0", "1-0"]


async def test_how_conflicts_ended_is_counted_by_who_ended_them() -> None:
    async with opened("one") as one, opened("two") as two:
        await one.define(Collection(name="cars", key="id", fields=FIELDS))
        assert await one.merge_quality() == {}
        for key in "123456":
            await one.put("cars", {"id": key, "a": "0", "b": "0"})
        await one.sync(two)
        for key, field in (("1", "a"), ("2", "a"), ("3", "a"), ("4", "b"), ("5", "b"), ("6", "b")):
            await one.patch("cars", key, {field: "1"})
            await two.patch("cars", key, {field: "2"})
        await one.sync(two)
        by_key = {conflict.key: conflict async for conflict in one.conflicts()}
        await one.patch("cars", "2", {"a": "later"})
        await one.resolve(by_key["3"].id, values={"a": "chosen"})
        await one.resolve(by_key["5"].id, take=by_key["5"].events[0].dot)
        await one.patch("cars", "6", {"b": "an edit is a person's word where the policy asks for one"})
        await one.sync(two)
        expected = {"concurrent-modification": Quality(open=1, settled=1, replaced=1, resolved=3)}
        assert expected["concurrent-modification"].automatic == pytest.approx(2 / 6)
        assert await one.merge_quality() == await two.merge_quality() == expected
        await one.rebuild()
        assert await one.merge_quality() == expected
