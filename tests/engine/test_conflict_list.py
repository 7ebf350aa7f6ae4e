"""The conflict list against the definition, in any order of arrival, and what settles a conflict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold import Collection, Engine, Field, Kind
from refold.conflict import conflict_id, same
from refold.conflict_list import ConflictQuery, Entry
from refold.errors import ConflictUnknown, ResolutionRefused
from refold.events import Event
from refold.replay import catch_up
from refold.testing import START, MemoryLog, MemoryStore, MemoryTables, Scribe, Ticks, append, memory_engine

from .histories import THINGS, histories, maximal, rank, reordered, saw, writes_of

NOTES = Collection(
    name="notes",
    key="id",
    strategy="manual",
    fields={"id": Field("str"), "a": Field("str", null=True), "b": Field("str", null=True, strategy="last-write-wins")},
)


def listed(events: Sequence[Event], batch: int) -> list[Entry]:
    """The list that tables make of events, taken in so many at a time."""
    log = MemoryLog()
    tables = MemoryTables(log.at)
    for start in range(0, len(events), batch):
        append(log, events[start : start + batch])
        catch_up(log, tables, batch)
    return [one.entry for one in tables.conflicts(ConflictQuery(limit=1000))]


def disagree(writes: Sequence[Event], field: str) -> bool:
    return any(not same(one.data[field], writes[0].data[field]) for one in writes)


def defined(events: Sequence[Event]) -> set[tuple[str, str, tuple[str, ...], tuple[int, str, int] | None]]:
    """Every disagreement by definition: its fields' maximal writes among all events, and among what an event saw."""
    found: dict[Any, Any] = {}
    for record in {event.record for event in events}:
        own = [event for event in events if event.record == record]
        views: list[tuple[Event | None, list[Event]]] = [(None, own)]
        views += [(event, [other for other in own if saw(event, other)]) for event in own]
        for event, seen in views:
            fields = {name for one in seen for name in one.data if event is None or name in event.data}
            sides = {name: maximal(writes_of(seen, name)) for name in fields}
            told = {name: group for name, group in sides.items() if disagree(group, name)}
            presence = maximal(seen)
            closer = rank(event) if event is not None else None
            if len({one.kind is Kind.DELETE for one in presence}) > 1:
                _note(found, {"": presence}, "deletion-conflict", closer)
            if told:
                _note(found, told, "concurrent-modification", closer)
    return {(name, kind, fields, closer) for (name, kind, fields, _), closer in found.items()}


def _note(found: dict[Any, Any], sides: dict[str, list[Event]], kind: str, closer: tuple[int, str, int] | None) -> None:
    class Dotted(msgspec.Struct):
        dot: tuple[str, int]

    key = conflict_id({name: [Dotted((e.replica, e.seq)) for e in group] for name, group in sides.items()})  # type: ignore[misc]
    entry = key, kind, tuple(sorted(name for name in sides if name)), closer is None
    if entry not in found or (closer is not None and closer < found[entry]):
        found[entry] = closer


