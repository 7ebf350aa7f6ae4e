"""Replay of a log into tables, the memory it takes, opening a large archive, and the check of its chain."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import refold
import refold_adapters.archive  # noqa: F401 - opening is measured without the import
from refold.verify import ChainCheck
from refold_adapters.sqlite_log import SqliteLog

from .measure import ROWS, Figures, Place, Row, measurement, preparation
from .record import NAME, SHARED, append, definition, events, raw_connection, raw_replay, record, records

SIZE = 1000


def write_log(path: Path, count: int, folder: str, *, shuffled: bool = False) -> None:
    """A log that defines the collection and creates this many records."""
    log = SqliteLog(path, owner="office")
    first = definition(folder)
    previous = first.hash
    log.append([first], [refold.events.canonical(first)], [previous])
    for start in range(0, count, SIZE):
        sealed = list(events(start + 2, previous, records(min(SIZE, count - start), start, shuffled=shuffled)))
        previous = append(log, sealed)
    log.close()


def _prepare(place: Place, *, name: str) -> Figures:
    root = place.prepared / name
    root.mkdir(parents=True)
    count = place.sizes.large if name == "large" else place.sizes.replay
    write_log(root / "changelog.db", count, SHARED, shuffled=name == "shuffled")
    return {}


for _name in ("log", "shuffled", "large"):
    preparation(_name)(partial(_prepare, name=_name))


def _raw(place: Place, *, name: str) -> Figures:
    log = raw_connection(place.prepared / name / "changelog.db")
    table = raw_connection(place.work / "raw.db", synchronous="NORMAL")
    start = time.perf_counter()
    count = raw_replay(log, table)
    return {"rate": count / (time.perf_counter() - start)}


async def _open(root: Path) -> float:
    start = time.perf_counter()
    async with refold.open(root, folders=False):
        return time.perf_counter() - start


def _replay(place: Place, *, name: str) -> Figures:
    """Opening an archive that has lost its tables."""
    root = place.prepared / name
    for file in root.glob("tables.db*"):
        file.unlink()
    elapsed = asyncio.run(_open(root))
    return {"rate": (place.sizes.large if name == "large" else place.sizes.replay) / elapsed}


for _name in ("log", "shuffled"):
    measurement(f"raw-replay-{_name}", needs=(_name,))(partial(_raw, name=_name))
    measurement(f"replay-{_name}", needs=(_name,))(partial(_replay, name=_name))
measurement("raw-replay-large", needs=("large",), rounds=1)(partial(_raw, name="large"))
measurement("replay-large", needs=("large",), rounds=1)(partial(_replay, name="large"))


@preparation("large-tables")
def _large(place: Place) -> Figures:
    """The tables of the large log, unless its replay has just made them."""
    asyncio.run(_open(place.prepared / "large"))
    return {}


@measurement("open", needs=("large", "large-tables"))
def _opening(place: Place) -> Figures:
    async def first_get() -> float:
        start = time.perf_counter()
        async with refold.open(place.prepared / "large", folders=False) as engine:
            found = await engine.get(NAME, record(place.sizes.large // 2)["record_id"])
            elapsed = time.perf_counter() - start
        assert found is not None
        return elapsed

    return {"ms": asyncio.run(first_get()) * 1000}


@measurement("raw-chain", needs=("log",))
def _hashing(place: Place) -> Figures:
    log = SqliteLog(place.prepared / "log" / "changelog.db", readonly=True)
    position = 0
    start = time.perf_counter()
    while bodies := log.bodies(position, SIZE):
        position = bodies[-1][0]
        for _, body in bodies:
            sha256(body).digest()
    return {"rate": position / (time.perf_counter() - start)}


@measurement("chain", needs=("log",))
def _chain(place: Place) -> Figures:
    log = SqliteLog(place.prepared / "log" / "changelog.db", readonly=True)
    check = ChainCheck()
    position = 0
    start = time.perf_counter()
    while bodies := log.bodies(position, SIZE):
        position = bodies[-1][0]
        for where, body in bodies:
            found = list(check.feed(where, body))
            assert not found, found
    return {"rate": position / (time.perf_counter() - start)}


ROWS += [
    Row(group="replay", name="replay, log to tables", measurement="replay-log", raw="raw-replay-log", target=0.5),
    Row(
        group="replay",
        name="replay, log to tables, keys in random order",
        measurement="replay-shuffled",
        raw="raw-replay-shuffled",
    ),
    Row(
        group="memory",
        name="peak memory, replay of the large log, beside the small one's",
        measurement="replay-large",
        raw="replay-log",
        figure="peak_mb",
        raw_figure="peak_mb",
        unit="MB",
        target=1.2,
        least=False,
    ),
    Row(
        group="memory",
        name="peak memory, replay of the large log",
        measurement="replay-large",
        figure="peak_mb",
        unit="MB",
        target=150,
        of="figure",
        least=False,
    ),
    Row(group="memory", name="replay of the large log", measurement="replay-large", raw="raw-replay-large"),
    Row(
        group="open",
        name="opening the large archive, to the first get",
        measurement="open",
        figure="ms",
        unit="ms",
        target=100,
        of="figure",
        least=False,
    ),
    Row(group="verify", name="verify of the chain, beside reading and hashing", measurement="chain", raw="raw-chain"),
]
