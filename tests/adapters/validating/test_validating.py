"""Many records at once: every bad one is told with all its errors, in order, and none holds the others up."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refold
from refold import Collection, Engine, Field
from refold.errors import CollectionUnknown, InputRefused, RefoldError
from refold.schema import Schema
from refold_adapters.validating import pool
from refold_adapters.validating.checks import Row, errors_of
from refold_adapters.validating.validating import Invalid, Plan, Validation

pytestmark = pytest.mark.anyio

ORDERS = Collection(
    name="orders",
    key="id",
    fields={
        "id": Field("int"),
        "no": Field("str", required=True, pattern=r"^\d{6}$"),
        "date": Field("date", null=True),
        "path": Field("str", null=True),
        "customer": Field("str", null=True, references="customers"),
    },
    documents={"path": ""},
)
CUSTOMERS = Collection(name="customers", key="name", fields={"name": Field("str"), "age": Field("int", null=True)})
EVIL = Collection(name="evil", key="id", fields={"id": Field("int"), "text": Field("str", pattern="^(a+)+$")})
HEADER = "id,no,date,path,customer\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[Engine]:
    async with refold.open(root) as engine:
        for collection in (ORDERS, CUSTOMERS, EVIL):
            await engine.define(collection)
        await engine.put("customers", {"name": "Lenz"})
        await engine.put("customers", {"name": "gone"})
        await engine.delete("customers", "gone")
        (root / "there.pdf").write_bytes(b"")
        yield engine


async def looked(engine: Engine, root: Path, plan: Plan) -> tuple[list[Invalid], Validation]:
    look = Validation(engine, root, plan, lambda what, done: None)
    return [invalid async for invalid in look.run()], look


def written(root: Path, text: str, name: str = "file.csv") -> Path:
    path = root.parent / name
    path.write_text(text, encoding="utf-8")
    return path


def codes(found: list[Invalid]) -> dict[int | None, list[tuple[str | None, str]]]:
    return {one.row: [(error.field, error.code) for error in one.errors] for one in found}


async def test_every_bad_row_is_told_with_all_its_errors(engine: Engine, root: Path) -> None:
    rows = [
        "1,076001,2024-03-01,there.pdf,Lenz",
        "2,76002,01.03.2024,missing.pdf,Nobody",
        "3,,,,",
        "x,076004,,../out,gone",
        "1,076005,,,",
        "6,076006",
        "7,076007,2024-02-30,,Lenz",
    ]
    plan = Plan(collection="orders", path=written(root, HEADER + "\n".join(rows) + "\n"))
    found, look = await looked(engine, root, plan)
    assert codes(found) == {
        3: [
            ("no", "value-refused"),
            ("date", "value-refused"),
            ("path", "document-missing"),
            ("customer", "reference-missing"),
        ],
        4: [("no", "value-refused")],
        5: [("id", "value-refused"), ("path", "document-outside"), ("customer", "reference-missing")],
        6: [("id", "duplicate-key")],
        7: [(None, "bad-row")],
        8: [("date", "value-refused")],
    }
    assert [one.key for one in found] == ["2", "3", None, "1", None, "7"]
    assert (look.checked, look.invalid) == (7, 6)


async def test_members_of_json_are_taken_as_they_are(engine: Engine, root: Path) -> None:
    lines: list[Any] = [{"id": 1, "no": "076001", "more": 1}, {"id": "1", "no": 76001}, [], {"no": "076001"}]
    path = written(root, "".join(json.dumps(line) + "\n" for line in lines), "file.jsonl")
    found, _ = await looked(engine, root, Plan(collection="orders", path=path))
    assert codes(found) == {
        1: [("more", "field-unknown")],
        2: [("id", "value-refused"), ("no", "value-refused"), ("id", "duplicate-key")],
        3: [(None, "bad-row")],
        4: [("id", "value-refused")],
    }


async def test_records_of_a_collection_are_held_to_what_it_says_now(engine: Engine, root: Path) -> None:
    await engine.put("orders", {"id": 1, "no": "076001", "path": "there.pdf", "customer": "Lenz"})
    await engine.put("orders", {"id": 2, "no": "076002", "path": "gone.pdf", "customer": "Nobody"})
    fields = {**ORDERS.fields, "no": Field("str", pattern="1$")}
    await engine.define(msgspec.structs.replace(ORDERS, fields=fields))
    found, look = await looked(engine, root, Plan(collection="orders"))
    assert [(one.row, one.key) for one in found] == [(None, "2")]
    assert [(error.field, error.code) for error in found[0].errors] == [
        ("no", "value-refused"),
        ("path", "document-missing"),
        ("customer", "reference-missing"),
    ]
    assert look.checked == 2


async def test_a_pattern_that_never_ends_costs_its_record_alone(engine: Engine, root: Path) -> None:
    rows = [f"{number},{'a' * 60 + 'b' if number % 3 == 0 else 'aaa'}" for number in range(1, 8)]
    path = written(root, "id,text\n" + "\n".join(rows) + "\n")
    found, look = await looked(engine, root, Plan(collection="evil", path=path, limit=0.1))
    assert codes(found) == {4: [(None, "time-limit")], 7: [(None, "time-limit")]}
    assert look.checked == 7


async def test_a_process_that_does_not_answer_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", "import time; time.sleep(99)"))

    async def chunks() -> AsyncIterator[tuple[str, list[Row]]]:
        yield "chunk", [Row(1, {"id": 1, "text": "a"}), Row(2, {"id": 2, "text": "a"})]

    async with pool.Pool[str](Schema(EVIL), limit=0.01, jobs=1, grace=0.1) as looking:
        told = [errors async for _, errors in looking.results(chunks())]
        assert [[error.code for error in errors] for errors in told[0]] == [["time-limit"]] * 2
        assert looking._all == []


async def test_a_process_that_dies_is_replaced(engine: Engine, root: Path) -> None:
    async def chunks() -> AsyncIterator[tuple[int, list[Row]]]:
        for number in range(3):
            while number == 1 and not looking._all:
                await asyncio.sleep(0)
            if number == 1:
                looking._all[0]._process.kill()
            yield number, [Row(1, {"id": number, "text": "b"})]

    async with pool.Pool[int](Schema(EVIL), limit=5, jobs=1) as looking:
        told = []
        source = chunks()
        async for number, errors in looking.results(source):
            told.append((number, [error.code for error in errors[0]]))
    assert told == [(number, ["value-refused"]) for number in range(3)]


async def test_many_processes_answer_in_order(engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{number},{'b' if number % 500 == 0 else 'a'}" for number in range(1, 5001)]
    path = written(root, "id,text\n" + "\n".join(rows) + "\n")
    found, look = await looked(engine, root, Plan(collection="evil", path=path, jobs=3))
    assert [one.key for one in found] == [str(number) for number in range(500, 5001, 500)]
    assert look.checked == 5000


async def test_whoever_stops_listening_leaves_no_process(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[pool.Worker] = []
    start = pool.Worker.start

    async def noted(*arguments: Any) -> pool.Worker:
        started.append(await start(*arguments))
        return started[-1]

    monkeypatch.setattr(pool.Worker, "start", noted)
    path = written(root, "id,text\n" + "".join(f"{number},b\n" for number in range(5000)))
    look = Validation(engine, root, Plan(collection="evil", path=path, jobs=2), lambda what, done: None)
    found = look.run()
    assert (await anext(found)).key == "0"
    await found.aclose()
    assert started
    assert all(worker._process.returncode is not None for worker in started)


async def test_what_cannot_be_looked_at_is_refused(engine: Engine, root: Path) -> None:
    with pytest.raises(CollectionUnknown):
        await looked(engine, root, Plan(collection="nothing"))
    with pytest.raises(InputRefused):
        await looked(engine, root, Plan(collection="orders", path=root / "nothing.csv"))


PLAIN = Schema(msgspec.structs.replace(ORDERS, documents={}))
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=7), st.sampled_from(["076001", "2024-02-29"])
)


@given(st.dictionaries(st.sampled_from([*ORDERS.fields, "other"]), VALUES))
def test_a_record_is_bad_when_a_write_would_refuse_it(values: dict[str, Any]) -> None:
    try:
        PLAIN.whole(PLAIN.store(values))
        good = values.get("id") is not None
    except RefoldError:
        good = False
    assert (errors_of(PLAIN, Row(1, values)) == []) is good
