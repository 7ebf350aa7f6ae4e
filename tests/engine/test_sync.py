"""Sync between archives in memory: what each side ends with, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold import Collection, Engine, Field
from refold.errors import EventForked, EventsMissing, RefoldError
from refold.events import Event, Head, canonical
from refold.frames import (
    FRAME_EVENTS,
    FRAME_LIMIT,
    HEADER,
    Done,
    Events,
    FrameRefused,
    Hello,
    Refused,
    from_frame,
    payload_size,
    to_frame,
)
from refold.intake import Intake
from refold.ports import Changelog, Tables
from refold.session import ClockAhead, PeerRefused
from refold.sync import Pipe, SyncInterrupted, pipe
from refold.testing import START, MemoryStore, Scribe, Ticks, append, memory_engine

from .histories import THINGS, histories, reordered

pytestmark = pytest.mark.anyio

T = TypeVar("T")

NOTES = Collection(
    name="notes", key="id", fields={"id": Field("str"), "a": Field("str", null=True), "b": Field("str", null=True)}
)


async def pair(stack: AsyncExitStack, *names: str) -> list[Engine]:
    """Engines over stores in memory, each with the collection defined by the first."""
    engines = [await stack.enter_async_context(memory_engine(MemoryStore(name), Ticks())) for name in names]
    await engines[0].define(NOTES)
    for engine in engines[1:]:
        await engines[0].sync(engine)
    return engines


async def bodies(engine: Engine) -> set[bytes]:
    return {canonical(event) async for event in engine.events()}


async def test_both_sides_end_with_the_same_events_and_digest() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        for n in range(5):
            await a.put("notes", {"id": f"a{n}"})
            await b.put("notes", {"id": f"b{n}"})
        report = await a.sync(b)
        assert (report.peer, report.sent, report.received, report.merged) == ("b", 5, 5, 0)
        assert await a.digest() == await b.digest() and await bodies(a) == await bodies(b)
        again = await b.sync(a)
        assert (again.sent, again.received) == (0, 0) and again.related
        assert (await a.verify()).ok and (await b.verify()).ok


async def test_concurrent_writes_to_different_fields_are_merged_and_counted() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        await a.put("notes", {"id": "1", "a": "0", "b": "0"})
        await a.sync(b)
        await a.patch("notes", "1", {"a": "1"})
        await b.patch("notes", "1", {"b": "1"})
        report = await a.sync(b)
        assert (report.merged, report.conflicts) == (1, 0)
        for engine in (a, b):
            record = await engine.get("notes", "1")
            assert record is not None and record.values == {"id": "1", "a": "1", "b": "1"}


async def test_what_was_written_together_arrives_together() -> None:
    """Also when a group is larger than a frame: nobody sees a part of it."""
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        async with a.batch() as batch:
            for n in range(FRAME_EVENTS * 2 + 10):
                batch.put("notes", {"id": str(n)})
        seen: list[int] = []
        await b.sync(a, progress=lambda what, done: seen.append(done) if what == "received" else None)
        assert {count for count in seen if count} == {FRAME_EVENTS * 2 + 10}
        assert await a.digest() == await b.digest()


async def test_three_replicas_agree_whatever_way_the_events_went() -> None:
    async with AsyncExitStack() as stack:
        a, b, c = await pair(stack, "a", "b", "c")
        await asyncio.gather(*(engine.put("notes", {"id": "1", "a": engine.replica}) for engine in (a, b, c)))
        await a.sync(b)
        await b.sync(c)
        await c.sync(a)
        await b.sync(a)
        assert len({await engine.digest() for engine in (a, b, c)}) == 1


async def test_two_sessions_at_once_take_each_event_once() -> None:
    async with AsyncExitStack() as stack:
        a, b, c = await pair(stack, "a", "b", "c")
        for n in range(50):
            await b.put("notes", {"id": str(n)})
        await b.sync(c)
        reports = await asyncio.gather(a.sync(b), a.sync(c), c.sync(b))
        assert reports[0].received + reports[1].received == 50
        assert len({await engine.digest() for engine in (a, b, c)}) == 1 and (await a.verify()).ok


async def test_writers_go_on_while_a_session_runs() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        for n in range(3000):
            await a.put("notes", {"id": str(n)})
        await asyncio.gather(a.sync(b), *(b.put("notes", {"id": f"b{n}"}) for n in range(100)))
        await a.sync(b)
        assert await a.digest() == await b.digest()


async def test_a_copy_that_wrote_under_the_same_id_is_refused_with_both_heads() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        await a.put("notes", {"id": "1"})
        await a.sync(b)
        copy = MemoryStore("a")
        append(copy.log, [event async for event in a.events()])
        other = await stack.enter_async_context(memory_engine(copy, Ticks(START + 10**4)))
        ours = await a.put("notes", {"id": "2"})
        theirs = await other.put("notes", {"id": "3"})
        assert ours is not None and theirs is not None
        with pytest.raises(EventForked) as caught:
            await a.sync(other)
        assert (caught.value.replica, caught.value.seq) == ("a", ours.seq)
        assert (caught.value.ours, caught.value.theirs) == (ours.hash.hex(), theirs.hash.hex())
        await other.put("notes", {"id": "4"})
        with pytest.raises(EventForked) as caught:
            await a.sync(other)
        assert caught.value.ours == ours.hash.hex()
        await other.sync(b)
        with pytest.raises(EventForked):
            await b.sync(a)


async def test_a_restored_backup_is_given_back_its_own_later_events() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        backup = MemoryStore("a")
        await a.put("notes", {"id": "1"})
        append(backup.log, [event async for event in a.events()])
        await a.put("notes", {"id": "2"})
        await a.sync(b)
        restored = await stack.enter_async_context(memory_engine(backup, Ticks(START + 10**4)))
        assert (await restored.sync(b)).received == 1
        await restored.put("notes", {"id": "3"})
        assert (await restored.sync(b)).sent == 1
        assert await restored.digest() == await b.digest()


async def test_a_clock_that_is_ahead_is_refused_with_the_skew() -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(memory_engine(MemoryStore("a"), Ticks()))
        b = await stack.enter_async_context(memory_engine(MemoryStore("b"), Ticks(START + 3_600_000)))
        await b.define(NOTES)
        with pytest.raises(ClockAhead) as caught:
            await a.sync(b)
        assert 3_599_000 < caught.value.skew < 3_601_000 and a.position == 0
        with pytest.raises(ClockAhead):
            await b.sync(a)
        await a.sync(b, max_skew=4_000_000)
        event = await a.put("notes", {"id": "1"})
        assert event is not None and event.time > max([e.time async for e in b.events()])


async def test_an_event_from_the_future_is_refused_though_the_clock_is_right() -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(memory_engine(MemoryStore("a"), Ticks()))
        store = MemoryStore("b")
        scribe = Scribe("b", lambda: START + 10**9)
        append(store.log, [scribe.define(NOTES)])
        b = await stack.enter_async_context(memory_engine(store, Ticks()))
        with pytest.raises(ClockAhead, match="event b:1"):
            await a.sync(b)
        assert a.position == 0


async def test_two_archives_that_had_nothing_in_common_are_said_to_be_so() -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(memory_engine(MemoryStore("a"), Ticks()))
        b = await stack.enter_async_context(memory_engine(MemoryStore("b"), Ticks()))
        await a.define(NOTES)
        await b.define(NOTES)
        assert not (await a.sync(b)).related
        assert await a.digest() == await b.digest()


class Narrow:
    """One end of a pipe that takes its time, and is to be handed one frame at a time."""

    def __init__(self, end: Pipe) -> None:
        self.end = end
        self.at_once = self.most = 0

    async def send(self, frame: bytes) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        for _ in range(20):
            await asyncio.sleep(0)
        await self.end.send(frame)
        self.at_once -= 1

    def frames(self) -> AsyncIterator[bytes]:
        return self.end.frames()


async def test_a_peer_is_handed_one_frame_at_a_time() -> None:
    """Sending and taking in are two tasks, and what each has to say must not overtake what the other waits to send."""
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        await b.put("notes", {"id": "1"})
        here, there = (Narrow(end) for end in pipe())
        await asyncio.gather(a.sync(here), b.sync(there))
        assert here.most == there.most == 1 and await a.digest() == await b.digest()


class Liar:
    """A peer that sends what it was told to, whatever it is told."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._frames = frames
        self.heard: list[Any] = []

    async def send(self, frame: bytes) -> None:
        self.heard.append(from_frame(frame))

    async def frames(self) -> AsyncIterator[bytes]:
        for frame in self._frames:
            yield frame


