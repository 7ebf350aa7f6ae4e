"""Thin clients that pull: whatever is written between pages, they end with what the tables hold, parents first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import refold
from refold import Change, Collection, Engine, Field
from refold.cursor import Cursor, format_cursor
from refold.errors import CollectionUnknown, CursorForeign, CursorRefused, ValueRefused
from refold.pulls import CONFLICTS, pull_order
from refold.schema import Schema
from refold.testing import MemoryStore, Ticks, memory_engine

from .phone import Phone, tables

pytestmark = pytest.mark.anyio

TEXT = Field("str", null=True)
CARS = Collection(name="cars", key="id", fields={"id": Field("str"), "a": TEXT, "b": TEXT})
ORDERS = Collection(
    name="a_orders",
    key="no",
    strategy="manual",
    fields={"no": Field("int"), "car": Field("str", null=True, references="cars"), "a": TEXT},
)
NOTES = Collection(name="notes", key="id", strategy="keep-both", fields={"id": Field("str"), "a": TEXT, "b": TEXT})
KEYS: dict[str, list[Any]] = {"cars": ["x", "y", "z"], "a_orders": [1, 2, 3], "notes": ["p", "q"]}
Opened = Callable[[str], AbstractAsyncContextManager[Engine]]


def wider(collection: Collection, **changes: Any) -> Collection:
    """The collection with another field, or another policy."""
    fields = {**collection.fields, **changes.pop("fields", {})}
    return Collection(
        name=collection.name,
        key=collection.key,
        fields=fields,
        strategy=changes.get("strategy", collection.strategy),
        priority=changes.get("priority", collection.priority),
    )


@asynccontextmanager
async def server(*collections: Collection) -> AsyncIterator[Engine]:
    async with memory_engine(MemoryStore("server"), Ticks()) as engine:
        for collection in collections:
            await engine.define(collection)
        yield engine


class World:
    """A server, another replica, and a phone that pulls from the server."""

    def __init__(self, engine: Engine, other: Engine, random: Random) -> None:
        self.engine = engine
        self.other = other
        self.random = random
        self.phone = Phone(engine, limit=random.choice([1, 2, 3, 100]))
        self.expected: dict[tuple[str, str], dict[str, Any]] = {}

    async def start(self) -> None:
        for collection in (ORDERS, CARS, NOTES):
            await self.engine.define(collection)
        await self.engine.sync(self.other)

    async def write(self, engine: Engine) -> None:
        random = self.random
        name = random.choice(list(KEYS))
        key = random.choice(KEYS[name])
        schema = engine.schemas[name]
        values = {"a": random.choice([None, "1", "2", "3"])}
        if name == "a_orders":
            values["car"] = random.choice([None, *KEYS["cars"]])
        if random.random() < 0.3 and await engine.get(name, key) is not None:
            await engine.delete(name, key)
        else:
            await engine.put(name, {schema.collection.key: key, **values})

    async def step(self, what: str) -> None:
        if what == "write":
            await self.write(self.engine)
        elif what == "apart":
            await self.write(self.other)
        elif what == "sync":
            await self.engine.sync(self.other)
        elif what == "define":
            extra = {"c": Field("str", default=self.random.choice("uv")), "d": Field("int", null=True)}
            changed = wider(self.random.choice([CARS, ORDERS, NOTES]), fields=extra, strategy="first-write-wins")
            await self.engine.define(changed)
        elif what == "keep":
            await self.engine.define(wider(CARS, strategy=self.random.choice(["keep-both", "manual"])))
        elif what == "new":
            await self.engine.define(Collection(name="later", key="id", fields={"id": Field("str"), "a": TEXT}))
            await self.engine.put("later", {"id": self.random.choice("xyz"), "a": self.random.choice("123")})
        elif what == "push":
            record = self.random.choice([("cars", "x"), *self.phone.versions])
            seen = self.phone.versions.get(record)
            values = {"a": self.random.choice("89")}
            await self.engine.push(
                [Change(operation="update", collection=record[0], key=record[1], values=values, version=seen)],
                client="phone",
            )
        elif what == "rebuild":
            await self.engine.rebuild()
        elif what == "page":
            await self.page()

    async def page(self) -> None:
        phone = self.phone
        if not phone.pages or not phone.pages[-1].has_more:
            self.expected = await tables(self.engine)
        page = await phone.page()
        pages = phone.pages
        assert page.total == pages[0].total and page.position == pages[0].position
        records = sum(len({change.key.partition("~")[0] for change in one.changes}) for one in pages)
        assert page.has_more == (page.left > 0)
        assert page.left < pages[-2].left if len(pages) > 1 else page.left <= page.total
        assert len(phone.told) == len(set(phone.told)) and records <= page.total
        if not page.has_more:
            assert phone.model == self.expected
            assert not phone.orphans & phone.model.keys()


STEPS = ["write", "write", "write", "apart", "apart", "sync", "define", "keep", "new", "push", "rebuild", *["page"] * 5]


async def _live(opened: Opened, random: Random, steps: list[str]) -> None:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(opened("server"))
        other = await stack.enter_async_context(opened("other"))
        world = World(engine, other, random)
        await world.start()
        for step in steps:
            await world.step(step)
        while world.phone.pages and world.phone.pages[-1].has_more:
            await world.page()
        await world.page()
        while world.phone.pages[-1].has_more:
            await world.page()
        assert world.phone.model == await tables(engine)
        quiet = await world.phone.page()
        assert (quiet.changes, quiet.deletions, quiet.total, quiet.next) == ([], [], 0, world.phone.cursor)


def _in_memory(name: str) -> AbstractAsyncContextManager[Engine]:
    return memory_engine(MemoryStore(name), Ticks())


@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(STEPS), max_size=40))
@settings(max_examples=150)
def test_whatever_is_written_between_pages_a_client_ends_with_the_tables(random: Random, steps: list[str]) -> None:
    asyncio.run(_live(_in_memory, random, steps))


@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(STEPS), max_size=40))
@settings(max_examples=15)
def test_so_it_does_of_an_archive_on_disk(random: Random, steps: list[str]) -> None:
    with TemporaryDirectory() as place:
        ticks = Ticks()

        def opened(name: str) -> AbstractAsyncContextManager[Engine]:
            return refold.open(Path(place) / name, replica=name, folders=False, clock=ticks)

        asyncio.run(_live(opened, random, steps))


async def test_pages_go_on_beside_writers_that_do_not_pause() -> None:
    async with server(CARS) as engine:
        for number in range(50):
            await engine.put("cars", {"id": f"{number:03}", "a": "0"})

        async def write() -> None:
            for number in range(200):
                await engine.put("cars", {"id": f"{number % 70:03}", "a": str(number)})

        phone = Phone(engine, limit=7)
        writer = asyncio.ensure_future(write())
        while not writer.done():
            await phone.page()
            await asyncio.sleep(0)
        await phone.pull()
        await phone.pull()
        assert phone.model == await tables(engine)


async def test_parents_come_first_and_the_urgent_before_the_rest() -> None:
    def made(name: str, priority: str = "normal", **references: str) -> Collection:
        fields = {field: Field("str", null=True, references=target) for field, target in references.items()}
        return Collection(name=name, key="id", fields={"id": Field("str"), **fields}, priority=priority)

    made_of = [
        made("alarms", "critical", site="sites"),
        made("sites", "low"),
        made("archive", "low"),
        made("aa"),
        made("ring_a", next="ring_b"),
        made("ring_b", "high", next="ring_a"),
        made("tree", parent="tree"),
    ]
    schemas = {collection.name: Schema(collection) for collection in made_of}
    assert pull_order(schemas) == ["sites", "alarms", "ring_a", "ring_b", "aa", "tree", "archive"]
    async with server(*made_of) as engine:
        for collection in made_of:
            await engine.put(collection.name, {"id": "1"})
        for priority, count in (("critical", 2), ("high", 4), ("normal", 6), ("low", 7)):
            page = await engine.pull(priority=priority)
            assert [change.collection for change in page.changes] == pull_order(schemas)[:count]
        only = await engine.pull(collections=["tree", "alarms"])
        assert [change.collection for change in only.changes] == ["alarms", "tree"]


async def test_a_collection_that_becomes_urgent_is_pulled_as_a_whole() -> None:
    async with server(CARS, NOTES) as engine:
        await engine.put("cars", {"id": "x"})
        await engine.put("notes", {"id": "p"})
        phone = Phone(engine, priority="high")
        assert (await phone.pull()).total == 0
        await engine.define(wider(CARS, priority="critical"))
        await phone.pull()
        assert phone.told == [("cars", "x")]
        boss = Collection(
            name="boss",
            key="id",
            priority="high",
            fields={"id": Field("str"), "note": Field("str", null=True, references="notes")},
        )
        await engine.define(boss)
        await phone.pull()
        assert phone.told == [("notes", "p")]


async def test_deletions_say_who_when_and_why() -> None:
    async with server(CARS, NOTES) as engine:
        for key in "xy":
            await engine.put("cars", {"id": key})
        await engine.put("notes", {"id": "p"})
        phone = Phone(engine)
        await phone.pull()
        await engine.delete("cars", "x", actor="ann", reason="sold")
        await engine.delete("notes", "p")
        page = await phone.pull()
        assert page.deleted() == {"cars": 1, "notes": 1} and page.total == 2
        removed = next(one for one in page.deletions if one.collection == "cars")
        assert (removed.key, removed.actor, removed.reason) == ("x", "ann", "sold")
        again = Change(operation="create", collection="cars", key="x", version=removed.version, values={"a": "back"})
        assert len((await engine.push([again], client="phone")).applied) == 1


async def test_a_delete_that_a_strategy_prefers_is_told_as_it_was_written() -> None:
    first = wider(CARS, strategy="first-write-wins")
    async with server(first) as engine, memory_engine(MemoryStore("other"), Ticks(1_700_000_200_000)) as other:
        await engine.put("cars", {"id": "x"})
        await other.sync(engine)
        await engine.delete("cars", "x", actor="ann")
        await other.patch("cars", "x", {"a": "late"}, actor="bob")
        await engine.sync(other)
        (removed,) = (await engine.pull()).deletions
        assert removed.actor == "ann"


async def test_open_conflicts_come_with_their_records_and_all_of_them_at_the_end() -> None:
    async with server(wider(ORDERS, strategy="manual"), CARS) as engine, _in_memory("other") as other:
        for number in range(3):
            await engine.put("a_orders", {"no": number})
        await engine.sync(other)
        for number in range(3):
            await engine.patch("a_orders", number, {"a": "1"})
            await other.patch("a_orders", number, {"a": "2"})
        await engine.sync(other)
        phone = Phone(engine, limit=1)
        page = await phone.page()
        assert [conflict.key for conflict in page.conflicts] == [page.changes[0].key]
        page = await phone.pull()
        assert {conflict.key for conflict in page.conflicts} == {"0", "1", "2"} and len(page.conflicts) <= CONFLICTS
        await engine.put("cars", {"id": "x"})
        await engine.put("a_orders", {"no": 9, "car": "x"})
        await phone.pull()
        await engine.delete("cars", "x")
        page = await phone.pull()
        assert "dependency-conflict" in {conflict.kind for conflict in page.conflicts}


async def test_what_makes_no_sense_is_refused() -> None:
    async with server(CARS) as engine:
        for _ in range(2):
            await engine.put("cars", {"id": str(_)})
        with pytest.raises(CollectionUnknown):
            await engine.pull(collections=["nothing"])
        senseless: list[dict[str, Any]] = [{"priority": "urgent"}, {"limit": 0}, {"limit": 10**6}]
        for asked in senseless:
            with pytest.raises(ValueRefused):
                await engine.pull(**asked)
        page = await engine.pull(limit=1)
        others: list[dict[str, Any]] = [{"priority": "high"}, {"collections": ["cars"]}]
        for asked in others:
            with pytest.raises(CursorRefused, match="other collections"):
                await engine.pull(page.next, **asked)


async def test_a_cursor_of_another_log_is_told() -> None:
    async with server(CARS) as engine, _in_memory("other") as other:
        for key in "xyz":
            await engine.put("cars", {"id": key})
        await other.sync(engine)
        half, whole = await engine.pull(limit=1), await engine.pull()
        assert await other.digest() == await engine.digest()
        for cursor in (half.next, whole.next):
            with pytest.raises(CursorForeign) as caught:
                await other.pull(cursor)
            assert "from the start" in caught.value.hint
        async with server(CARS) as restored:
            for _ in range(2):
                with pytest.raises(CursorForeign):
                    await restored.pull(half.next)
                for key in "abc":
                    await restored.put("cars", {"id": key})


@pytest.mark.parametrize("limit", [1, 100])
async def test_no_text_is_a_cursor_but_those_that_were_given(limit: int) -> None:
    async with server(CARS) as engine:
        for key in "xyz":
            await engine.put("cars", {"id": key})
        given_out = (await engine.pull(limit=limit)).next
        for at in range(len(given_out)):
            for letter in "A_-=é \n\0":
                if given_out[at] != letter:
                    with pytest.raises((CursorRefused, CursorForeign)):
                        await engine.pull(given_out[:at] + letter + given_out[at + 1 :])
            if at:
                with pytest.raises(CursorRefused):
                    await engine.pull(given_out[:at])
        with pytest.raises(CursorRefused):
            await engine.pull(given_out * 1000)


@given(
    st.text(max_size=80)
    | st.builds(
        Cursor,
        *[st.integers(-2, 5), st.integers(-2, 5), st.sampled_from(["", "cars", "x"]), st.integers(-2, 9)],
        *[st.integers(-2, 5), st.integers(-2, 5)],
        log=st.binary(max_size=16),
    ).map(format_cursor)
)
@example("A" * 100_000)
def test_forged_cursors_are_refused_by_name(text: str) -> None:
    async def pull() -> None:
        async with server(CARS) as engine:
            await engine.put("cars", {"id": "x"})
            if text:
                with pytest.raises((CursorRefused, CursorForeign)):
                    await engine.pull(text)
            else:
                assert (await engine.pull(text)).total == 1

    asyncio.run(pull())
