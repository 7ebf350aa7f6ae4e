"""Single writes: `put` by one writer and by many at once, each acknowledged when it is durable and in the tables."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import refold

from .measure import ROWS, Figures, Place, Row, measurement
from .record import NAME, RAW_INSERT, collection, raw_log, raw_row, records


def _raw_commits(place: Place, *, slow: bool) -> Figures:
    values = records(place.sizes.slow_commits if slow else place.sizes.commits)
    connection = raw_log(place.work / "raw.db")
    execute = connection.execute
    start = time.perf_counter()
    for seq, data in enumerate(values, 1):
        execute("BEGIN")
        execute(RAW_INSERT, raw_row(seq, data))
        execute("COMMIT")
    return {"rate": len(values) / (time.perf_counter() - start)}


measurement("raw-commit")(partial(_raw_commits, slow=False))
measurement("raw-commit-slow", slow=True)(partial(_raw_commits, slow=True))


async def _puts(place: Place, writers: int, count: int, folders: bool) -> Figures:
    values = records(count)
    async with refold.open(place.work / "archive", replica="office", actor="bench", folders=folders) as engine:
        await engine.define(collection())

        async def writer(number: int) -> None:
            for data in values[number::writers]:
                await engine.put(NAME, data)

        start = time.perf_counter()
        await asyncio.gather(*(writer(number) for number in range(writers)))
        written = time.perf_counter()
        await engine.settled()
        settled = time.perf_counter()
    return {"rate": count / (written - start), "settle_s": settled - written}


def _many(place: Place, *, writers: int, folders: bool) -> Figures:
    count = place.sizes.one if writers == 1 else place.sizes.many
    return asyncio.run(_puts(place, writers, count, folders))


def _register(writers: int, *, slow: bool, target: float) -> None:
    raw = "raw-commit-slow" if slow else "raw-commit"
    group = "slow" if slow else "put"
    for folders in (True, False):
        name = f"{group}-{writers}-{'folders' if folders else 'bare'}"
        measurement(name, slow=slow)(partial(_many, writers=writers, folders=folders))
        title = f"put, {writers} writer{'s' if writers > 1 else ''}{', fsync + 1 ms' if slow else ''}"
        title += ", folders on" if folders else ", folders off"
        ROWS.append(Row(group=group, name=title, measurement=name, raw=raw, target=target))
        if folders and not slow:
            caught = f"{title}: folders caught up after"
            ROWS.append(Row(group=group, name=caught, measurement=name, figure="settle_s", unit="s", least=False))


_register(1, slow=False, target=0.3)
_register(64, slow=False, target=2)
_register(1000, slow=False, target=2.5)
_register(1000, slow=True, target=60)
