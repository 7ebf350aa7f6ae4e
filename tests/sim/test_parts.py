"""The parts that simulations are made of: time that jumps, disks that lose what was not flushed, truth."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given

from refold.events import Event
from refold.replay import catch_up
from refold.testing import Scribe, append
from refold.testing.sim.disk import Disk, LiveTables, SimStore
from refold.testing.sim.loop import SimLoop, Stuck
from refold.testing.sim.network import FAULTS, Link
from refold.testing.sim.process import Crash, Process
from refold.testing.sim.truth import at_odds_with_time, records
from tests.engine.histories import THINGS, histories
from tests.engine.test_conflict_list import defined

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], seed: int = 0) -> T:
    """What comes of work on a simulated loop."""
    loop = SimLoop(Random(seed))
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def test_an_hour_passes_at_once_and_timers_fire_in_their_order() -> None:
    fired: list[float] = []

    async def waits(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append(asyncio.get_running_loop().time())

    async def all_of_them() -> None:
        await asyncio.gather(*(waits(seconds) for seconds in (3600.0, 1.0, 60.0)))

    run(all_of_them())
    assert fired == [1.0, 60.0, 3600.0]


def test_who_waits_for_nothing_is_told_so() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run(forever())


def test_what_is_ready_runs_in_an_order_that_the_seed_decides() -> None:
    async def order() -> list[int]:
        done: list[int] = []

        async def note(number: int) -> None:
            done.append(number)

        await asyncio.gather(*(note(number) for number in range(8)))
        return done

    orders = {tuple(run(order(), seed)) for seed in range(5)}
    assert len(orders) > 1 and tuple(run(order(), 3)) in orders


def stocked(saves: int, seed: int) -> tuple[Disk, LiveTables]:
    """A disk whose tables saved one event at a time."""
    disk, scribe, process = Disk("a"), Scribe("a"), Process("a")
    tables = LiveTables(disk, process, Random(seed))
    append(disk.log, [scribe.define(THINGS), *(scribe.write("things", "1", {"n": n}) for n in range(saves - 1))])
    while catch_up(disk.log, tables, 1):
        pass
    return disk, tables


def test_tables_lag_behind_the_log_after_a_crash_and_are_whole() -> None:
    found = set()
    for seed in range(20):
        disk, tables = stocked(9, seed)
        assert tables.checkpoint().position == 9
        disk.crash(Random(seed))
        found.add(disk.tables.checkpoint().position)
        while catch_up(disk.log, disk.tables, 2):
            pass
        assert disk.tables.checkpoint() == tables.checkpoint() and disk.tables.states == tables.states
    assert len(found) > 1 and max(found) <= 9


def test_a_process_dies_with_all_or_nothing_appended() -> None:
    for points, kept in ((1, 0), (2, 1)):
        disk, process = Disk("a"), Process("a")
        disk.log.process = process
        process.die_after(points)
        with pytest.raises(Crash):
            append(disk.log, [Scribe("a").define(THINGS)])
        assert disk.log.end() == kept and process.dead


def test_work_is_done_though_who_asked_for_it_was_cancelled() -> None:
    async def cancelled() -> int:
        disk = Disk("a")
        store = SimStore(disk, Process("a"), Random(0), latency=1.0, follows=False)
        store.open(10)
        task = asyncio.ensure_future(store.write(lambda log, _: append(log, [Scribe("a").define(THINGS)])))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(5)
        return disk.log.end()

    assert run(cancelled()) == 1


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_a_link_does_to_one_frame_what_it_should(fault: str) -> None:
    sent = [b"one", b"two", b"three", b"four"]

    async def heard() -> list[bytes]:
        link = Link(Random(5), fault=fault, nth=2, room=9)
        here, there = link.ends
        try:
            for frame in sent:
                await here.send(frame)
        except ConnectionResetError:
            assert fault == "break"
        await asyncio.sleep(10)
        here.close()
        async with asyncio.timeout(1000):
            return [frame async for frame in there.frames()]

    got = run(heard())
    match fault:
        case "" | "stall":
            assert got == sent
        case "break":
            assert got == []
        case "twice":
            assert got == [b"one", b"two", b"two", b"three", b"four"]
        case "swap":
            assert got == [b"one", b"three", b"two", b"four"]
        case _:
            assert got[0] == b"one" and got[1] != b"two" and got[2:] == sent[2:]


@given(histories())
def test_the_truth_about_conflicts_is_what_the_plain_definition_says(events: list[Event]) -> None:
    found = {tuple(dispute) for truth in records(events).values() for dispute in truth.disputes()}
    assert found == defined(events)
    assert list(at_odds_with_time(events)) == []
