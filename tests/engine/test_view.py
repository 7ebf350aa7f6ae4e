"""An archive as it was at a moment is an archive that holds just the events of that moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings

import refold
from refold import past
from refold.blame import Blame
from refold.engine import Engine
from refold.errors import CollectionUnknown, FieldUnknown, MomentUnknown
from refold.events import Event
from refold.schema import to_data
from refold.testing import MemoryStore, Scribe, append, memory_engine
from refold.view import View

from .histories import maximal
from .pasts import ALL, KEYS, PARTS, belongs, moments, pasts

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def archive(events: Sequence[Event]) -> AsyncIterator[Engine]:
    """An archive in memory that holds these events."""
    store = MemoryStore()
    append(store.log, events)
    async with memory_engine(store) as engine:
        yield engine


async def all_of(view: View | Engine, collection: str, **options: Any) -> list[refold.Record]:
    return [record async for record in view.find(collection, **options)]


async def told(view: View | Engine) -> dict[str, Any]:
    """What an archive says when it is asked everything; positions are of one log alone."""
    said: dict[str, Any] = {name: to_data(schema.collection) for name, schema in view.schemas.items()}
    for name in view.schemas:
        keys = [*KEYS, *(f"{key}~{replica}-{seq}" for key in KEYS for replica in "abcd" for seq in range(1, 5))]
        said |= {f"{name} {key}": await view.get(name, key) for key in keys}
        said |= {f"blame {key}": without_positions(await view.blame(name, key)) for key in keys}
        said[f"find {name}"] = await all_of(view, name)
        said[f"find {name} n"] = await all_of(view, name, where={"n": 1})
        said[f"find {name} 2"] = await all_of(view, name, limit=2)
    return said | {"digest": await view.digest()}


def without_positions(found: Blame | None) -> Any:
    if found is None:
        return None
    fields = {name: [(one.value, one.event.hash, one.holds) for one in held] for name, held in found.fields.items()}
    return found.deleted, found.values, fields, [(one.value, one.event.hash, one.holds) for one in found.presence]


@settings(max_examples=40)
@given(pasts())
async def test_a_view_is_an_archive_of_just_these_events(events: list[Event]) -> None:
    async with archive(events) as engine:
        for moment in moments(events):
            chosen = belongs(events, moment)
            if not chosen:
                with pytest.raises(MomentUnknown):
                    await engine.at(moment)
                continue
            view = await engine.at(moment)
            async with archive(chosen) as other:
                assert await told(view) == await told(other)
                counts = (await other.status()).collections
                assert await view.counts() == counts


@given(pasts())
async def test_pages_of_any_size_make_the_same_list(events: list[Event]) -> None:
    async with archive(events) as engine:
        view = await engine.at(events[-1].position or len(events))
        expected = await all_of(view, "parts")
        assert expected == sorted(expected, key=lambda record: record.key)
        size, past.PAGE = past.PAGE, 1
        try:
            assert await all_of(view, "parts") == expected
            assert await view.digest() == await engine.digest()
        finally:
            past.PAGE = size


@given(pasts())
async def test_blame_names_the_events_that_still_stand(events: list[Event]) -> None:
    async with archive(events) as engine:
        for key in KEYS:
            own = [event for event in events if event.record == ("parts", key)]
            found = await engine.blame("parts", key)
            record = await engine.get("parts", key)
            if not own:
                continue
            assert found is not None and record is not None
            assert found.deleted == record.deleted
            assert {standing.event.dot for standing in found.presence} == {event.dot for event in maximal(own)}
            for field, standings in found.fields.items():
                writes = maximal([event for event in own if field in event.data])
                assert [one.event.dot for one in standings] == [event.dot for event in reversed(writes)]
                assert [one.value for one in standings] == [event.data[field] for event in reversed(writes)]


async def test_definitions_are_those_of_the_moment() -> None:
    async with memory_engine() as engine:
        await engine.define(PARTS)
        await engine.put("parts", {"id": "1", "n": 1})
        await engine.tag("before")
        await engine.define(ALL)
        await engine.put("parts", {"id": "1", "s": "x"})
        before, now = await engine.at("before"), await engine.at("@end")
        old, new = await before.get("parts", "1"), await now.get("parts", "1")
        assert old is not None and old.values == {"id": "1", "n": 1}
        assert new is not None and new.values == {"id": "1", "n": 1, "s": "x", "t": None}
        assert list(before.schemas["parts"].columns) == ["id", "n"]
        with pytest.raises(FieldUnknown):
            await all_of(before, "parts", where={"s": "x"})
        assert await all_of(now, "parts", where={"t": None}) == [new]
        with pytest.raises(CollectionUnknown):
            await (await engine.at("a:1" if engine.replica == "a" else {engine.replica: 1})).get("others", "1")


async def test_a_view_stays_what_it_is_while_writers_go_on() -> None:
    async with memory_engine() as engine:
        await engine.define(PARTS)
        await engine.put("parts", {"id": "1", "n": 1})
        view = await engine.at("@end")
        digest = await view.digest()
        await engine.patch("parts", "1", {"n": 2})
        await engine.put("parts", {"id": "2"})
        await engine.delete("parts", "1")
        record = await view.get("parts", "1")
        assert record is not None and (record.values["n"], record.deleted) == (1, False)
        assert await view.counts() == {"parts": 1}
        assert await view.digest() == digest != await engine.digest()


async def test_tables_that_are_behind_give_no_half_of_a_moment() -> None:
    scribe, store = Scribe("a"), MemoryStore()
    append(store.log, [scribe.define(PARTS), scribe.write("parts", "1", {"id": "1", "n": 1})])
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(memory_engine(store))
        append(store.log, [scribe.write("parts", "1", {"n": 2})])
        view = await engine.at("@end")
        assert view.vector == {"a": 2}
        record = await view.get("parts", "1")
        assert record is not None and record.values["n"] == 1


async def test_what_is_to_come_is_no_moment() -> None:
    async with memory_engine() as engine:
        await engine.define(PARTS)
        for moment in ("2200-01-01", "never", {"z": 1}):
            with pytest.raises(MomentUnknown):
                await engine.at(moment)
