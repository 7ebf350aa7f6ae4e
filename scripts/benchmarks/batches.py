"""Batches of a thousand: into the log alone, and through `engine.batch` into log and tables.

"Durable" is what the changelog does: events are made, chained, sealed and appended, as for events that come from
another replica; nothing is decided and no table is written.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import refold
from refold_adapters.sqlite_log import SqliteLog

from .measure import ROWS, Figures, Place, Row, measurement
from .record import NAME, RAW_INSERT, append, collection, events, raw_log, raw_row, records

SIZE = 1000


@measurement("raw-batch")
def _raw(place: Place) -> Figures:
    values = records(place.sizes.batches)
    connection = raw_log(place.work / "raw.db")
    start = time.perf_counter()
    for first in range(0, len(values), SIZE):
        connection.execute("BEGIN")
        rows = [raw_row(seq, data) for seq, data in enumerate(values[first : first + SIZE], first + 1)]
        connection.executemany(RAW_INSERT, rows)
        connection.execute("COMMIT")
    return {"rate": len(values) / (time.perf_counter() - start)}


@measurement("batch-log")
def _log(place: Place) -> Figures:
    values = records(place.sizes.batches)
    log = SqliteLog(place.work / "changelog.db", owner="office")
    previous = bytes(32)
    start = time.perf_counter()
    for first in range(0, len(values), SIZE):
        sealed = list(events(first + 1, previous, values[first : first + SIZE]))
        previous = append(log, sealed)
    elapsed = time.perf_counter() - start
    log.close()
    return {"rate": len(values) / elapsed}


async def _batches(place: Place, folders: bool) -> Figures:
    values = records(place.sizes.batches)
    async with refold.open(place.work / "archive", replica="office", folders=folders) as engine:
        await engine.define(collection())
        start = time.perf_counter()
        for first in range(0, len(values), SIZE):
            async with engine.batch(actor="bench") as batch:
                for data in values[first : first + SIZE]:
                    batch.put(NAME, data)
        written = time.perf_counter()
        await engine.settled()
        settled = time.perf_counter()
    return {"rate": len(values) / (written - start), "settle_s": settled - written}


def _engine(place: Place, *, folders: bool) -> Figures:
    return asyncio.run(_batches(place, folders))


measurement("batch-folders")(partial(_engine, folders=True))
measurement("batch-bare")(partial(_engine, folders=False))

ROWS += [
    Row(group="batch", name="batches of 1000, durable", measurement="batch-log", raw="raw-batch", target=0.3),
    Row(
        group="batch",
        name="batches of 1000, durable and in the tables, folders on",
        measurement="batch-folders",
        raw="raw-batch",
        target=0.15,
    ),
    Row(
        group="batch",
        name="batches of 1000, durable and in the tables, folders off",
        measurement="batch-bare",
        raw="raw-batch",
        target=0.15,
    ),
]