def told(scribe: Scribe, *events: Event, heads: dict[str, Head] | None = None) -> list[bytes]:
    """The frames of a peer that has these events."""
    hello = Hello(scribe.replica, START, {scribe.replica: scribe.head} if heads is None else heads)
    return [to_frame(message) for message in (hello, Events([canonical(event) for event in events]), Done(len(events)))]


@pytest.mark.parametrize("lie", ["gap", "changed", "body", "not canonical", "count", "early", "head", "twice", "cut"])
async def test_a_peer_that_lies_is_refused_and_nothing_of_it_is_taken(lie: str) -> None:
    scribe = Scribe("liar")
    events = [scribe.define(NOTES), scribe.write("notes", "1", {"id": "1"}), scribe.write("notes", "2", {"id": "2"})]
    frames = told(scribe, *events)
    error: type[RefoldError] = FrameRefused
    match lie:
        case "gap":
            frames, error = told(scribe, events[0], events[2]), EventsMissing
        case "changed":
            changed = msgspec.structs.replace(events[1], data={"id": "x"})
            frames, error = told(scribe, events[0], changed, events[2]), EventForked
        case "body":
            frames[1] = to_frame(Events([b"\x90"]))
        case "not canonical":
            frames[1] = to_frame(Events([msgspec.msgpack.encode(msgspec.structs.astuple(events[0])[:-1]) + b"\x00"]))
        case "count":
            frames[2] = to_frame(Done(7))
        case "early":
            frames = frames[1:]
        case "head":
            frames = told(scribe, *events, heads={"liar": Head(0, bytes(32))})
        case "twice":
            frames = [frames[0], *frames]
        case "cut":
            frames, error = frames[:2], SyncInterrupted
    async with memory_engine(MemoryStore("a"), Ticks()) as engine:
        with pytest.raises(error):
            await engine.sync(Liar(frames))
        taken = 3 if lie in {"count", "cut"} else 0
        assert engine.position == taken and (await engine.verify()).ok


