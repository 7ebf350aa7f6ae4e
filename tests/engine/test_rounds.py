"""A verification with a budget: every piece has its turn, damage is told until it is mended, and nothing is missed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold import Report
from refold.engine import Engine
from refold.rota import Checked, Piece, coverage, turns
from refold.schema import Collection, Field
from refold.testing import MemoryProjection, MemoryStore, memory_engine

pytestmark = pytest.mark.anyio

THINGS = Collection(name="things", key="id", fields={"id": Field("str"), "n": Field("int")})
MINUTE = 60_000


class Hands:
    """A clock that stands still unless it is moved; `pace` is how far each look moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000
        self.pace = 0

    def __call__(self) -> int:
        self.now += self.pace
        return self.now


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 12))
def test_runs_of_any_length_come_round_to_everything(runs: list[int], count: int) -> None:
    pieces = [Piece(str(number), "log") for number in range(count)]
    checked: dict[str, Checked] = {}
    looked: list[str] = []
    for now, length in enumerate(runs):
        for piece in turns(pieces, checked)[:length]:
            checked[piece.name] = Checked(now)
            looked.append(piece.name)
        told = coverage(pieces, checked, length)
        assert told.never == max(0, count - len(looked))
        assert told.oldest == (None if told.never else min(last.when for last in checked.values()))
    for at in range(len(looked) - 2 * count):
        assert len(set(looked[at : at + 2 * count])) == count


def test_what_was_found_comes_first_and_what_has_grown_counts_as_new() -> None:
    pieces = [Piece("old", "log"), Piece("grown", "log", 7), Piece("new", "log"), Piece("bad", "log", 3)]
    checked = {"old": Checked(1), "grown": Checked(2, 5), "bad": Checked(9, 2, findings=1)}
    assert [piece.name for piece in turns(pieces, checked)] == ["bad", "grown", "new", "old"]
    assert coverage(pieces, checked, 0).never == 3


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.rounds.STRETCH", 5)


async def fill(engine: Engine, count: int = 22) -> None:
    await engine.define(THINGS)
    for number in range(count):
        await engine.put("things", {"id": str(number % 3), "n": number})


async def rounds(engine: Engine, checked: dict[str, Checked], count: int, budget: float = 0) -> list[Report]:
    return [await engine.verify(budget=budget, checked=checked) for _ in range(count)]


async def test_each_run_goes_on_where_the_one_before_it_ended() -> None:
    clock = Hands()
    checked: dict[str, Checked] = {}
    store = MemoryStore(projections=[MemoryProjection()])
    async with memory_engine(store, clock) as engine:
        await fill(engine)
        pieces = ["log files", *(f"log/{start}" for start in range(0, 23, 5)), "tables", "memory"]
        for number in range(len(pieces)):
            clock.now += MINUTE
            (report,) = await rounds(engine, checked, 1)
            assert report.ok and report.coverage is not None
            assert set(checked) == set(pieces[: number + 1])
            assert (report.coverage.checked, report.coverage.never) == (1, len(pieces) - number - 1)
            assert report.coverage.oldest == (min(one.when for one in checked.values()) if len(checked) == 8 else None)
        clock.pace = MINUTE
        (report,) = await rounds(engine, checked, 1, 3.5 * 60)
        assert report.coverage is not None and 1 < report.coverage.checked < len(pieces)
        clock.pace = 0
        await engine.put("things", {"id": "new", "n": 1})
        await rounds(engine, checked, 1)
        assert max(checked, key=lambda name: (checked[name].when, name == "log/20")) == "log/20"
        assert checked["log/20"].reach == 24


def altered(body: bytes) -> bytes:
    return body.replace(b"memory", b"memorx", 1)


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("harm", [altered, flipped, lambda body: body[:-3]], ids=["altered", "flipped", "cut"])
async def test_damage_anywhere_is_found_in_a_round_and_told_until_it_is_mended(harm: Callable[[bytes], bytes]) -> None:
    store = MemoryStore()
    async with memory_engine(store, Hands()) as engine:
        await fill(engine)
        for index, body in enumerate(list(store.log.stored)):
            store.log.stored[index] = harm(body)
            whole = await engine.verify()
            checked: dict[str, Checked] = {}
            reports = await rounds(engine, checked, 7)
            assert not whole.ok
            assert any(not report.ok for report in reports), index
            assert not (await rounds(engine, checked, 1))[0].ok
            store.log.stored[index] = body
            while any(one.findings for one in checked.values()):
                await rounds(engine, checked, 1)
            assert all(report.ok for report in await rounds(engine, checked, 7))


async def test_tables_are_not_held_against_a_log_that_is_in_doubt() -> None:
    store = MemoryStore()
    async with memory_engine(store, Hands()) as engine:
        await fill(engine)
        store.log.stored[3] = flipped(store.log.stored[3])
        checked: dict[str, Checked] = {}
        (report,) = await rounds(engine, checked, 1, 3600)
        assert "tables" not in checked
        assert {finding.kind[:4] for finding in report.findings} == {"log-"}


async def test_altered_tables_and_projections_are_found_in_their_turn() -> None:
    projection = MemoryProjection()
    store = MemoryStore(projections=[projection])
    async with memory_engine(store, Hands()) as engine:
        await fill(engine)
        await engine.settled()
        del projection.events[2]
        store.tables.states.pop(("things", "1"))
        kinds = [finding.kind for report in await rounds(engine, {}, 1, 3600) for finding in report.findings]
        assert kinds == ["table-missing", "projection-altered"]
