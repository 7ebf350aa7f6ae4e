"""The engine over a directory, end to end, without folders."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

import refold
from refold.batch import Batch
from refold.clock import format_time, from_millis, to_millis
from refold.engine import Engine
from refold.errors import (
    ArchiveMissing,
    ClockBehind,
    CollectionUnknown,
    DefinitionRefused,
    EngineClosed,
    FieldUnknown,
    ProjectionFailed,
    ReadOnly,
    RecordUnknown,
    ReplicaMismatch,
    RequestReused,
    SchemeUnknown,
    SettingsInvalid,
    StorageFailed,
    StorePoisoned,
    ValueRefused,
    VersionMismatch,
)
from refold.events import Event
from refold.schema import Collection, Field
from refold.testing import START, Ticks
from refold.verify import Report
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables

from .folders.world import tree

T = TypeVar("T")

pytestmark = pytest.mark.anyio


@refold.collection("orders", key="order_no", folder="{date:%Y}/{order_no}")
class Order(msgspec.Struct):
    order_no: str
    customer: str
    date: datetime.date
    total: float | None = None


COUNTERS = Collection(name="counters", key="id", fields={"id": Field("int"), "n": Field("int", null=True)})
DAY = datetime.date(2024, 7, 29)


def archive(path: Path, **options: Any) -> AbstractAsyncContextManager[Engine]:
    return refold.open(path, **{"replica": "office", "clock": Ticks(), "folders": False, **options})


@asynccontextmanager
async def counting(path: Path, **options: Any) -> AsyncIterator[Engine]:
    async with archive(path, **options) as engine:
        await engine.define(COUNTERS)
        yield engine


async def all_events(engine: Engine) -> list[Event]:
    return [event async for event in engine.events()]


async def test_the_tour(tmp_path: Path) -> None:
    async with archive(tmp_path, actor="someone") as engine:
        assert [event.kind for event in await engine.define(Order)] == ["define"]
        assert await engine.define(Order) == []
        put = {"order_no": "076329", "customer": "Autohaus Süd", "date": "2024-07-29"}
        created = await engine.put("orders", put, actor="front-desk")
        assert created is not None and (created.actor, created.position) == ("front-desk", 2)
        assert await engine.put("orders", put) is None
        await engine.put(Order("076330", "Groß GmbH", DAY))
        patched = await engine.patch("orders", "076329", {"total": 12.5}, actor="billing", reason="invoice")
        assert patched is not None and (patched.data, patched.reason) == ({"total": 12.5}, "invoice")
        record = await engine.get("orders", "076329")
        assert record is not None
        assert record.values == {"order_no": "076329", "customer": "Autohaus Süd", "date": DAY, "total": 12.5}
        assert (record.version, record.folder, record.deleted) == ("office:4", "2024/076329", False)
        assert await engine.get(Order, "076330") == Order("076330", "Groß GmbH", DAY)
        assert await engine.get("orders", "never") is None and await engine.get(Order, "") is None
        found = [r.key async for r in engine.find("orders", {"customer": "Autohaus Süd"}, order="-date", limit=20)]
        assert found == ["076329"]
        async with engine.batch(actor="import") as batch:
            batch.put("orders", {"order_no": "1", "customer": "x", "date": DAY})
            batch.patch(Order, "1", {"total": 3})
            batch.delete("orders", "1")
            assert len(batch) == 3
        assert [event and event.actor for event in batch.events] == ["import"] * 3
        deleted = await engine.delete("orders", "076330")
        assert deleted is not None and deleted.actor == "someone"
        assert await engine.get(Order, "076330") is None
        gone = await engine.get("orders", "076330")
        assert gone is not None and gone.deleted and gone.values["customer"] == "Groß GmbH"
        assert [event.position async for event in engine.history("orders", "076329")] == [2, 4]
        assert [event async for event in engine.history(Order, "")] == []
        assert [event.kind async for event in engine.events(after=4, collection="orders")][-1] == "delete"
        await engine.settled()
        report = await engine.verify()
        assert report.ok and report.events == 8
        status = await engine.status()
        assert (status.replica, status.position, status.vector) == ("office", 8, {"office": 8})
        assert status.collections == {"orders": 1}
        assert len(await engine.digest()) == 64


async def test_refusals_are_typed_and_write_nothing(tmp_path: Path) -> None:
    async with archive(tmp_path) as engine:
        await engine.define(Order)
        await engine.put(Order("4", "c", DAY))
        good = {"order_no": "9", "customer": "x", "date": "2024-07-29"}
        cases: list[tuple[type[Exception], Any]] = [
            (ValueRefused, engine.put("orders", {**good, "date": "2024-13-01"})),
            (ValueRefused, engine.put("orders", {**good, "total": float("nan")})),
            (ValueRefused, engine.put("orders", {**good, "customer": "\ud800"})),
            (ValueRefused, engine.put("orders", {**good, "order_no": ""})),
            (ValueRefused, engine.put("orders", {**good, "total": 10**5000})),
            (ValueRefused, engine.put("orders", {"customer": "x"})),
            (ValueRefused, engine.put("orders", {"order_no": "9"})),
            (ValueRefused, engine.put("orders", good, actor="\ud800")),
            (ValueRefused, engine.put("orders", good, request_id="\ud800")),
            (ValueRefused, engine.put("orders", good, meta={"\ud800": "x"})),
            (ValueRefused, engine.put("orders", good, meta={"actor": "\ud800"})),
            (ValueRefused, engine.define(COUNTERS, actor="\ud800")),
            (FieldUnknown, engine.put("orders", {**good, "colour": "red"})),
            (CollectionUnknown, engine.put("never", good)),
            (CollectionUnknown, engine.get("never", "1")),
            (RecordUnknown, engine.patch("orders", "9", {"total": 1})),
            (RecordUnknown, engine.delete("orders", "9")),
            (RecordUnknown, engine.delete("orders", "")),
            (VersionMismatch, engine.patch("orders", "4", {"total": 1}, if_version="x:1")),
            (VersionMismatch, engine.delete("orders", "4", if_version="")),
            (DefinitionRefused, engine.define(Collection(name="orders", key="id", fields={"id": Field("str")}))),
            (StorageFailed, engine.define(tmp_path / "never.toml")),
        ]
        for kind, refused in cases:
            with pytest.raises(kind):
                await refused
        assert engine.position == 2
        assert (await engine.verify()).ok


async def test_one_bad_caller_fails_alone(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        results = await asyncio.gather(
            engine.put("counters", {"id": 1, "n": 1}),
            engine.define(COUNTERS, actor="\ud800"),
            engine.define(msgspec.structs.replace(COUNTERS, name="c2", folder="\ud800")),
            engine.patch("counters", 2, {"n": 1}),
            engine.put("counters", {"id": 3, "n": 1}),
            return_exceptions=True,
        )
        kinds = [type(result) for result in results]
        assert kinds == [Event, ValueRefused, DefinitionRefused, RecordUnknown, Event]


async def test_definitions_that_race_do_not_change_what_values_mean(tmp_path: Path) -> None:
    async with archive(tmp_path) as engine:
        kinds = ("int", "str")
        made = [
            Collection(name="c", key="id", fields={"id": Field("str"), "x": Field(kind, null=True)}) for kind in kinds
        ]
        first, second = await asyncio.gather(*(engine.define(c) for c in made), return_exceptions=True)
        assert isinstance(first, list) and len(first) == 1
        assert isinstance(second, DefinitionRefused)
        assert engine.schemas["c"].types["x"].name == "int"


async def test_two_hundred_writers_are_each_answered_once_and_durable(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        events = await asyncio.gather(*(engine.put("counters", {"id": n % 50, "n": n}) for n in range(200)))
        dots = [event.seq for event in events if event is not None]
        assert sorted(dots) == list(range(2, 202))
        digest = await engine.digest()
        latest = {event.key: event.data["n"] for event in sorted((e for e in events if e), key=lambda e: e.seq)}
        shutil.copytree(tmp_path, copy := tmp_path.with_name("copy"))
    for path in (copy, tmp_path):
        async with archive(path) as engine:
            assert {(e.seq, e.hash) for e in await all_events(engine)} >= {(e.seq, e.hash) for e in events if e}
            assert {record.key: record.values["n"] async for record in engine.find("counters")} == latest
            assert await engine.digest() == digest
            assert (await engine.verify()).ok


async def test_writers_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.writer.QUEUE_LIMIT", 3)
    monkeypatch.setattr("refold.writer.COMMIT_LIMIT", 2)
    async with counting(tmp_path) as engine:
        events = await asyncio.gather(*(engine.put("counters", {"id": n}) for n in range(30)))
        assert sorted(event.seq for event in events if event) == list(range(2, 32))


async def test_leaving_makes_what_is_waiting_durable(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        waiting = [asyncio.ensure_future(engine.put("counters", {"id": n})) for n in range(100)]
        await asyncio.sleep(0)
    assert all(task.done() and task.exception() is None for task in waiting)
    async with archive(tmp_path) as engine:
        assert engine.position == 101


async def test_an_exception_cancels_the_batch(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:

        async def fill(batch: Batch, error: Exception | None) -> None:
            async with batch:
                batch.put("counters", {"id": 1})
                batch.delete("counters", 2)
                if error is not None:
                    raise error

        with pytest.raises(ZeroDivisionError):
            await fill(engine.batch(), ZeroDivisionError())
        with pytest.raises(RecordUnknown):
            await fill(batch := engine.batch(), None)
        assert batch.events == []
        with pytest.raises(EngineClosed):
            batch.put("counters", {"id": 3})
        async with engine.batch() as empty:
            pass
        assert empty.events == [] and engine.position == 1


async def test_a_batch_larger_than_a_commit_is_one(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        async with engine.batch() as batch:
            for n in range(3000):
                batch.put("counters", {"id": n, "n": n})
        assert {event.batch for event in batch.events if event} == {3001}
        assert [record.key async for record in engine.find("counters", order="-n", limit=2)] == ["2999", "2998"]
        assert [record.values["n"] async for record in engine.find("counters")] == list(range(3000))


async def test_a_cancelled_write_is_whole_or_not_there(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        for n in range(20):
            tasks = [asyncio.ensure_future(_pair(engine, n * 10 + m)) for m in range(5)]
            for _ in range(n % 4):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        keys = {int(record.key) async for record in engine.find("counters")}
        assert {key for key in keys if key % 2} == {key + 1 for key in keys if not key % 2}
        assert {n * 20 + m * 2 for n in range(20) for m in (1, 3)} <= keys, "what was not cancelled is there"
        assert (await engine.verify()).ok


async def _pair(engine: Engine, number: int) -> None:
    n = (number // 10) * 20 + (number % 10) * 2
    async with engine.batch() as batch:
        batch.put("counters", {"id": n})
        batch.put("counters", {"id": n + 1})


async def test_a_request_that_is_retried_writes_once(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        put = {"id": 1, "n": 1}
        first, again = await asyncio.gather(*(engine.put("counters", put, request_id="r") for _ in range(2)))
        assert first == again
        with pytest.raises(RequestReused):
            await engine.put("counters", {"id": 2}, request_id="r")
    async with archive(tmp_path) as engine:
        assert await engine.put("counters", put, request_id="r") == first
        with pytest.raises(RequestReused):
            await engine.put("counters", {"id": 1, "n": 5}, request_id="r")
        assert engine.position == 2


async def test_a_tail_sees_every_event_once_while_writers_write(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        seen: list[int] = []

        async def follow() -> None:
            async for event in engine.events(follow=True):
                seen.append(event.position)
                if event.position == 301:
                    return

        async def write(first: int) -> None:
            for n in range(first, first + 30):
                await engine.put("counters", {"id": n})

        tails = [asyncio.ensure_future(follow())]
        await asyncio.gather(*(write(n * 30) for n in range(10)), *tails)
        assert seen == list(range(1, 302))


async def test_a_tail_ends_when_the_engine_does(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        tail = engine.events(after=1, follow=True)
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        await engine.get("counters", 1)
    with pytest.raises(EngineClosed):
        await asyncio.wait_for(waiting, 10)


async def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        pass
    for call in (
        engine.put("counters", {"id": 1}),
        engine.get("counters", 1),
        engine.digest(),
        engine.status(),
        anext(engine.find("counters")),
        anext(engine.events()),
        anext(engine.history("counters", 1)),
    ):
        with pytest.raises(EngineClosed):
            await call


async def test_a_reader_beside_a_writer(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        await engine.put("counters", {"id": 1, "n": 1})
        async with archive(tmp_path, readonly=True) as reader:
            assert await reader.digest() == await engine.digest()
            await engine.put("counters", {"id": 1, "n": 2})
            record = await reader.get("counters", 1)
            assert record is not None and record.values["n"] == 2
            assert len(await all_events(reader)) == 3
            assert (await reader.verify()).ok
            for refused in (reader.put("counters", {"id": 1}), reader.define(COUNTERS), reader.rebuild()):
                with pytest.raises(ReadOnly):
                    await refused
    async with archive(tmp_path, readonly=True) as reader:
        assert (await reader.status()).position == 3


async def test_a_reader_needs_an_archive(tmp_path: Path) -> None:
    for options in ({"readonly": True}, {"create": False}):
        with pytest.raises(ArchiveMissing):
            async with archive(tmp_path / "never", **options):
                pass
    with pytest.raises(SchemeUnknown):
        await refold.open("never://x").__aenter__()


async def test_the_wrong_replica_is_refused(tmp_path: Path) -> None:
    async with counting(tmp_path):
        pass
    with pytest.raises(ReplicaMismatch) as caught:
        async with archive(tmp_path, replica="lab"):
            pass
    assert (caught.value.found, caught.value.asked) == ("office", "lab")
    async with archive(tmp_path, replica=None, new_id=lambda: "other") as engine:
        assert engine.replica == "office"
    for bad in ("", "a b", "../x", "x" * 65):
        with pytest.raises(SettingsInvalid):
            async with archive(tmp_path / "new", replica=bad):
                pass


async def test_a_clock_that_goes_back(tmp_path: Path) -> None:
    clock = Ticks()
    async with counting(tmp_path, clock=clock) as engine:
        await engine.put("counters", {"id": 1, "n": 1})
        clock.now = START - 10**9
        await engine.put("counters", {"id": 1, "n": 2})
    async with counting(tmp_path, clock=Ticks(START - 10**9)) as engine:
        await engine.put("counters", {"id": 1, "n": 3})
        times = [event.time for event in await all_events(engine)]
        assert times == sorted(set(times)) and len(times) == 4
        assert (await engine.verify()).ok


async def test_history_is_dated_back_but_never_before_the_newest(tmp_path: Path) -> None:
    old = 1_000_000_000_000
    for time in (old, old, old + 5):
        async with counting(tmp_path, time=time) as engine:
            event = await engine.put("counters", {"id": engine.position})
            assert event is not None and to_millis(event.time) == time
    with pytest.raises(ClockBehind) as caught:
        async with archive(tmp_path, time=old):
            pass
    assert caught.value.stated == format_time(from_millis(old))
    async with archive(tmp_path) as engine:
        await engine.put("counters", {"id": 99})
        assert engine.position == 5


async def test_opening_replays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with counting(tmp_path) as engine, engine.batch() as batch:
        for n in range(1500):
            batch.put("counters", {"id": n})
    read: list[int] = []
    bodies = SqliteLog.bodies

    def counted(self: SqliteLog, after: int, limit: int) -> list[tuple[int, bytes]]:
        found = bodies(self, after, limit)
        read.append(len(found))
        return found

    monkeypatch.setattr(SqliteLog, "bodies", counted)
    async with archive(tmp_path) as engine:
        assert await engine.get("counters", 7) is not None
        assert sum(read) == 0


async def test_tables_that_were_deleted_come_back(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        for n in range(30):
            await engine.put("counters", {"id": n % 7, "n": n})
        await engine.delete("counters", 3)
        digest, records = await engine.digest(), [record async for record in engine.find("counters")]
    before = _dump(tmp_path / "tables.db")
    for spoil in (Path.unlink, lambda path: path.write_bytes(b"not a database" * 1000)):
        spoil(tmp_path / "tables.db")
        async with archive(tmp_path) as engine:
            assert await engine.digest() == digest
            assert [record async for record in engine.find("counters")] == records
            assert (await engine.verify()).ok
        assert _dump(tmp_path / "tables.db") == before
    assert not list(tmp_path.glob("*.rebuild.db*")) and not list(tmp_path.glob("*.verify.db*"))


def _make_old(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")


async def test_what_an_earlier_release_derived_is_made_anew(tmp_path: Path) -> None:
    async with refold.open(tmp_path, replica="a") as engine:
        await engine.define(Collection(name="things", key="id", folder="{id}", fields={"id": Field("str")}))
        await engine.put("things", {"id": "x"})
        await engine.settled()
    for name in ("tables.db", "folders.db"):
        await asyncio.to_thread(_make_old, tmp_path / name)
    async with refold.open(tmp_path) as engine:
        await engine.settled()
        assert (await engine.verify()).ok
        assert [projection.state for projection in (await engine.status()).projections] == ["current", "current"]
    await asyncio.to_thread(_make_old, tmp_path / "folders.db")
    async with refold.open(tmp_path, readonly=True) as engine:
        assert await engine.get("things", "x") is not None


def _dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


async def test_an_earlier_log_has_its_tables_rebuilt(tmp_path: Path) -> None:
    log = tmp_path / "changelog.db"
    async with counting(tmp_path) as engine:
        await engine.put("counters", {"id": 1, "n": 1})
    shutil.copy(log, tmp_path / "saved")
    async with archive(tmp_path) as engine:
        digest = await engine.digest()
        await engine.put("counters", {"id": 1, "n": 2})
    shutil.copy(tmp_path / "saved", log)
    async with archive(tmp_path) as engine:
        record = await engine.get("counters", 1)
        assert record is not None and record.values["n"] == 1
        assert await engine.digest() == digest
        await engine.put("counters", {"id": 1, "n": 3})
        await engine.put("counters", {"id": 1, "n": 4})
        assert (await engine.verify()).ok
    shutil.copy(tmp_path / "tables.db", tmp_path / "other")
    shutil.copy(tmp_path / "saved", log)
    async with archive(tmp_path) as engine:
        for n in (5, 6):
            await engine.put("counters", {"id": 1, "n": n})
    shutil.copy(tmp_path / "other", tmp_path / "tables.db")
    async with archive(tmp_path) as engine:
        record = await engine.get("counters", 1)
        assert record is not None and record.values["n"] == 6, "as long a log, but another one"
        assert (await engine.verify()).ok


async def test_an_earlier_log_has_its_folders_rebuilt(tmp_path: Path) -> None:
    root, log = tmp_path / "live", tmp_path / "live" / "changelog.db"
    async with archive(root, folders=True) as engine:
        await engine.define(Order)
        await engine.put(Order("1", "a", DAY))
    shutil.copy(log, tmp_path / "saved")
    earlier = tree(root)
    async with archive(root, folders=True) as engine:
        await engine.put(Order("2", "b", datetime.date(2023, 1, 1)))
        await engine.put(Order("1", "c", datetime.date(2022, 1, 1)))
    assert tree(root).keys().isdisjoint({"2024/1/data.csv"}) and "2023/2/data.csv" in tree(root)
    shutil.copy(tmp_path / "saved", log)
    async with archive(root, folders=True) as engine:
        await engine.settled()
        assert (await engine.verify()).findings == []
        assert tree(root) == earlier
        await engine.put(Order("3", "d", DAY))
        await engine.settled()
        assert (await engine.verify()).findings == []


async def test_verify_names_what_was_changed_in_the_log(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        for n in range(5):
            await engine.put("counters", {"id": n})
    connection = sqlite3.connect(tmp_path / "changelog.db")
    body = connection.execute("SELECT body FROM events WHERE position = 3").fetchone()[0]
    connection.execute("UPDATE events SET body = ? WHERE position = 3", (body.replace(b"\xa2id", b"\xa2ie"),))
    connection.commit()
    connection.close()
    async with archive(tmp_path, readonly=True) as engine:
        report = await engine.verify()
        assert not report.ok
        assert (report.findings[0].kind, report.findings[0].position) == ("log-rot", 3)


async def test_verify_beside_writers_finds_nothing(tmp_path: Path) -> None:
    async with counting(tmp_path) as engine:
        await asyncio.gather(*(engine.put("counters", {"id": n}) for n in range(50)))
        reports: list[Report] = []

        async def write() -> None:
            n = 100
            while not reports:
                await engine.put("counters", {"id": n})
                n += 1

        async def verify() -> None:
            reports.append(await engine.verify())

        await asyncio.gather(write(), verify())
        assert reports[0].findings == []


async def test_a_failure_between_log_and_tables_poisons_until_reopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SqliteTables.save
    with monkeypatch.context() as patch:

        def failing(*arguments: Any) -> None:
            raise StorageFailed("tables", "writing", "the disk is full")

        async with counting(tmp_path) as engine:
            patch.setattr(SqliteTables, "save", failing)
            with pytest.raises(ProjectionFailed, match="the disk is full"):
                await engine.put("counters", {"id": 1, "n": 1})
            patch.setattr(SqliteTables, "save", save)
            with pytest.raises(StorePoisoned):
                await engine.put("counters", {"id": 2, "n": 1})
    async with archive(tmp_path) as engine:
        assert [record.key async for record in engine.find("counters")] == ["1"], "durable, though not acknowledged"
        assert await engine.put("counters", {"id": 2, "n": 1}) is not None
        assert (await engine.verify()).ok