async def test_events_of_one_group_that_are_told_twice_are_taken_once() -> None:
    scribe = Scribe("twice")
    first = scribe.write("notes", "1", {"id": "1"}, batch=2)
    events = [first, scribe.write("notes", "2", {"id": "2"})]
    hello, _, _ = told(scribe)
    frames = [to_frame(Events([canonical(event) for event in part])) for part in ([first], [first, first], events)]
    async with memory_engine(MemoryStore("a"), Ticks()) as engine:
        with pytest.raises(FrameRefused, match="4 events are said"):
            await engine.sync(Liar([hello, *frames, to_frame(Done(4))]))
        assert engine.position == 2 and (await engine.verify()).ok


async def test_no_part_of_a_group_is_taken_when_other_events_come_before_its_end() -> None:
    """As when frames come in another order, and the session breaks off then."""
    scribe, other = Scribe("group"), Scribe("other")
    group = [scribe.write("notes", str(n), {"id": str(n)}, batch=3) for n in range(3)]
    between = other.write("notes", "x", {"id": "x"})
    hello, _, _ = told(scribe)
    frames = [to_frame(Events([canonical(event) for event in part])) for part in (group[:2], [between], group[2:])]
    async with memory_engine(MemoryStore("a"), Ticks()) as engine:
        with pytest.raises(SyncInterrupted):
            await engine.sync(Liar([hello, *frames[:2]]))
        assert engine.position == 0
        with pytest.raises(SyncInterrupted):
            await engine.sync(Liar([hello, *frames]))
        assert engine.position == 4 and (await engine.verify()).ok


async def test_a_peer_whose_head_is_not_ours_is_told_why() -> None:
    async with memory_engine(MemoryStore("a"), Ticks()) as engine:
        await engine.define(NOTES)
        liar = Liar([to_frame(Hello("liar", START, {"a": Head(1, bytes(32))}))])
        with pytest.raises(EventForked):
            await engine.sync(liar)
        assert liar.heard[-1].code == "forked"


@given(st.binary(max_size=60))
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(RefoldError):
        from_frame(data)


