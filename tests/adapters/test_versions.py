"""A collection that goes on to further versions: tables, folders and replicas agree by the byte, live and at replay."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from refold.conflict_list import ConflictQuery
from refold.events import Event, canonical
from refold.ports import Query
from refold.queries import conflicts
from refold.replay import catch_up, load_schemas
from refold.testing import MemoryTables, Scribe, append
from refold.testing.memory import MemoryLog
from refold_adapters.sqlite_tables import SqliteTables
from tests.engine.generations import GENERATIONS, NAME, THIRD, means, mixed_histories
from tests.engine.histories import reordered

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
