"""Verification of the log of a large archive, through an open engine, beside the least that any check has to do."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from hashlib import sha256

import refold
from refold.events import decode
from refold_adapters.sqlite_log import SqliteLog

from .measure import ROWS, Figures, Place, Row, measurement

PAGE = 1000


def _bare(place: Place, *, name: str) -> Figures:
    """Fetch, decode, hash: a loop that checks nothing."""
    log = SqliteLog(place.prepared / name / "changelog.db", readonly=True)
    position = 0
    start = time.perf_counter()
    while bodies := log.bodies(position, PAGE):
        position = bodies[-1][0]
        for _, body in bodies:
            decode(body)
            sha256(body).digest()
    return {"rate": position / (time.perf_counter() - start)}


async def _verified(place: Place, name: str) -> Figures:
    async with refold.open(place.prepared / name, folders=False, readonly=True) as engine:
        start = time.perf_counter()
        report = await engine.verify(only={"log"})
        elapsed = time.perf_counter() - start
    assert report.ok, report.findings
    return {"rate": report.events / elapsed}


def _verify(place: Place, *, name: str) -> Figures:
    return asyncio.run(_verified(place, name))


measurement("bare-verify", needs=("large", "large-tables"), rounds=3)(partial(_bare, name="large"))
measurement("verify", needs=("large", "large-tables"), rounds=3)(partial(_verify, name="large"))

ROWS += [
    Row(
        group="verifies",
        name="verify of the large log, beside fetch, decode and hash",
        measurement="verify",
        raw="bare-verify",
        target=0.5,
    ),
    Row(
        group="verifies",
        name="peak memory, verify of the large log",
        measurement="verify",
        figure="peak_mb",
        unit="MB",
        target=150,
        of="figure",
        least=False,
    ),
]
