"""A moment of a large archive: one record as it was, who wrote it, and what changed since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import refold
from refold import Engine

from .measure import ROWS, Figures, Place, Row, measurement, preparation
from .record import NAME, record

ROUNDS = 30
CHANGES = 20


@preparation("large-changed")
def _change(place: Place) -> Figures:
    """A few more events, at the end of the large log, of a record from its middle."""

    async def change() -> None:
        async with refold.open(place.prepared / "large", folders=False, actor="bench") as engine:
            for number in range(CHANGES):
                await engine.patch(NAME, record(place.sizes.large // 2)["record_id"], {"kilometer": number})

    asyncio.run(change())
    return {}


async def _timed(root: Path, work: Callable[[Engine, int], Awaitable[object]]) -> float:
    """The median of so many runs, in milliseconds, each of another record and moment."""
    elapsed = []
    async with refold.open(root, folders=False, readonly=True) as engine:
        for number in range(ROUNDS):
            start = time.perf_counter()
            found = await work(engine, number)
            elapsed.append(time.perf_counter() - start)
            assert found
    return median(elapsed) * 1000


@measurement("moment-get", needs=("large", "large-tables", "large-changed"))
def _get(place: Place) -> Figures:
    async def get(engine: Engine, number: int) -> object:
        middle = place.sizes.large // 2
        view = await engine.at({"office": middle + 7 * number + 2000} if number % 2 else middle + 7 * number + 2000)
        return await view.get(NAME, record(middle - number)["record_id"])

    return {"ms": asyncio.run(_timed(place.prepared / "large", get))}


@measurement("moment-get-time", needs=("large", "large-tables", "large-changed"))
def _get_at_time(place: Place) -> Figures:
    async def get(engine: Engine, number: int) -> object:
        seconds, millis = divmod(place.sizes.large // 2 + 7 * number + 2000, 1000)
        minutes, seconds = divmod(seconds, 60)
        view = await engine.at(f"1970-01-01T00:{minutes:02d}:{seconds:02d}.{millis:03d}Z")
        return await view.get(NAME, record(place.sizes.large // 2)["record_id"])

    return {"ms": asyncio.run(_timed(place.prepared / "large", get))}


@measurement("moment-blame", needs=("large", "large-tables", "large-changed"))
def _blame(place: Place) -> Figures:
    async def blame(engine: Engine, number: int) -> object:
        return await engine.blame(NAME, record(place.sizes.large // 2 + number)["record_id"])

    return {"ms": asyncio.run(_timed(place.prepared / "large", blame))}


@measurement("moment-diff", needs=("large", "large-tables", "large-changed"))
def _diff(place: Place) -> Figures:
    async def diff(engine: Engine, number: int) -> object:
        return [one async for one in engine.diff(engine.position - 1 - number % (CHANGES - 1), "@end")]

    return {"ms": asyncio.run(_timed(place.prepared / "large", diff))}


for _name, _title, _target in (
    ("moment-get", "one record of the large archive as it was, at a position or vector", 10),
    ("moment-get-time", "one record of the large archive as it was, at a time; changed 20 times since", 10),
    ("moment-blame", "who wrote each value of one record of the large archive", 10),
    ("moment-diff", "what 20 events at the end of the large archive changed", None),
):
    ROWS.append(
        Row(
            group="moments",
            name=_title,
            measurement=_name,
            figure="ms",
            unit="ms",
            target=_target,
            of="figure",
            least=False,
        )
    )
