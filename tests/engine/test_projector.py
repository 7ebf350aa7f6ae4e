"""The engine over a store in memory: projections that follow, fail and start anew, and verification beside writers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

import refold
from refold.engine import Engine
from refold.ports import Changelog, Tables
from refold.schema import Collection, Field
from refold.testing import START, MemoryProjection, MemoryStore, Ticks, memory_engine

T = TypeVar("T")

pytestmark = pytest.mark.anyio

COUNTERS = Collection(name="counters", key="id", fields={"id": Field("int"), "n": Field("int", null=True)})


async def test_a_projection_that_fails_is_shown_and_the_others_go_on() -> None:
    bad, good = MemoryProjection("bad"), MemoryProjection("good")
    bad.faults.at("apply", 2)
    store = MemoryStore("home", [bad, good])
    async with memory_engine(store, quiet=0) as engine:
        await engine.define(COUNTERS)
        await engine.settled()
        await engine.put("counters", {"id": 1})
        with pytest.raises(refold.RefoldError, match="projection 'bad' stopped at position 1"):
            await engine.settled()
        await engine.put("counters", {"id": 2})
        states = {p.name: (p.state, bool(p.error)) for p in (await engine.status()).projections}
        assert states["bad"] == ("failed", True) and states["tables"] == ("current", False)
        assert "projection-failed" in {finding.kind for finding in (await engine.verify()).findings}
        await engine.rebuild()
        await engine.settled()
        assert [event.position for event in bad.events] == [1, 2, 3]
        assert [event.position for event in good.events] == [1, 2, 3]
        assert {p.state for p in (await engine.status()).projections} == {"current"}
    assert bad.closed and good.closed


async def test_a_projection_that_is_ahead_of_its_log_starts_anew() -> None:
    projection = MemoryProjection()
    async with memory_engine(MemoryStore("home", [projection])) as engine:
        await engine.define(COUNTERS)
        await engine.put("counters", {"id": 1})
    other = MemoryStore("home", [projection])
    async with memory_engine(other, now=Ticks(START + 5)) as engine:
        await engine.define(COUNTERS)
        await engine.settled()
        assert projection.events == [event async for event in engine.events()]


async def test_who_waits_during_a_rebuild_is_not_forgotten() -> None:
    projection = MemoryProjection()
    async with memory_engine(MemoryStore("home", [projection]), quiet=60) as engine:
        await engine.define(COUNTERS)
        for n in range(5):
            await engine.put("counters", {"id": n})
        waiting = [asyncio.ensure_future(engine.settled()), asyncio.ensure_future(engine.rebuild())]
        waiting.append(asyncio.ensure_future(engine.settled()))
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert len(projection.events) == 6


async def test_projections_take_in_what_was_written_together() -> None:
    projection = MemoryProjection()
    async with memory_engine(MemoryStore("home", [projection]), quiet=60) as engine:
        await engine.define(COUNTERS)
        for n in range(20):
            await engine.put("counters", {"id": n})
        assert projection.runs == []
        await engine.settled()
        assert sum(projection.runs) == 21 and len(projection.runs) == 1


async def test_a_projection_lags_no_further_than_its_bound() -> None:
    projection = MemoryProjection()
    async with memory_engine(MemoryStore("home", [projection]), quiet=60, lag_bound=5) as engine:
        await engine.define(COUNTERS)
        for n in range(50):
            await engine.put("counters", {"id": n})
        assert len(projection.events) > 20


class Busy(MemoryStore):
    """A store that is written to after its first reads, once `engine` is set, and after those that find nothing."""

    engine: Engine | None = None
    busy = 3

    async def read(self, work: Callable[[Changelog, Tables], T]) -> T:
        found = await super().read(work)
        self.busy -= self.engine is not None
        if self.engine is not None and (found == [] or self.busy >= 0):
            await self.engine.put("counters", {"id": self.log.end()})
        return found


async def test_a_projection_follows_writers_that_never_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.projector.LAG_SECONDS", 0)
    projection = MemoryProjection()
    async with memory_engine(MemoryStore("home", [projection]), quiet=60) as engine, asyncio.timeout(10):
        await engine.define(COUNTERS)
        for number in range(1, 4):
            await engine.put("counters", {"id": number})
            while projection.checkpoint().position <= number:
                await asyncio.sleep(0)


async def test_verify_holds_the_log_to_what_it_was_when_it_began() -> None:
    store = Busy("home")
    async with memory_engine(store) as engine:
        await engine.define(COUNTERS)
        store.engine = engine
        report = await engine.verify()
        store.engine = None
        assert report.findings == [] and report.events < store.log.end()
