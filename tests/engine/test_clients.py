"""Thin clients that push what they changed away from everyone: each change is answered, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from refold import Change, Collection, Engine, Field, Kind, PushResult
from refold.testing import MemoryStore, Ticks, memory_engine

pytestmark = pytest.mark.anyio

NOTES = Collection(
    name="notes",
    key="id",
    strategy="manual",
    fields={"id": Field("str"), **{name: Field("str", null=True) for name in "abc"}, "n": Field("int", null=True)},
)


@asynccontextmanager
async def server() -> AsyncIterator[Engine]:
    async with memory_engine(MemoryStore("server"), Ticks()) as engine:
        await engine.define(NOTES)
        yield engine


def change(operation: str, key: str, version: str | int | None = None, **values: Any) -> Change:
    request = values.pop("request", None)
    return Change(operation=operation, collection="notes", key=key, values=values, version=version, request_id=request)


def placed(result: PushResult) -> dict[int, str]:
    """Where each answer is, by its index."""
    names = ("applied", "merged", "conflicts", "failed", "duplicates")
    return {answer.index: name for name in names for answer in getattr(result, name)}


async def version(engine: Engine, key: str) -> str:
    record = await engine.get("notes", key)
    assert record is not None
    return record.version


async def test_every_change_is_answered_by_itself() -> None:
    async with server() as engine:
        await engine.put("notes", {"id": "1", "a": "0", "b": "0"})
        seen = await version(engine, "1")
        await engine.patch("notes", "1", {"a": "server"})
        changes = [
            change("create", "2", a="x"),
            change("update", "1", seen, b="phone"),
            change("update", "nobody", a="x"),
            change("delete", "nobody"),
            change("update", "1", a=5),
            change("rename", "1"),
            Change(operation="create", collection="unknown", key="1"),
            change("update", "1", "elsewhere:4", a="x"),
            change("update", "2", "no version", a="x"),
        ]
        result = await engine.push(changes, client="phone-7")
        assert placed(result) == {0: "applied", 1: "merged", **dict.fromkeys(range(2, 9), "failed")}
        codes = {answer.index: answer.error.code for answer in result.failed if answer.error is not None}
        assert codes == {
            2: "record-unknown",
            3: "record-unknown",
            4: "value-refused",
            5: "value-refused",
            6: "collection-unknown",
            7: "version-unknown",
            8: "bad-vector",
        }
        record = await engine.get("notes", "1")
        assert record is not None and (record.values["a"], record.values["b"]) == ("server", "phone")
        (merged,) = result.merged
        assert merged.event is not None and merged.version == record.version
        assert merged.event.actor == "phone-7" and merged.event.data == {"b": "phone"}


async def test_a_stale_change_of_the_same_field_is_a_conflict_with_both_sides() -> None:
    async with server() as engine:
        await engine.put("notes", {"id": "1", "a": "0", "b": "0"})
        seen = await version(engine, "1")
        await engine.patch("notes", "1", {"a": "server"})
        result = await engine.push([change("update", "1", seen, a="phone", b="0")], client="phone")
        (answer,) = result.conflicts
        (conflict,) = [found async for found in engine.conflicts("open")]
        assert answer.conflicts == [conflict.id]
        assert {side.value for side in conflict.sides["a"]} == {"server", "phone"} and conflict.base == {"a": "0"}
        assert answer.event is not None and answer.event.data == {"a": "phone"}
        await engine.resolve(conflict.id, take=answer.event.dot)
        later = await engine.push([change("update", "1", await version(engine, "1"), a="next")], client="phone")
        assert len(later.applied) == 1


async def test_a_position_may_stand_for_a_version() -> None:
    async with server() as engine:
        first = await engine.put("notes", {"id": "1", "a": "0"})
        await engine.patch("notes", "1", {"a": "server"})
        assert first is not None
        result = await engine.push([change("update", "1", first.position, b="phone")], client="phone")
        assert placed(result) == {0: "merged"}
        assert (result.merged[0].event or first).context == {"server": first.seq}


async def test_strict_refuses_what_is_stale() -> None:
    async with server() as engine:
        first = await engine.put("notes", {"id": "1", "a": "0"})
        seen = await version(engine, "1")
        await engine.patch("notes", "1", {"a": "server"})
        assert first is not None
        for stated in (seen, first.position):
            result = await engine.push([change("update", "1", stated, b="phone")], client="phone", strict=True)
            assert result.conflicts[0].error is not None and result.conflicts[0].error.code == "version-mismatch"
        now = await version(engine, "1")
        assert len((await engine.push([change("update", "1", now, b="x")], client="phone", strict=True)).applied) == 1


async def test_a_delete_beside_a_change_is_a_deletion_conflict_either_way() -> None:
    for ours, theirs in (("delete", "update"), ("update", "delete")):
        async with server() as engine:
            await engine.put("notes", {"id": "1", "a": "0"})
            seen = await version(engine, "1")
            results = []
            for operation, client in ((ours, "one"), (theirs, "two")):
                values = {"a": "new"} if operation == "update" else {}
                results.append(await engine.push([change(operation, "1", seen, **values)], client=client))
            assert placed(results[-1]) == {0: "conflicts"}
            (conflict,) = [found async for found in engine.conflicts("open")]
            assert conflict.kind == "deletion-conflict"


async def test_the_changes_of_one_record_in_a_push_follow_each_other() -> None:
    async with server() as engine:
        await engine.put("notes", {"id": "1", "a": "0"})
        seen = await version(engine, "1")
        await engine.patch("notes", "1", {"c": "server"})
        changes = [
            change("create", "2", a="1"),
            change("update", "2", a="2"),
            change("update", "1", seen, a="x"),
            change("update", "1", seen, a="y"),
            change("delete", "2"),
            change("update", "2", a="late"),
        ]
        result = await engine.push(changes, client="phone")
        found = placed(result)
        assert found[5] == "failed" and "conflicts" not in found.values()
        record = await engine.get("notes", "1")
        assert record is not None and (record.values["a"], record.values["c"]) == ("y", "server")
        assert [conflict async for conflict in engine.conflicts()] == []


async def test_a_push_that_is_repeated_writes_once() -> None:
    async with server() as engine:
        changes = [change("create", str(n), a="x", request=f"r{n}") for n in range(5)]
        first = await engine.push(changes, client="phone")
        again = await engine.push([*changes, change("update", "1", a="y", request="new")], client="phone")
        assert len(first.applied) == 5 and placed(again) == {**dict.fromkeys(range(5), "duplicates"), 5: "applied"}
        assert [answer.event for answer in again.duplicates] == [answer.event for answer in first.applied]
        reused = await engine.push([change("create", "9", a="x", request="r1")], client="phone")
        assert reused.failed[0].error is not None and reused.failed[0].error.code == "request-reused"


async def test_forty_phones_that_saw_the_same_lose_nothing() -> None:
    async with server() as engine:
        await engine.put("notes", {"id": "1", "n": 0})
        seen = await version(engine, "1")
        results = await asyncio.gather(
            *(engine.push([change("update", "1", seen, n=n)], client=f"phone-{n}") for n in range(1, 41))
        )
        assert all(len(placed(result)) == 1 for result in results)
        (conflict,) = [found async for found in engine.conflicts("open")]
        assert {side.value for side in conflict.sides["n"]} == set(range(1, 41))
        assert {event.actor for event in conflict.events} == {f"phone-{n}" for n in range(1, 41)}
        assert (await engine.verify()).ok
        assert len([event async for event in engine.history("notes", "1") if event.kind is Kind.UPDATE]) == 40


async def test_a_stale_push_reaches_other_replicas_with_its_true_context() -> None:
    async with server() as engine, memory_engine(MemoryStore("other"), Ticks()) as other:
        await engine.put("notes", {"id": "1", "a": "0"})
        seen = await version(engine, "1")
        await engine.patch("notes", "1", {"a": "server"})
        await engine.push([change("update", "1", seen, a="phone")], client="phone")
        await other.sync(engine)
        assert await other.digest() == await engine.digest()
        assert [found.id async for found in other.conflicts()] == [found.id async for found in engine.conflicts()]


async def test_a_later_change_of_a_push_overwrites_nothing_that_was_not_seen() -> None:
    async with server() as engine:
        await engine.put("notes", {"id": "1", "a": "0", "b": "0"})
        seen = await version(engine, "1")
        await engine.patch("notes", "1", {"b": "theirs"})
        result = await engine.push(
            [change("update", "1", seen, a="1"), change("update", "1", seen, b="mine")], client="c"
        )
        assert placed(result) == {0: "merged", 1: "conflicts"}
        (conflict,) = [found async for found in engine.conflicts("open")]
        assert {side.value for side in conflict.sides["b"]} == {"theirs", "mine"}


async def test_one_refused_change_sets_no_change_of_its_push_against_another() -> None:
    async with server() as engine:
        await engine.put("notes", {"id": "1", "a": "0"})
        seen = await version(engine, "1")
        for strict in (False, True):
            changes = [
                change("update", "1", seen, a="1"),
                change("update", "1", seen, n="x"),
                change("update", "1", seen, a="2"),
            ]
            result = await engine.push(changes, client="c", strict=strict)
            assert placed(result) == {0: "applied", 1: "failed", 2: "applied"}
            seen = await version(engine, "1")
        assert [found async for found in engine.conflicts()] == []
        assert len({event.batch async for event in engine.events()}) == engine.position


async def test_a_stale_change_is_held_against_what_its_client_was_shown() -> None:
    fields = {"id": Field("str"), "n": Field("int", null=True, strategy="max"), "b": Field("str", null=True)}
    async with server() as engine, memory_engine(MemoryStore("other"), Ticks(1_700_000_001_000)) as other:
        await engine.define(Collection(name="peaks", key="id", fields=fields))
        await engine.put("peaks", {"id": "1", "n": 0})
        await engine.sync(other)
        await engine.patch("peaks", "1", {"n": 9})
        await other.patch("peaks", "1", {"n": 5})
        await engine.sync(other)
        record = await engine.get("peaks", "1")
        assert record is not None and record.values["n"] == 9
        await engine.patch("peaks", "1", {"b": "x"})
        lower = Change(operation="update", collection="peaks", key="1", values={"n": 5}, version=record.version)
        (answer,) = (await engine.push([lower], client="c")).merged
        assert answer.event is not None and answer.event.data == {"n": 5}
        record = await engine.get("peaks", "1")
        assert record is not None and record.values["n"] == 5


async def test_pushes_at_once_under_the_same_request_ids_write_once() -> None:
    async with server() as engine:
        changes = [change("create", str(n), a="x", request=f"r{n}") for n in range(5)]
        results = await asyncio.gather(*(engine.push(changes, client="c") for _ in range(3)))
        assert sum(len(result.applied) for result in results) == 5
        assert sum(len(result.duplicates) for result in results) == 10


async def test_a_malformed_change_fails_nobody_else() -> None:
    async with server() as engine:
        bad = Change(operation="update", collection="notes", key="1", values={"a": "x"}, version=1.5)  # type: ignore[arg-type]
        result, event = await asyncio.gather(engine.push([bad], client="c"), engine.put("notes", {"id": "1"}))
        assert len(result.failed) == 1 and event is not None
