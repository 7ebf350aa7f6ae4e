"""What every `Store` must do. Inherit from the suite and say how an archive is opened.

The tests are coroutines for whatever runs coroutines in your tests, the pytest plugin of anyio for example.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from refold.clock import HybridClock
from refold.engine import Engine
from refold.errors import VersionMismatch
from refold.events import Event
from refold.fold import State, Write, encode_state
from refold.ports import Changelog, Changes, Record, Store, Tables
from refold.replay import catch_up, events_after, load_schemas
from refold.schema import Collection, Field

from .scribe import Scribe, Ticks, append

COUNTERS = Collection(name="counters", key="id", fields={"id": Field("str"), "n": Field("int", null=True)})


class StoreConformance:
    """The contract of `Store`, as tests."""

    def open(self) -> AbstractAsyncContextManager[Store]:
        """The archive of this test, created when it is opened first; nothing is lost between two openings."""
        raise NotImplementedError

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An engine over the archive of this test, in which counters are defined."""
        async with self.open() as store:
            engine = Engine(store)
            await engine.start(HybridClock(Ticks()), quiet=0)
            try:
                await engine.define(COUNTERS)
                yield engine
            finally:
                await engine.stop()

    async def test_work_runs_and_its_result_comes_back(self) -> None:
        async with self.open() as store:
            assert store.path
            assert await store.write(lambda log, tables: log.end() + tables.checkpoint().position) == 0
            assert await store.read(lambda log, tables: log.heads()) == {}

    async def test_an_error_is_the_callers_and_the_store_goes_on(self) -> None:
        async with self.open() as store:
            for run in (store.write, store.read):
                try:
                    await run(_fail)
                except ZeroDivisionError:
                    pass
                else:
                    raise AssertionError("the error was lost")
            assert await store.write(lambda log, tables: log.end()) == 0

    async def test_what_was_written_is_read(self) -> None:
        scribe = Scribe("a")
        events = [scribe.define(COUNTERS), scribe.write("counters", "1", {"id": "1", "n": 1})]
        async with self.open() as store:
            written = await store.write(lambda log, tables: _take(log, tables, events))
            assert await store.read(lambda log, tables: events_after(log, 0, 10)) == written
            assert (await store.read(lambda log, tables: tables.checkpoint())).position == 2
        async with self.open() as store:
            assert await store.read(lambda log, tables: events_after(log, 0, 10)) == written
            assert (await store.read(lambda log, tables: tables.checkpoint())).position == 2

    async def test_tables_that_lag_catch_up_when_the_archive_is_opened(self) -> None:
        scribe = Scribe("a")
        events = [scribe.define(COUNTERS), scribe.write("counters", "1", {"id": "1", "n": 1})]
        async with self.open() as store:
            await store.write(lambda log, tables: append(log, events))
        async with self.open() as store:
            assert (await store.read(lambda log, tables: tables.checkpoint())).position == 2
            assert await store.verify_tables(lambda position: None) == []

    async def test_rebuilt_tables_are_the_same(self) -> None:
        async with self.engine() as engine:
            for n in range(20):
                await engine.put("counters", {"id": str(n % 7), "n": n})
            digest = await engine.digest()
            before = [record async for record in engine.find("counters")]
            await engine.rebuild()
            assert await engine.digest() == digest
            assert [record async for record in engine.find("counters")] == before
            assert (await engine.verify()).findings == []
            await engine.put("counters", {"id": "after", "n": 1})
            assert (await engine.verify()).findings == []

    async def test_tables_that_were_altered_are_found_and_mended(self) -> None:
        async with self.engine() as engine:
            await engine.put("counters", {"id": "1", "n": 1})
        async with self.open() as store:
            await store.write(_spoil)
            assert [finding.kind for finding in await store.verify_tables(lambda position: None)] != []
            await store.rebuild_tables(lambda position: None)
            assert await store.verify_tables(lambda position: None) == []

    async def test_concurrent_writers_are_each_answered_once(self) -> None:
        async with self.engine() as engine:
            puts = (engine.put("counters", {"id": str(n % 10), "n": n}) for n in range(100))
            events = await asyncio.gather(*puts)
            seqs = [event.seq for event in events if event is not None]
            assert sorted(seqs) == list(range(2, 102))
            assert [event async for event in engine.events(after=1)] == sorted(
                (event for event in events if event is not None), key=lambda event: event.position
            )
            assert (await engine.verify()).findings == []

    async def test_a_refused_group_leaves_the_others_alone(self) -> None:
        async with self.engine() as engine:
            first = await engine.put("counters", {"id": "1", "n": 1})
            assert first is not None
            results = await asyncio.gather(
                engine.put("counters", {"id": "1", "n": 2}, if_version="home:99"),
                engine.put("counters", {"id": "2", "n": 2}),
                return_exceptions=True,
            )
            assert isinstance(results[0], VersionMismatch) and isinstance(results[1], Event)
            assert results[1].seq == first.seq + 1


def _fail(_log: Changelog, _tables: Tables) -> None:
    raise ZeroDivisionError


def _take(log: Changelog, tables: Tables, events: list[Event]) -> list[Event]:
    written = append(log, events)
    while catch_up(log, tables):
        pass
    return written


def _spoil(log: Changelog, tables: Tables) -> None:
    """Saves a change that no event says: the record's state as it was before its newest event."""
    record: Record = "counters", "1"
    before = tables.load([record])
    state = State({"a": 1}, [Write(1, "a", 1, True, {"id": "1", "n": 666})])
    changes = Changes([], {record: state}, before, {record: encode_state(state)}, tables.checkpoint())
    tables.save(changes, load_schemas(tables))
    assert log.end() > 0
