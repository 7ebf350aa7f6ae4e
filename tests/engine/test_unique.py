"""Values that several records hold: the list against the definition, in any order of arrival and any batches."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from refold import Kind
from refold.conflict import same
from refold.conflict_list import ConflictQuery
from refold.events import Event
from refold.replay import catch_up
from refold.schema import Collection, Field
from refold.testing import MemoryLog, MemoryTables, Scribe, append
from refold.unique import coded

from .histories import THINGS, histories, maximal, rank, reordered, writes_of

UNIQUE = msgspec.structs.replace(
    THINGS,
    fields={name: msgspec.structs.replace(field, unique=name != "id") for name, field in THINGS.fields.items()}
    | {"s": Field("str", null=True, references="things")},
)


def tables_of(events: Sequence[Event], batch: int) -> MemoryTables:
    log = MemoryLog()
    tables = MemoryTables(log.at)
    for start in range(0, len(events), batch):
        append(log, events[start : start + batch])
        catch_up(log, tables, batch)
    return tables


def winner(events: Sequence[Event], field: str) -> Event | None:
    standing = maximal(writes_of(events, field) if field else events)
    return standing[-1] if standing else None


def defined(events: Sequence[Event], collection: Collection) -> set[tuple[str, str]]:
    """The field and first holder of every value that two records hold which are there, the last write winning."""
    held: dict[str, list[tuple[Any, tuple[int, str, int], str]]] = {}
    for key in {event.key for event in events}:
        own = [event for event in events if event.key == key]
        last = winner(own, "")
        if last is None or last.kind is Kind.DELETE:
            continue
        for name in (name for name, field in collection.fields.items() if field.unique):
            write = winner(own, name)
            if write is not None and write.data[name] is not None:
                equal = [one for one in maximal(writes_of(own, name)) if same(one.data[name], write.data[name])]
                held.setdefault(name, []).append((write.data[name], rank(equal[-1]), key))
    found = set()
    for name, holders in held.items():
        for value, _, _ in holders:
            group = sorted((at, key) for other, at, key in holders if same(value, other))
            if len(group) > 1:
                found.add((name, group[0][1]))
    return found


@given(
    histories(fields=["n", "tags", "s", "price"], records=["1", "2", "a"]),
    st.randoms(use_true_random=False),
    st.integers(1, 5),
)
def test_clashes_are_what_the_definition_says_in_any_order_and_batches(
    events: list[Event], random: Random, batch: int
) -> None:
    define = Scribe("definer").define(UNIQUE)
    whole = tables_of([define, *events], 1000)
    listed = whole.conflicts(ConflictQuery(limit=1000))
    clashes = [one.entry for one in listed if one.entry.kind == "unique-conflict"]
    assert {(entry.fields[0], entry.key) for entry in clashes} == defined(events, UNIQUE)
    assert len({entry.id for entry in clashes}) == len(clashes)
    other = reordered(events, random)
    place = random.randint(0, len(other))
    again = tables_of([*other[:place], define, *other[place:]], batch)
    assert again.conflicts(ConflictQuery(limit=1000)) == listed
    assert again.checkpoint().digest == whole.checkpoint().digest


def test_values_that_are_stored_otherwise_are_coded_otherwise() -> None:
    values: list[Any] = [1, 1.0, True, "1", "1.0", "1.00", [1], [1.0], "x" * 70, "x" * 71, ["x"] * 70, {"a": 1, "b": 2}]
    assert len({coded("c", "f", value) for value in values}) == len(values)
    assert coded("c", "f", {"b": 2, "a": 1}) == coded("c", "f", {"a": 1, "b": 2})
    assert all(len(coded("c", "f", value).code) <= 64 for value in values)
