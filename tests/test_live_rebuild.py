"""Tables and folders are made anew while an engine serves: writers and readers go on, and nothing goes back in time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import refold
from refold import Engine
from refold.schema import Collection, Field

from .crash.look import leftovers, tree

pytestmark = pytest.mark.anyio

COUNTERS = Collection(
    name="counters", key="id", folder="{id}", fields={"id": Field("str"), "n": Field("int"), "m": Field("int")}
)
RECORDS = 8


class Traffic:
    """A writer and a reader of a few counters; an answer is held against what was acknowledged before it was asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.acknowledged = [0] * RECORDS
        self.answers = 0
        self.rounds = 0
        self.stop = False

    async def write(self) -> None:
        while not self.stop:
            self.rounds += 1
            for record in range(RECORDS):
                await self.engine.put("counters", {"id": f"c{record}", "n": self.rounds, "m": -self.rounds})
                self.acknowledged[record] = self.rounds

    async def read(self) -> None:
        seen = [0] * RECORDS
        while not self.stop:
            for record in range(RECORDS):
                known = self.acknowledged[record]
                found = await self.engine.get("counters", f"c{record}")
                assert found is not None
                assert found.values["n"] == -found.values["m"]
                assert found.values["n"] >= max(known, seen[record])
                seen[record] = found.values["n"]
                self.answers += 1

    async def during(self, work: Any) -> int:
        """Runs work between the rounds of both; how many rounds were written meanwhile."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.write())
            while min(self.acknowledged) < 1:
                await asyncio.sleep(0)
            group.create_task(self.read())
            before = self.rounds
            try:
                await work
            finally:
                written = self.rounds - before
                self.stop = True
        self.stop = False
        return written


@pytest.mark.parametrize("what", ["tables", "folders", None])
async def test_nobody_notices_a_rebuild(tmp_path: Path, what: str | None) -> None:
    async with refold.open(tmp_path / "a", replica="office") as engine:
        await engine.define(COUNTERS)
        async with engine.batch() as batch:
            for n in range(3000):
                batch.put("counters", {"id": f"x{n % 50}", "n": n, "m": -n})
        traffic = Traffic(engine)
        written = await traffic.during(engine.rebuild(what=what))
        assert written > 0 and traffic.answers > 0
        await engine.settled()
        assert (await engine.verify()).findings == []
        digest = await engine.digest()
    async with refold.open(tmp_path / "a") as engine:
        assert await engine.digest() == digest
    assert list(leftovers(tmp_path / "a")) == []


@pytest.mark.parametrize("what", ["tables", "folders"])
async def test_a_rebuild_that_is_cancelled_leaves_what_was(tmp_path: Path, what: str) -> None:
    async with refold.open(tmp_path / "a", replica="office") as engine:
        await engine.define(COUNTERS)
        async with engine.batch() as batch:
            for n in range(3000):
                batch.put("counters", {"id": f"x{n % 50}", "n": n, "m": -n})
        await engine.settled()
        before = tree(tmp_path / "a")
        for turns in (0, 1, 2, 5, 20, 50):
            task = asyncio.ensure_future(engine.rebuild(what=what))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await engine.get("counters", "x7")) is not None
            await engine.put("counters", {"id": "x7", "n": turns, "m": -turns})
            await engine.put("counters", {"id": "x7", "n": 2957, "m": -2957})
        await engine.settled()
        assert (await engine.verify()).findings == []
        assert not list((tmp_path / "a").glob("*.rebuild.db*"))
        assert tree(tmp_path / "a").keys() == before.keys()


async def test_a_projection_that_is_not_kept_is_named(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "a", folders=False) as engine:
        with pytest.raises(refold.RefoldError, match="keeps no folders"):
            await engine.rebuild(what="folders")