@given(histories(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_list_is_what_the_definition_says_in_any_order_and_batches(
    events: list[Event], random: Random, batch: int
) -> None:
    truth = defined(events)
    define = Scribe("definer").define(THINGS)
    for order in (events, reordered(events, random)):
        entries = listed([define, *order], batch)
        assert {(entry.id, str(entry.kind), tuple(entry.fields), entry.closer) for entry in entries} == truth
        assert len(entries) == len(truth)
    assert listed([define, *events], 1000) == listed([define, *reordered(events, random)], batch)


async def apart(stack: AsyncExitStack) -> tuple[Engine, Engine]:
    """Two replicas that wrote field `a` of one record apart, and met."""
    one = await stack.enter_async_context(memory_engine(MemoryStore("one"), Ticks()))
    two = await stack.enter_async_context(memory_engine(MemoryStore("two"), Ticks(START + 1000)))
    await one.define(NOTES)
    await one.put("notes", {"id": "1", "a": "base", "b": "kept"})
    await one.sync(two)
    await one.patch("notes", "1", {"a": "ours"}, actor="ann")
    await two.patch("notes", "1", {"a": "theirs"}, actor="bob")
    report = await one.sync(two)
    assert (report.merged, report.conflicts) == (1, 1)
    return one, two


async def all_of(engine: Engine, **which: Any) -> list[Any]:
    return [conflict async for conflict in engine.conflicts(**which)]


@pytest.mark.anyio
async def test_a_conflict_tells_everything_about_itself() -> None:
    async with AsyncExitStack() as stack:
        one, two = await apart(stack)
        (conflict,) = await all_of(one, status="open")
        assert (conflict.kind, conflict.key, conflict.open, conflict.base) == (
            "concurrent-modification",
            "1",
            True,
            {"a": "base"},
        )
        assert [(side.replica, side.value) for side in conflict.sides["a"]] == [("one", "ours"), ("two", "theirs")]
        assert [event.actor for event in conflict.events] == ["ann", "bob"]
        (theirs,) = await all_of(two)
        assert [event.hash for event in theirs.events] == [event.hash for event in conflict.events]
        assert msgspec.structs.replace(theirs, events=conflict.events) == conflict
        assert await all_of(one, kind="deletion-conflict") == [] == await all_of(one, collection="other")
        assert len(await all_of(one, limit=1)) == 1 and await all_of(one, limit=0) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("choice", "outcome"),
    [({"take": "two:1"}, "theirs"), ({"take": ("one", 3)}, "ours"), ({"values": {"a": "both"}}, "both")],
)
async def test_a_resolution_holds_on_both_sides_and_stays_on_the_list(choice: dict[str, Any], outcome: str) -> None:
    async with AsyncExitStack() as stack:
        one, two = await apart(stack)
        (conflict,) = await all_of(one, status="open")
        (event,) = await one.resolve(conflict.id, actor="chief", reason="asked", **choice)
        assert (event.kind, event.actor, event.meta) == (
            Kind.RESOLVE,
            "chief",
            {"conflict": conflict.id, "reason": "asked"},
        )
        await one.sync(two)
        for engine in (one, two):
            record = await engine.get("notes", "1")
            assert record is not None and record.values == {"id": "1", "a": outcome, "b": "kept"}
            (settled,) = await all_of(engine)
            assert (settled.id, settled.status, settled.outcome) == (conflict.id, "resolved", {"a": outcome})
            assert settled.settled_by is not None and settled.settled_by.hash == event.hash
            assert settled.sides == conflict.sides and settled.base == conflict.base
        with pytest.raises(ConflictUnknown, match="resolved"):
            await one.resolve(conflict.id, take="two:1")


@pytest.mark.anyio
async def test_no_page_ends_between_conflicts_that_have_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sides that disagree on two fields one can be closed and the other live, and both go by the sides' dots."""
    monkeypatch.setattr("refold.reader.CONFLICT_BATCH", 5)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(memory_engine(MemoryStore("one"), Ticks()))
        two = await stack.enter_async_context(memory_engine(MemoryStore("two"), Ticks(START + 1000)))
        await one.define(NOTES)
        await one.sync(two)
        for key in "1234":
            await one.put("notes", {"id": key, "a": "ours", "b": "ours"})
            await two.put("notes", {"id": key, "a": "theirs", "b": "theirs"})
        await one.sync(two)
        for key in "1234":
            await one.patch("notes", key, {"b": "both"})
        found = await all_of(one)
        assert len(found) == 8 and len({conflict.id for conflict in found}) == 4
        for limit in range(10):
            assert await all_of(one, limit=limit) == found[:limit]


@pytest.mark.anyio
async def test_both_sides_can_be_kept() -> None:
    async with AsyncExitStack() as stack:
        one, _ = await apart(stack)
        (conflict,) = await all_of(one)
        events = await one.resolve(conflict.id, keep_both=True)
        assert [event.kind for event in events] == [Kind.RESOLVE, Kind.CREATE]
        values = {record.key: record.values["a"] async for record in one.find("notes")}
        assert values == {"1": "theirs", "1~one-3": "ours"}


@pytest.mark.anyio
async def test_a_deletion_conflict_is_settled_either_way() -> None:
    for take, deleted in (("two:1", True), ("one:3", False)):
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(memory_engine(MemoryStore("one"), Ticks()))
            two = await stack.enter_async_context(memory_engine(MemoryStore("two"), Ticks(START + 1000)))
            await one.define(NOTES)
            await one.put("notes", {"id": "1", "a": "base"})
            await one.sync(two)
            await one.patch("notes", "1", {"a": "new"})
            await two.delete("notes", "1")
            await one.sync(two)
            (conflict,) = await all_of(one, kind="deletion-conflict")
            await one.resolve(conflict.id, take=take)
            await one.sync(two)
            record = await two.get("notes", "1")
            assert record is not None and (record.deleted, record.values["a"]) == (deleted, "new")
            assert (await all_of(two))[0].outcome == {"": not deleted}
            assert await all_of(two, status="open") == []


@pytest.mark.anyio
async def test_a_choice_that_does_not_fit_is_refused() -> None:
    async with AsyncExitStack() as stack:
        one, _ = await apart(stack)
        (conflict,) = await all_of(one)
        for choice in ({}, {"take": "two:1", "keep_both": True}, {"take": "two:9"}, {"take": "x"}):
            with pytest.raises(ResolutionRefused):
                await one.resolve(conflict.id, **choice)
        with pytest.raises(ResolutionRefused):
            await one.resolve(conflict.id, values={"id": "2"})
        with pytest.raises(ConflictUnknown):
            await one.resolve("0123", take="two:1")
        assert await all_of(one, status="open") == [conflict]


@pytest.mark.anyio
async def test_two_who_settle_alike_agree() -> None:
    async with AsyncExitStack() as stack:
        one, two = await apart(stack)
        (conflict,) = await all_of(one)
        await one.resolve(conflict.id, take="one:3")
        await two.resolve(conflict.id, take="one:3")
        await one.sync(two)
        assert await all_of(one, status="open") == [] and await one.digest() == await two.digest()
        assert [found.settled_by.replica async for found in one.conflicts() if found.settled_by] == ["one"]


@pytest.mark.anyio
async def test_a_changed_policy_settles_what_is_open() -> None:
    async with AsyncExitStack() as stack:
        one, two = await apart(stack)
        await two.define(msgspec.structs.replace(NOTES, strategy="first-write-wins"))
        await one.sync(two)
        for engine in (one, two):
            (conflict,) = await all_of(engine)
            assert (conflict.status, conflict.outcome) == ("settled", {"a": "ours"})
            record = await engine.get("notes", "1")
            assert record is not None and record.values["a"] == "ours"


TRIPS = Collection(
    name="trips", key="id", fields={"id": Field("str"), "tag": Field("str", null=True, references="tags")}
)
TAGS = Collection(name="tags", key="id", fields={"id": Field("str")})


@pytest.mark.anyio
async def test_a_reference_may_come_before_its_target_and_is_open_until_then() -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(memory_engine(MemoryStore("one"), Ticks()))
        two = await stack.enter_async_context(memory_engine(MemoryStore("two"), Ticks(START + 1000)))
        await one.define(TRIPS)
        event = await one.put("trips", {"id": "t", "tag": "sea"})
        (conflict,) = await all_of(one, status="open")
        assert (conflict.kind, conflict.key, conflict.outcome) == ("dependency-conflict", "t", {"tag": "sea"})
        assert conflict.events == [event] and await all_of(one, kind="dependency-conflict") == [conflict]
        with pytest.raises(ResolutionRefused, match="refers to"):
            await one.resolve(conflict.id, keep_both=True)
        await two.define(TAGS)
        await two.put("tags", {"id": "sea"})
        await one.sync(two)
        assert await all_of(one) == [] == await all_of(two)
        await two.delete("tags", "sea")
        await one.sync(two)
        (again,) = await all_of(one)
        assert again.id == conflict.id
        await one.resolve(conflict.id, values={"tag": None})
        assert await all_of(one) == []