@given(st.data())
def test_a_frame_with_any_bit_changed_is_refused(data: st.DataObject) -> None:
    frame = bytearray(to_frame(Hello("a", START, {"a": Head(3, bytes(range(32)))})))
    at = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[at // 8] ^= 1 << at % 8
    with pytest.raises(RefoldError):
        from_frame(bytes(frame))


def test_a_length_beyond_the_limit_is_refused_before_it_is_believed() -> None:
    header = bytearray(to_frame(Done(1))[:HEADER])
    header[4:8] = (FRAME_LIMIT + 1).to_bytes(4, "big")
    with pytest.raises(FrameRefused, match="announced"):
        payload_size(bytes(header))
    with pytest.raises(FrameRefused, match="events are more than"):
        from_frame(to_frame(Events([b""] * (FRAME_EVENTS + 1))))


@given(histories(), st.randoms(use_true_random=False))
def test_a_session_needs_no_more_than_its_frames(events: list[Event], random: Random) -> None:
    """Two sides that hold different causally closed parts of a history, driven by hand, end with all of it."""
    order = reordered(events, random)
    stores = []
    for name in ("x", "y"):
        store = MemoryStore(name)
        append(store.log, [Scribe("defines").define(THINGS)])
        cut = random.randint(0, len(order))
        known = {event.replica: event.seq for event in order[:cut]}
        part = [event for event in order if event.seq <= known.get(event.replica, 0)]
        if part:
            append(store.log, part)
        stores.append(store)
    asyncio.run(_meet(*stores))
    one, other = stores
    assert {*one.log.stored} == {*other.log.stored}


async def _meet(one: MemoryStore, other: MemoryStore) -> None:
    far = 2**47 - 1
    async with memory_engine(one, lambda: far) as here, memory_engine(other, lambda: far) as there:
        await here.sync(there)
        assert await here.digest() == await there.digest()
        assert (await here.verify()).ok and (await there.verify()).ok


async def test_cancelling_a_session_leaves_whole_groups_and_no_task() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        await asyncio.gather(*(b.put("notes", {"id": str(n)}) for n in range(9000)))
        before = asyncio.all_tasks()

        def stop(what: str, done: int) -> None:
            if what == "received" and done >= 1000:
                session.cancel()

        session = asyncio.create_task(a.sync(b, progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await session
        assert asyncio.all_tasks() == before
        assert 0 < a.position < 9001 and (await a.verify()).ok
        await a.sync(b)
        assert await a.digest() == await b.digest()


class Lingering(MemoryStore):
    """A store that answers some time after the work is done, as one with a thread does."""

    async def write(self, work: Callable[[Changelog, Tables], T]) -> T:
        result = await super().write(work)
        for _ in range(9):
            await asyncio.sleep(0)
        return result


async def test_who_follows_the_log_is_told_what_a_cancelled_session_took_in() -> None:
    async with AsyncExitStack() as stack:
        store = Lingering("a")
        a = await stack.enter_async_context(memory_engine(store, Ticks()))
        b = await stack.enter_async_context(memory_engine(MemoryStore("b"), Ticks()))
        await b.define(NOTES)
        session = asyncio.create_task(a.sync(b))
        while store.log.end() == 0:
            await asyncio.sleep(0)
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session
        for _ in range(20):
            await asyncio.sleep(0)
        assert a.position == store.log.end() == 1


async def test_a_refusal_of_the_peer_says_why() -> None:
    async with memory_engine(MemoryStore("a"), Ticks()) as engine:
        with pytest.raises(PeerRefused, match="no room") as caught:
            await engine.sync(Liar([to_frame(Refused("storage-failed", "no room", {}))]))
        assert caught.value.reason == "storage-failed"


async def test_a_replica_that_goes_on_from_another_log_says_so_in_its_first_event() -> None:
    async with AsyncExitStack() as stack:
        a, b = await pair(stack, "a", "b")
        first = await b.put("notes", {"id": "1"}, meta={"by": "hand"})
        later = await b.put("notes", {"id": "2"})
        assert first is not None and first.meta == {"began": "a:1", "by": "hand"}
        assert later is not None and later.meta == {}
        assert [event.meta async for event in a.events()] == [{}]


def test_an_earlier_event_that_is_told_again_does_not_end_a_group() -> None:
    scribe = Scribe("a")
    first = scribe.write("notes", "1", {"id": "1"})
    group = [scribe.write("notes", str(n), {"id": str(n)}, batch=4) for n in (2, 3, 4)]
    intake = Intake("peer", START + 10**6, 1000)
    assert intake.take([canonical(event) for event in (first, *group[:2], first)]) is not None
    assert intake.take([canonical(first)]) is None
    whole = intake.take([canonical(group[2])])
    assert whole is not None and whole.events[-1] == group[2]
