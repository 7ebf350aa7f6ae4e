"""A collection that goes on to further versions: tables, folders and replicas agree by the byte, live and at replay."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import refold
from refold import Engine
from refold.conflict_list import ConflictQuery
from refold.errors import FieldUnknown, RecordUnknown, ValueRefused
from refold.events import Event, canonical
from refold.ports import Query
from refold.queries import conflicts
from refold.replay import catch_up, load_schemas
from refold.testing import MemoryLog, MemoryStore, MemoryTables, Scribe, Ticks, append, memory_engine
from refold_adapters.sqlite_tables import SqliteTables
from tests.engine.generations import FIRST, GENERATIONS, NAME, THIRD, VALUES, means, mixed_histories
from tests.engine.histories import reordered

from .cli.support import bytes_of

BOOKKEEPING = ("_refold_conflicts", "_refold_references", "_refold_unique")


@st.composite
def archives(draw: st.DrawFn) -> list[Event]:
    """A history of writers of any generation, and two who define: one step by step, the other the newest at once."""
    events = draw(mixed_histories(max_steps=10))
    definers = [Scribe("y", lambda: 5), Scribe("z", lambda: 5)]
    defined = [definers[0].define(collection) for collection in GENERATIONS]
    if draw(st.booleans()):
        defined.append(definers[1].define(THIRD))
    return [*defined, *events]


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What other programs see, and what is derived of several records, in order."""
    connection = sqlite3.connect(path)
    try:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({NAME})")]
        found = {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in BOOKKEEPING}
        return {**found, "columns": [tuple(columns)], NAME: sorted(connection.execute(f"SELECT * FROM {NAME}"))}
    finally:
        connection.close()


def replayed(events: Sequence[Event], random: Random, root: Path) -> tuple[Any, ...]:
    """All that tables of both kinds tell after the events in this order, in runs of some length."""
    log = MemoryLog()
    plain, tables = MemoryTables(log.at), SqliteTables(root / "tables.db", log.at)
    append(log, events)
    try:
        for one in (plain, tables):
            while catch_up(log, one, random.randint(1, 6)):
                pass
        schema = load_schemas(tables)[NAME]
        assert plain.states == dict(tables.records(("", ""), 10**6))
        told = []
        for one in (plain, tables):
            rows = [(key, state) for _, key, state in one.find(Query(NAME), schema)]
            listed = one.conflicts(ConflictQuery())
            told.append((rows, listed, conflicts(ConflictQuery(), load_schemas(one), None, log, one)[1]))
        assert told[0][:2] == told[1][:2]
        assert told[0][2] == told[1][2] and len(told[0][2]) == len(told[0][1])
    finally:
        tables.close()
    return dump(root / "tables.db"), told[1][1], [(one.id, one.sides, one.outcome, one.base) for one in told[1][2]]


