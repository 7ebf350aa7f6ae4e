"""Tags: named moments are events like any other, and come back from wherever events do."""

from __future__ import annotations

from pathlib import Path

import pytest

import refold
from refold.errors import ResolutionRefused, ValueRefused
from refold_adapters.recovery import restore

pytestmark = pytest.mark.anyio

PARTS = refold.Collection(name="parts", key="no", fields={"no": refold.Field("str")}, folder="{no}")


async def test_a_tag_is_the_vector_of_what_was_there(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "a", replica="a") as engine:
        await engine.define(PARTS)
        await engine.put("parts", {"no": "1"})
        event = await engine.tag("first", reason="before the move")
        assert event is not None
        assert (event.kind, event.reason) == (refold.Kind.TAG, "before the move")
        await engine.put("parts", {"no": "2"})
        await engine.tag("empty-handed", {"a": 1})
        assert await engine.tags() == {"first": {"a": 2}, "empty-handed": {"a": 1}}


async def test_a_tag_moves_and_is_taken_back(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "a", replica="a") as engine:
        await engine.tag("now", {"b": 3})
        assert await engine.tag("now", {"b": 3}) is None
        await engine.tag("now")
        assert await engine.tags() == {"now": {"a": 1}}
        await engine.untag("now")
        assert await engine.tags() == {}
        assert await engine.untag("never") is None


@pytest.mark.parametrize("name", ["", "@7", "2026", "2026-01-01", "a b", "-x", "é" * 101, "a/b", "a\n"])
async def test_what_could_be_taken_for_something_else_is_no_tag(tmp_path: Path, name: str) -> None:
    async with refold.open(tmp_path / "a") as engine:
        with pytest.raises(ValueRefused):
            await engine.tag(name)


async def test_tags_are_rebuilt_from_the_folders(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "a", replica="a") as engine:
        await engine.define(PARTS)
        await engine.tag("first")
        digest = await engine.digest()
    report = await restore(tmp_path / "a", tmp_path / "b", origin="folders")
    assert report.ok
    assert report.digest == digest
    async with refold.open(tmp_path / "b", readonly=True) as engine:
        assert await engine.tags() == {"first": {"a": 1}}


async def test_two_who_tag_apart_have_a_conflict_that_tagging_settles(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "a", replica="a") as one, refold.open(tmp_path / "b", replica="b") as two:
        await one.define(PARTS)
        await one.sync(two)
        await one.tag("end", {"a": 1})
        await two.tag("end", {"b": 1})
        await one.sync(two)
        assert await one.tags() == await two.tags()
        (conflict,) = [conflict async for conflict in one.conflicts()]
        with pytest.raises(ResolutionRefused):
            await one.resolve(conflict.id, take=conflict.sides["end"][0].dot)
        await one.tag("end")
        assert [conflict.status async for conflict in one.conflicts()] == ["resolved"]
        assert (await one.verify()).ok
