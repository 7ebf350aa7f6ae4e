"""Thin clients: many that push one change each at the same time, one that pushes records of several kinds in any order,
and somebody who settles a conflict among many records. Beside the pushes, sqlite3 commits an event at a time."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from statistics import median
from typing import Any

import msgspec

import refold
from refold import Change, Collection, Field

from .measure import ROWS, Figures, Place, Row, measurement
from .record import NAME, collection, record
from .syncs import copies

KINDS = ("tag_categories", "tags", "bucket_list_items", "trips", "memories", "media_items", "gpx_tracks")
"""Seven kinds of records, each of which refers to one of the kind before."""

REPEATS = 20


async def _pushes(place: Place) -> Figures:
    """So many clients at once, each of which creates a record and waits for its answer."""
    count = place.sizes.pushes
    changes = [Change(operation="create", collection=NAME, key=key, values=rest) for key, rest in _records(count)]
    async with refold.open(place.work / "archive", replica="server", folders=False) as engine:
        await engine.define(collection())
        start = time.perf_counter()
        results = await asyncio.gather(
            *(engine.push([change], client=f"phone-{number}") for number, change in enumerate(changes))
        )
        elapsed = time.perf_counter() - start
        assert all(len(result.applied) == 1 for result in results)
        assert len([None async for _ in engine.find(NAME)]) == count
    return {"rate": count / elapsed}


def _records(count: int) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for number in range(count):
        values = record(number)
        found.append((values.pop("record_id"), values))
    return found


measurement("pushes")(lambda place: asyncio.run(_pushes(place)))


def _kinds() -> list[Collection]:
    kinds = []
    for index, name in enumerate(KINDS):
        fields = {"id": Field("str"), "title": Field("str"), "n": Field("int")}
        if index:
            fields["parent"] = Field("str", references=KINDS[index - 1])
        kinds.append(Collection(name=name, key="id", fields=fields))
    return kinds


async def _bulk(place: Place) -> Figures:
    """The median milliseconds of a push of a thousand records of seven kinds, children before parents."""
    times = []
    async with refold.open(place.work / "archive", replica="server", folders=False) as engine:
        for kind in _kinds():
            await engine.define(kind)
        for turn in range(5):
            changes = [_child(turn, number) for number in reversed(range(1000))]
            start = time.perf_counter()
            result = await engine.push(changes, client="phone")
            times.append(time.perf_counter() - start)
            assert len(result.applied) == 1000, result
    return {"ms": median(times) * 1000}


def _child(turn: int, number: int) -> Change:
    kind = number % len(KINDS)
    values: dict[str, Any] = {"title": f"record {number}", "n": number}
    if kind:
        values["parent"] = f"{turn}-{number - 1}"
    return Change(operation="create", collection=KINDS[kind], key=f"{turn}-{number}", values=values)


measurement("push-bulk")(lambda place: asyncio.run(_bulk(place)))


async def _settle(place: Place) -> Figures:
    """The median milliseconds of settling one conflict by hand."""
    times = []
    with copies(place, "synced") as (root, _):
        async with refold.open(root, folders=False) as engine:
            await engine.define(msgspec.structs.replace(collection(), strategy="manual"))
            for number in range(REPEATS):
                key = record(number)["record_id"]
                seen = await engine.get(NAME, key)
                assert seen is not None
                await engine.patch(NAME, key, {"kilometer": number + 1_000_000})
                change = Change(
                    operation="update",
                    collection=NAME,
                    key=key,
                    values={"kilometer": number + 3_000_000},
                    version=seen.version,
                )
                [answer] = (await engine.push([change], client="phone")).conflicts
                start = time.perf_counter()
                await engine.resolve(answer.conflicts[0], values={"kilometer": number + 2_000_000})
                times.append(time.perf_counter() - start)
    return {"ms": median(times) * 1000}


measurement("settle", needs=("synced",))(lambda place: asyncio.run(_settle(place)))

_row = partial(Row, group="clients")
ROWS += [
    _row(name="pushes of one change each, all at once", measurement="pushes", raw="raw-commit", unit="pushes/s"),
    _row(
        name="push of 1,000 records of 7 kinds",
        measurement="push-bulk",
        figure="ms",
        unit="ms",
        target=200,
        of="figure",
        least=False,
    ),
    _row(
        name="settling one conflict of the large archive",
        measurement="settle",
        figure="ms",
        unit="ms",
        target=10,
        of="figure",
        least=False,
    ),
]