@given(archives(), st.randoms())
@settings(max_examples=settings().max_examples // 2)
def test_tables_and_conflicts_do_not_depend_on_when_a_version_comes(events: list[Event], random: Random) -> None:
    bodies = {event.dot: canonical(event) for event in events}
    found = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as place:
            found.append(replayed(reordered(events, random), random, Path(place)))
    assert found[0] == found[1]
    assert {event.dot: canonical(event) for event in events} == bodies
    rows = {row[0]: dict(zip(found[0][0]["columns"][0], row, strict=True)) for row in found[0][0][NAME]}
    for key in {event.key for event in events if event.key}:
        fields, presence = means([event for event in events if event.key == key], 2)
        if presence[-1].kind == "delete":
            assert key not in rows
            continue
        blank = {"id": key, "place": None, "title": None, "count": None, "colour": "grey"}
        assert rows[key] == blank | {name: left[-1].data[name] for name, left in fields.items()}


WRITES = [("write", 3), ("define", 1), ("sync", 2), ("delete", 1)]


@st.composite
def plans(draw: st.DrawFn, *, max_steps: int = 14) -> list[tuple[str, int, int, dict[str, Any]]]:
    """What two replicas do: who, of what generation or record, and values of each generation."""
    actions = [name for name, weight in WRITES for _ in range(weight)]
    values = st.fixed_dictionaries(
        {str(number): st.fixed_dictionaries({}, optional=VALUES[number]) for number in range(3)}
    )
    step = st.tuples(st.sampled_from(actions), st.integers(0, 1), st.integers(0, 2), values)
    return draw(st.lists(step, min_size=3, max_size=max_steps))


async def carry_out(engines: Sequence[Engine], plan: Sequence[tuple[str, int, int, dict[str, Any]]]) -> None:
    """Does what a plan says: each replica writes in the version that it has, or says that it writes in an older one."""
    for action, who, number, values in plan:
        engine, key = engines[who], str(number)
        schema = engine.schemas.get(NAME)
        if action == "sync":
            await engine.sync(engines[1 - who])
        elif action == "define" or schema is None:
            await engine.define(GENERATIONS[number])
        elif action == "delete":
            with suppress(RecordUnknown):
                await engine.delete(NAME, key)
        else:
            spelt = min(number, schema.version - 1)
            with suppress(ValueRefused, FieldUnknown):
                await engine.put(NAME, {"id": key, **values[str(spelt)]}, schema_version=spelt + 1)


async def told(engine: Engine) -> tuple[Any, ...]:
    """All that an archive says of its records."""
    records = [(record.key, record.values, record.version, record.folder) async for record in engine.find(NAME)]
    listed = [(one.id, one.kind, one.status, one.sides, one.outcome, one.base) async for one in engine.conflicts("")]
    return await engine.digest(), records, listed


async def agree(engines: Sequence[Engine], seen: dict[tuple[str, int], bytes]) -> None:
    """The last version is defined and both meet: they say the same, and that is what the model says."""
    await engines[0].define(THIRD)
    await engines[0].sync(engines[1])
    assert await told(engines[0]) == await told(engines[1])
    events = [event async for event in engines[0].events()]
    assert {event.dot: canonical(event) for event in events}.items() >= seen.items()
    shown = {record.key: record.values async for record in engines[1].find(NAME)}
    for key in {event.key for event in events if event.key}:
        fields, presence = means([event for event in events if event.key == key], 2)
        blank = {"id": key, "place": None, "title": None, "count": None, "colour": "grey"}
        wanted = blank | {name: left[-1].data[name] for name, left in fields.items() if name != "note"}
        assert shown.get(key) == (wanted if presence[-1].kind != "delete" else None)


async def meet_in_memory(plan: Sequence[tuple[str, int, int, dict[str, Any]]]) -> None:
    stores, ticks = (MemoryStore("a"), MemoryStore("b")), Ticks()
    async with memory_engine(stores[0], ticks) as one, memory_engine(stores[1], ticks) as two:
        await one.define(FIRST)
        await carry_out((one, two), plan)
        written = [event for engine in (one, two) async for event in engine.events()]
        await agree((one, two), {event.dot: canonical(event) for event in written})


@given(plans())
@settings(max_examples=settings().max_examples // 2)
def test_replicas_of_any_versions_come_to_the_same(plan: list[tuple[str, int, int, dict[str, Any]]]) -> None:
    asyncio.run(meet_in_memory(plan))


async def meet_on_disk(root: Path, plan: Sequence[tuple[str, int, int, dict[str, Any]]]) -> None:
    ticks = Ticks()
    async with (
        refold.open(root / "a", replica="a", clock=ticks) as one,
        refold.open(root / "b", replica="b", clock=ticks) as two,
    ):
        await one.define(FIRST)
        await carry_out((one, two), plan)
        await agree((one, two), {})
        for engine in (one, two):
            await engine.settled()
            assert (await engine.verify()).findings == []
    found = bytes_of(root / "a")
    assert found == bytes_of(root / "b")
    async with refold.open(root / "a") as one:
        await one.rebuild()
        assert (await one.verify()).findings == []
    assert bytes_of(root / "a") == found


@given(plans(max_steps=10))
@settings(max_examples=max(4, settings().max_examples // 12))
def test_their_folders_have_the_same_bytes(plan: list[tuple[str, int, int, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(meet_on_disk(Path(place), plan))
