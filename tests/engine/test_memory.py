"""The in-memory adapters fulfil the ports, and fail when told to."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from refold.errors import StorageFailed
from refold.events import Event
from refold.ports import Store, Tables
from refold.replay import catch_up
from refold.testing import (
    ChangelogConformance,
    Faults,
    MemoryLog,
    MemoryProjection,
    MemoryStore,
    MemoryTables,
    ProjectionConformance,
    Scribe,
    StoreConformance,
    TablesConformance,
    append,
    caught,
    memory_engine,
)
from refold.testing.conformance_changelog import OWNER
from refold.testing.conformance_store import COUNTERS
from refold.testing.conformance_tables import ReadEvents

pytestmark = pytest.mark.anyio


class TestLog(ChangelogConformance):
    def make(self) -> MemoryLog:
        return MemoryLog(OWNER)


class TestTables(TablesConformance):
    def make(self, read_events: ReadEvents) -> Tables:
        return MemoryTables(read_events)


class TestProjection(ProjectionConformance):
    def make(self, _events: Sequence[Event]) -> MemoryProjection:
        return MemoryProjection()

    def content(self, projection: object) -> list[Event]:
        assert isinstance(projection, MemoryProjection)
        return list(projection.events)


class TestStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def archive(self) -> None:
        self.store = MemoryStore("home")

    def open(self) -> AbstractAsyncContextManager[Store]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Store]:
        while catch_up(self.store.log, self.store.tables):
            pass
        yield self.store


def test_a_fault_is_met_once_at_its_call() -> None:
    faults = Faults()
    faults.at("append", 2)
    log, scribe = MemoryLog(faults=faults), Scribe("a")
    append(log, [scribe.write("c", "1", {"n": 1})])
    event = scribe.write("c", "1", {"n": 2})
    assert caught(StorageFailed, append, log, [event]).operation == "append"
    assert log.end() == 1
    append(log, [event])


def test_a_fault_can_come_after_the_effect() -> None:
    log, scribe = MemoryLog(), Scribe("a")
    log.faults.at("append", after=True, error=ZeroDivisionError())
    caught(ZeroDivisionError, append, log, [scribe.write("c", "1", {"n": 1})])
    assert log.end() == 1


def test_a_projection_notices_a_hole() -> None:
    projection, events = MemoryProjection(), TestProjection().events()
    TestProjection().follow(projection, events, 5)
    del projection.events[3]
    assert [finding.kind for finding in projection.verify()] == ["projection-altered"]


async def test_an_engine_over_memory_goes_on_after_it_was_closed() -> None:
    store = MemoryStore(projections=[MemoryProjection()])
    for n in (1, 2):
        async with memory_engine(store) as engine:
            await engine.define(COUNTERS)
            event = await engine.put("counters", {"id": "1", "n": n})
            assert event is not None and event.seq == n + 1
    assert [event.position for event in store.projections[0].events] == [1, 2, 3]


def test_caught_wants_the_error() -> None:
    with pytest.raises(AssertionError, match="ValueError was not raised"):
        caught(ValueError, int, "1")
