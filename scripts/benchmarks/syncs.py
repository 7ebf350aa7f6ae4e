"""Replicas that meet: a first sync, in process and over a directory; syncs with little or nothing to do between large
logs; and a sync of events that were written apart.

Beside them, sqlite3 copies the same log into a table with the same unique index, a thousand events a commit. It checks
nothing, finds no conflicts and fills no tables.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import refold
from refold.events import Event, Kind, canonical, seal
from refold_adapters.sqlite_log import SqliteLog

from .measure import ROWS, Figures, Place, Row, measurement, preparation
from .record import NAME, SHARED, append, definition, events, raw_connection, record, records

SIZE = 1000
REPEATS = 20
PAGE = 100
DAY = 86_400_000 << 16
"""How much later than the records the changes were made that are written apart."""


def _past(path: Path, owner: str, count: int) -> tuple[SqliteLog, bytes]:
    """A log of `owner` with the office's definition and records; the hash of the last."""
    path.parent.mkdir(parents=True)
    log = SqliteLog(path, owner=owner)
    first = definition(SHARED)
    previous = first.hash
    log.append([first], [canonical(first)], [previous])
    for start in range(0, count, SIZE):
        previous = append(log, list(events(start + 2, previous, records(min(SIZE, count - start), start))))
    return log, previous


def _changes(replica: str, seq: int, previous: bytes, count: int) -> Iterator[tuple[Event, bytes, bytes]]:
    """Changes of so many records by one who has seen nothing but their creation."""
    for number in range(count):
        data: dict[str, Any] = {"kilometer": number, "bemerkung": f"{replica} {number}"}
        key, context = record(number)["record_id"], {"office": number + 2}
        at = seq + number
        when = DAY + (number << 16)
        event = Event(replica, at, when, Kind.UPDATE, NAME, key, data, context, "bench", 1, at, None, {}, previous)
        body, previous = seal(event)
        yield event, body, previous


async def _tables(root: Path, share: Path | None = None) -> None:
    """Brings an archive's tables up to its log, and a directory up to the archive."""
    async with refold.open(root, folders=False) as engine:
        if share is not None:
            await engine.sync(f"dir://{share}")


@preparation("synced")
def _prepare(place: Place) -> Figures:
    """The same log in two archives, and in a directory."""
    base = place.prepared / "synced"
    share = base / "share"
    share.mkdir(parents=True)
    for owner in ("office", "depot"):
        log, _ = _past(base / owner / "changelog.db", owner, place.sizes.sync)
        log.close()
        asyncio.run(_tables(base / owner, share if owner == "office" else None))
    return {}


