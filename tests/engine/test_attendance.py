"""What a server knows of its thin clients: who has what, and what was refused."""

from __future__ import annotations

import pytest

from refold import Change, Collection, Field
from refold.attendance import CLIENTS, REFUSALS, Attendance, Refusal
from refold.errors import RecordUnknown
from refold.testing import MemoryStore, Ticks, memory_engine

pytestmark = pytest.mark.anyio

CARS = Collection(
    name="cars",
    key="id",
    strategy="manual",
    priority="high",
    fields={"id": Field("str"), "a": Field("str", null=True), "n": Field("int", null=True)},
)


def refusal(key: str) -> Refusal:
    return Refusal(collection="cars", key=key, operation="update", time=1, code="x", message="x")


def change(key: str, version: str | None = None, **values: object) -> Change:
    return Change(operation="update", collection="cars", key=key, values=values, version=version)


async def test_a_record_stands_at_a_client_as_its_pushes_and_pulls_say() -> None:
    async with memory_engine(MemoryStore("server"), Ticks()) as engine:
        await engine.define(CARS)
        await engine.put("cars", {"id": "x", "a": "0"})
        assert engine.clients() == [] and engine.client("phone") is None

        async def state(client: str = "phone") -> str:
            return str((await engine.sync_status("cars", "x", client=client)).state)

        assert await state() == "needs-download"
        page = await engine.pull(client="phone")
        assert await state() == "needs-download", "the page may not have arrived"
        page = await engine.pull(page.next, client="phone")
        assert await state() == "in-sync" and await state("tablet") == "needs-download"
        seen = (await engine.sync_status("cars", "x", client="phone")).version

        await engine.push([change("x", seen, n="no number")], client="phone")
        told = await engine.sync_status("cars", "x", client="phone")
        assert told.state == "sync-error" and told.error is not None and told.attempted == told.error.time
        assert (told.error.code, told.error.operation, told.priority) == ("value-refused", "update", "high")
        await engine.push([change("x", seen, n=1)], client="phone")
        assert await state() == "in-sync"
        known = engine.client("phone")
        assert known is not None and (known.taken, known.refused, known.refusals) == (1, 1, [])
        assert known.pushed is not None and known.pulled is not None and known.streams[0].position == page.position

        await engine.push([change("x", seen, n=2)], client="tablet")
        assert await state() == "conflict"
        (conflict,) = [found async for found in engine.conflicts("open")]
        await engine.resolve(conflict.id, take=conflict.events[0].dot)
        assert await state() == "needs-download"
        page = await engine.pull(page.next, client="phone")
        await engine.pull(page.next, client="phone")
        assert await state() == "in-sync"
        with pytest.raises(RecordUnknown):
            await engine.sync_status("cars", "never", client="phone")
        await engine.push([change("never", n=1)], client="phone")
        lost = await engine.sync_status("cars", "never", client="phone")
        assert (lost.state, lost.version) == ("sync-error", "")


async def test_a_client_has_only_what_it_asks_for() -> None:
    async with memory_engine(MemoryStore("server"), Ticks()) as engine:
        for collection in (CARS, Collection(name="notes", key="id", fields={"id": Field("str")})):
            await engine.define(collection)
        await engine.put("cars", {"id": "x"})
        await engine.put("notes", {"id": "x"})
        page = await engine.pull(priority="high", client="phone")
        await engine.pull(page.next, priority="high", client="phone")
        states = [(await engine.sync_status(name, "x", client="phone")).state for name in ("cars", "notes")]
        assert states == ["in-sync", "needs-download"]
        page = await engine.pull(collections=["notes"], client="phone")
        await engine.pull(page.next, collections=["notes"], client="phone")
        assert (await engine.sync_status("notes", "x", client="phone")).state == "in-sync"
        known = engine.client("phone")
        assert known is not None and [stream.covered for stream in known.streams] == [["notes"], ["cars"]]


def test_what_is_remembered_is_bounded() -> None:
    book = Attendance()
    book.pushed("phone", 1, [], [refusal(str(number)) for number in range(2 * REFUSALS)])
    known = book.get("phone")
    assert known is not None and len(known.refusals) == REFUSALS and known.refused == 2 * REFUSALS
    for number in range(CLIENTS + 5):
        book.pushed(f"c{number}", 1, [], [])
    assert len(book.all()) == CLIENTS and book.get("phone") is None and book.get(f"c{CLIENTS + 4}") is not None
