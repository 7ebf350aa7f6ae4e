"""Replicas that meet over a directory: files in any order, half of them, broken ones, a share that takes no more."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest

import refold
from refold import Collection, Engine, Field
from refold.errors import EventsMissing, StorageFailed
from refold.events import Event, canonical
from refold.session import ClockAhead
from refold.testing import START, Scribe, Ticks
from refold_adapters.share import SegmentRefused, plan
from refold_adapters.share import side as share_side
from refold_adapters.share.segments import Segment, read, read_events, scan, write

pytestmark = pytest.mark.anyio

NOTES = Collection(name="notes", key="id", fields={"id": Field("str"), "a": Field("str", null=True)})


@asynccontextmanager
async def archives(root: Path, *names: str) -> AsyncIterator[list[Engine]]:
    """Archives in directories, which all know the collection, and a share beside them."""
    (root / "share").mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(refold.open(root / name, replica=name)) for name in names]
        await engines[0].define(NOTES)
        for engine in engines[1:]:
            await engines[0].sync(engine)
        yield engines


def url(root: Path) -> str:
    return f"dir://{root / 'share'}"


def files(root: Path) -> list[Path]:
    return sorted((root / "share").rglob("*.segment"))


async def test_three_replicas_meet_over_a_share(tmp_path: Path) -> None:
    async with archives(tmp_path, "a", "b", "c") as (a, b, c):
        for n in range(3):
            for engine in (a, b, c):
                await engine.put("notes", {"id": f"{engine.replica}{n}", "a": engine.replica})
        reports = [await engine.sync(url(tmp_path)) for engine in (a, b, c, a, b)]
        assert [(report.sent, report.received) for report in reports] == [(4, 0), (3, 3), (3, 6), (0, 6), (0, 3)]
        assert len({await engine.digest() for engine in (a, b, c)}) == 1
        before = files(tmp_path)
        assert (await c.sync(url(tmp_path))).sent == 0 and files(tmp_path) == before
        for engine in (a, b, c):
            assert (await engine.verify()).ok


async def test_many_segments_come_in_an_order_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_side, "SEGMENT_EVENTS", 1)
    async with archives(tmp_path, "a", "b", "c") as (a, b, c):
        for turn in range(4):
            for engine in (a, b):
                await engine.put("notes", {"id": "1", "a": f"{engine.replica}{turn}"})
                await engine.sync(url(tmp_path))
        assert len(files(tmp_path)) >= 8
        assert (await c.sync(url(tmp_path))).received == 8
        await a.sync(url(tmp_path))
        assert await c.digest() == await a.digest()


async def test_two_write_to_the_share_at_once(tmp_path: Path) -> None:
    async with archives(tmp_path, "a", "b") as (a, b):
        await a.put("notes", {"id": "1"})
        await a.sync(b)
        await b.put("notes", {"id": "2"})
        await asyncio.gather(a.sync(url(tmp_path)), b.sync(url(tmp_path)))
        await asyncio.gather(a.sync(url(tmp_path)), b.sync(url(tmp_path)))
        assert await a.digest() == await b.digest() and (await a.verify()).ok


@pytest.mark.parametrize("harm", ["cut", "cut in the header", "bit in the payload", "bit in the header", "exchanged"])
async def test_a_segment_that_is_torn_or_tampered_with_is_refused_by_name_and_stops_nothing_else(
    tmp_path: Path, harm: str
) -> None:
    async with archives(tmp_path, "a", "b", "c") as (a, b, c):
        await a.put("notes", {"id": "1"})
        await b.put("notes", {"id": "2"})
        await a.sync(url(tmp_path))
        await b.sync(url(tmp_path))
        victim = next(path for path in files(tmp_path) if path.parent.name == "b")
        data = bytearray(victim.read_bytes())
        match harm:
            case "cut":
                del data[-1]
            case "cut in the header":
                del data[25:]
            case "bit in the payload":
                data[-3] ^= 1
            case "bit in the header":
                data[24] ^= 1
            case _:
                data = bytearray(next(path for path in files(tmp_path) if path != victim).read_bytes())
        victim.write_bytes(data)
        with pytest.raises(SegmentRefused, match=victim.name):
            await c.sync(url(tmp_path))
        assert await c.get("notes", "1") is not None and await c.get("notes", "2") is None
        victim.unlink()
        await b.sync(url(tmp_path))
        await c.sync(url(tmp_path))
        assert await c.get("notes", "2") is not None


async def test_a_half_copied_share_gives_what_it_can_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_side, "SEGMENT_EVENTS", 1)
    async with archives(tmp_path, "a", "b") as (a, b):
        for n in range(3):
            await a.put("notes", {"id": "1", "a": str(n)})
        await a.sync(url(tmp_path))
        kept = tmp_path / "kept"
        kept.mkdir()
        missing = files(tmp_path)[-2]
        shutil.move(missing, kept)
        with pytest.raises(EventsMissing) as caught:
            await b.sync(url(tmp_path))
        assert caught.value.missing == ["a:3"] and b.position == 2
        shutil.move(kept / missing.name, missing)
        await b.sync(url(tmp_path))
        assert await a.digest() == await b.digest()


async def test_what_a_killed_writer_left_unfinished_is_removed_by_its_next_session(tmp_path: Path) -> None:
    async with archives(tmp_path, "a", "b") as (a, b):
        await b.sync(url(tmp_path))
        left = [tmp_path / "share" / name / f".00000001-{'0' * 32}.segment.partial" for name in "ab"]
        left[0].parent.mkdir(exist_ok=True)
        for path in left:
            path.write_bytes(b"half")
        await a.sync(url(tmp_path))
        assert [path.exists() for path in left] == [False, True]


async def test_a_share_that_cannot_be_written_is_a_typed_error_and_reading_it_worked(tmp_path: Path) -> None:
    async with archives(tmp_path, "a", "b") as (a, b):
        await a.put("notes", {"id": "1"})
        await a.sync(url(tmp_path))
        (tmp_path / "share/b").write_text("a file where the folder of b has to be")
        await b.put("notes", {"id": "2"})
        with pytest.raises(StorageFailed, match="writing a segment"):
            await b.sync(url(tmp_path))
        assert not list((tmp_path / "share").rglob("*.partial"))
        (tmp_path / "share/b").unlink()
        await b.sync(url(tmp_path))
        await a.sync(url(tmp_path))
        assert await a.digest() == await b.digest()


async def test_what_is_no_share_is_refused(tmp_path: Path) -> None:
    async with archives(tmp_path, "a") as (a,):
        with pytest.raises(StorageFailed, match="mounted"):
            await a.sync(f"dir://{tmp_path / 'nothing'}")
        with pytest.raises(StorageFailed, match="archive"):
            await a.sync(f"dir://{tmp_path / 'a'}")
        (tmp_path / "share/README.txt").write_text("not ours")
        (tmp_path / "share/a").mkdir()
        (tmp_path / "share/a/notes (1).segment").write_text("not ours")
        (tmp_path / "share/linked").symlink_to(tmp_path / "a")
        assert (await a.sync(url(tmp_path))).sent == 1


async def test_a_segment_ahead_of_the_clock_is_passed_over_with_what_needs_it_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share").mkdir()
    monkeypatch.setattr(share_side, "SEGMENT_EVENTS", 1)
    async with (
        refold.open(tmp_path / "a", replica="a", clock=Ticks()) as a,
        refold.open(tmp_path / "fast", replica="fast", clock=Ticks(START + 3_600_000)) as fast,
        refold.open(tmp_path / "c", replica="c", clock=Ticks()) as c,
    ):
        await a.define(NOTES)
        await fast.sync(a, max_skew=1 << 40)
        for engine, key in ((a, "1"), (fast, "2"), (fast, "3")):
            await engine.put("notes", {"id": key})
            await engine.sync(url(tmp_path), max_skew=1 << 40)
        victim = next(path for path in files(tmp_path) if path.parent.name == "fast")
        with pytest.raises(ClockAhead, match=victim.name):
            await c.sync(url(tmp_path))
        assert [record.key async for record in c.find("notes")] == ["1"]
        await c.put("notes", {"id": "4"})
        with pytest.raises(ClockAhead, match=victim.name):
            await c.sync(url(tmp_path))
        assert any(path.parent.name == "c" for path in files(tmp_path))
        await c.sync(url(tmp_path), max_skew=1 << 40)
        assert [record.key async for record in c.find("notes")] == ["1", "2", "3", "4"]
        assert (await c.verify()).ok


async def test_of_a_share_that_is_known_the_headers_are_read_and_some_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(segment: Segment) -> list[tuple[Event, bytes]]:
        opened.append(segment.path.name)
        return read_events(segment)

    monkeypatch.setattr(share_side, "SEGMENT_EVENTS", 1)
    monkeypatch.setattr(share_side, "SAMPLE_SEGMENTS", 3)
    monkeypatch.setattr(share_side, "read_events", counted)
    async with archives(tmp_path, "a", "b") as (a, b):
        for n in range(30):
            await a.put("notes", {"id": str(n)})
        await a.sync(url(tmp_path))
        await b.sync(url(tmp_path))
        assert len(set(opened)) == len(opened) == len(files(tmp_path)), "what is lacking is read, and read once"
        seen: set[str] = set()
        for _ in range(11):
            opened.clear()
            assert (await b.sync(url(tmp_path))).received == 0
            assert len(opened) == 3
            seen |= set(opened)
            for _ in range(3):
                await b.put("notes", {"id": "b", "a": str(b.position)})
            await a.sync(b)
        assert len(seen) > 12, "other files at each turn"
        await a.put("notes", {"id": "new"})
        await a.sync(url(tmp_path))
        opened.clear()
        assert (await b.sync(url(tmp_path))).received == 1
        assert len(opened) == 4


async def test_a_header_that_lies_of_what_the_reader_has_is_found_though_the_file_is_no_part_of_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_side, "SAMPLE_SEGMENTS", 0)
    async with archives(tmp_path, "a", "b") as (a, b):
        await a.sync(url(tmp_path))
        await a.put("notes", {"id": "1"})
        liar = Scribe("a").write("notes", "9", {"id": "9"})
        told = [msgspec.structs.replace(liar, seq=2, batch=2)]
        await asyncio.to_thread(write, tmp_path / "share/evil", 1, told, [b"not its bytes"])
        with pytest.raises(SegmentRefused, match="evil"):
            await a.sync(url(tmp_path))
        await b.sync(url(tmp_path))
        assert await b.get("notes", "1") is not None, "what the liar claimed was written all the same"


async def test_a_fork_on_the_share_is_refused(tmp_path: Path) -> None:
    async with archives(tmp_path, "a") as (a,):
        await a.put("notes", {"id": "0"})
        await a.sync(url(tmp_path))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    async with refold.open(tmp_path / "copy") as copy:
        await copy.put("notes", {"id": "1"})
        await copy.sync(url(tmp_path))
    async with refold.open(tmp_path / "a") as a:
        await a.put("notes", {"id": "2"})
        with pytest.raises(refold.RefoldError) as caught:
            await a.sync(url(tmp_path))
        assert caught.value.code == "forked"


def test_segments_are_planned_by_their_needs_whatever_their_order(tmp_path: Path) -> None:
    one, other = Scribe("one"), Scribe("other")
    found: list[Segment] = []
    for turn in range(12):
        writer = (one, other)[turn % 2]
        event = writer.write("notes", "1", {"id": "1", "a": str(turn)})
        if turn % 4 < 2:
            (other, one)[turn % 2].see([event])
        folder = tmp_path / writer.replica
        found.append(write(folder, turn + 1, [event], [canonical(event)]))
    assert sorted(segment.path for segment in scan(tmp_path) if isinstance(segment, Segment)) == sorted(
        segment.path for segment in found
    )
    shuffled = Random(1).sample(found, len(found))
    chosen, waiting, vector = plan(shuffled, {})
    assert len(chosen) == 12 and waiting == [] and vector == {"one": 6, "other": 6}
    assert [len(read(segment)) for segment in chosen] == [1] * 12
    chosen, waiting, vector = plan([segment for segment in shuffled if segment is not found[0]], {})
    assert chosen == [] or vector["other"] >= 1
    assert {segment.header.writer for segment in waiting} >= {"one"}
    assert os.listdir(tmp_path / "one")