@preparation("apart")
def _prepare_apart(place: Place) -> Figures:
    """Two archives with one past: the office changed every record, the depot every other half of them."""
    count = place.sizes.apart
    for owner, changed in (("office", count), ("depot", count // 2)):
        root = place.prepared / "apart" / owner
        log, previous = _past(root / "changelog.db", owner, count)
        seq, previous = (count + 2, previous) if owner == "office" else (1, bytes(32))
        sealed = list(_changes(owner, seq, previous, changed))
        for start in range(0, changed, SIZE):
            append(log, sealed[start : start + SIZE])
        log.close()
        asyncio.run(_tables(root))
    return {}


def _raw(place: Place, *, name: str, after: int) -> Figures:
    """Copies what stands after a position of a log."""
    source = raw_connection(place.prepared / name / "office" / "changelog.db")
    target = raw_connection(place.work / "raw.db")
    target.execute(
        "CREATE TABLE events (position INTEGER PRIMARY KEY, replica INTEGER, seq INTEGER, body BLOB,"
        " UNIQUE (replica, seq))"
    )
    select = "SELECT position, replica, seq, body FROM events WHERE position > ? ORDER BY position LIMIT ?"
    position, count = after, 0
    start = time.perf_counter()
    while rows := source.execute(select, (position, SIZE)).fetchall():
        position = rows[-1][0]
        target.execute("BEGIN")
        target.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
        target.execute("COMMIT")
        count += len(rows)
    return {"rate": count / (time.perf_counter() - start)}


measurement("raw-copy", needs=("synced",))(partial(_raw, name="synced", after=0))


@measurement("raw-copy-apart", needs=("apart",))
def _raw_apart(place: Place) -> Figures:
    return _raw(place, name="apart", after=place.sizes.apart + 1)


@contextmanager
def copies(place: Place, name: str) -> Iterator[tuple[Path, Path]]:
    """The office and the depot as they were prepared, to be written to."""
    for owner in ("office", "depot"):
        shutil.copytree(place.prepared / name / owner, place.work / owner)
    yield place.work / "office", place.work / "depot"
    for owner in ("office", "depot"):
        shutil.rmtree(place.work / owner)


async def _first(place: Place) -> float:
    async with (
        refold.open(place.prepared / "synced" / "office", folders=False) as office,
        refold.open(place.work / "new", replica="new", folders=False) as engine,
    ):
        start = time.perf_counter()
        report = await engine.sync(office)
        elapsed = time.perf_counter() - start
    assert report.received == place.sizes.sync + 1, report
    return report.received / elapsed


async def _from_share(place: Place) -> float:
    async with refold.open(place.work / "new", replica="new", folders=False) as engine:
        start = time.perf_counter()
        report = await engine.sync(f"dir://{place.prepared / 'synced' / 'share'}")
        elapsed = time.perf_counter() - start
    assert report.received == place.sizes.sync + 1, report
    return report.received / elapsed


async def _to_share(place: Place) -> float:
    share = place.work / "share"
    share.mkdir()
    async with refold.open(place.prepared / "synced" / "office", folders=False) as engine:
        start = time.perf_counter()
        report = await engine.sync(f"dir://{share}")
        elapsed = time.perf_counter() - start
    assert report.sent == place.sizes.sync + 1, report
    return report.sent / elapsed


def _rate(place: Place, *, way: Any) -> Figures:
    figures = {"rate": asyncio.run(way(place))}
    for path in place.work.iterdir():
        shutil.rmtree(path)
    return figures


measurement("sync-first", needs=("synced",))(partial(_rate, way=_first))
measurement("sync-from-share", needs=("synced",))(partial(_rate, way=_from_share))
measurement("sync-to-share", needs=("synced",))(partial(_rate, way=_to_share))


async def _often(one: Path, other: Path, behind: int) -> float:
    """The median milliseconds of syncs that find the other so many events ahead."""
    times = []
    async with refold.open(one, folders=False) as office, refold.open(other, folders=False) as depot:
        for number in range(REPEATS):
            for _ in range(behind):
                await office.patch(NAME, record(number)["record_id"], {"kilometer": number + 1_000_000})
            start = time.perf_counter()
            report = await depot.sync(office)
            times.append(time.perf_counter() - start)
            assert (report.received, report.sent) == (behind, 0), report
    return median(times) * 1000


def _little(place: Place, *, behind: int) -> Figures:
    with copies(place, "synced") as (office, depot):
        return {"ms": asyncio.run(_often(office, depot, behind))}


measurement("sync-nothing", needs=("synced",))(partial(_little, behind=0))
measurement("sync-one", needs=("synced",))(partial(_little, behind=1))


async def _meet(one: Path, other: Path, count: int) -> float:
    async with refold.open(one, folders=False) as office, refold.open(other, folders=False) as depot:
        start = time.perf_counter()
        report = await depot.sync(office)
        elapsed = time.perf_counter() - start
        assert await office.digest() == await depot.digest()
    assert (report.received, report.sent, report.merged) == (count, count // 2, count // 2), report
    return (report.received + report.sent) / elapsed


@measurement("sync-apart", needs=("apart",))
def _apart(place: Place) -> Figures:
    with copies(place, "apart") as (office, depot):
        return {"rate": asyncio.run(_meet(office, depot, place.sizes.apart))}


def _raw_page(place: Place) -> Figures:
    """The median milliseconds of a page by position from the middle of a copied log, decoded from msgpack."""
    source = raw_connection(place.prepared / "synced" / "office" / "changelog.db")
    times = []
    for number in range(REPEATS):
        start = time.perf_counter()
        select = "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?"
        rows = source.execute(select, (place.sizes.sync // 2 + number * PAGE, PAGE)).fetchall()
        assert len([msgspec.msgpack.decode(body) for _, body in rows]) == PAGE
        times.append(time.perf_counter() - start)
    source.close()
    return {"ms": median(times) * 1000}


measurement("raw-page", needs=("synced",))(_raw_page)


async def _pages(root: Path, half: int) -> tuple[float, float]:
    """The milliseconds of the first page of a pull, and the median of pages from the middle on."""
    async with refold.open(root, folders=False) as engine:
        start = time.perf_counter()
        page = await engine.pull(limit=PAGE)
        first = time.perf_counter() - start
        while page.total - page.left < half:
            page = await engine.pull(page.next, limit=1000)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            page = await engine.pull(page.next, limit=PAGE)
            times.append(time.perf_counter() - start)
            assert len(page.changes) == PAGE and page.has_more
    return first * 1000, median(times) * 1000


@measurement("pull", needs=("synced",))
def _pull(place: Place) -> Figures:
    with copies(place, "synced") as (office, _):
        first, middle = asyncio.run(_pages(office, place.sizes.sync // 2))
    return {"first": first, "ms": middle}


ROWS += [
    Row(
        group="syncs",
        name="first sync, in process, durable and in the tables",
        measurement="sync-first",
        raw="raw-copy",
    ),
    Row(
        group="syncs",
        name="first sync, from a directory, durable and in the tables",
        measurement="sync-from-share",
        raw="raw-copy",
    ),
    Row(group="syncs", name="first sync, to a directory", measurement="sync-to-share", raw="raw-copy"),
    Row(
        group="syncs",
        name="sync, half of what comes concurrent with ours",
        measurement="sync-apart",
        raw="raw-copy-apart",
    ),
    Row(group="syncs", name="sync of large logs, nothing to do", measurement="sync-nothing", figure="ms", unit="ms"),
    Row(group="syncs", name="sync of large logs, one event behind", measurement="sync-one", figure="ms", unit="ms"),
    Row(group="syncs", name="pull, the first page of 100", measurement="pull", figure="first", unit="ms"),
    Row(
        group="syncs",
        name="pull, a page of 100 from the middle",
        measurement="pull",
        raw="raw-page",
        figure="ms",
        raw_figure="ms",
        unit="ms",
    ),
]
