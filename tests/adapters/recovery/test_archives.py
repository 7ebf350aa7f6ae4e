"""Recovery of real files: rotten databases, restores to every moment that go on writing, kills at every step."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refold
from refold.errors import StorageFailed
from refold.events import Event
from refold.moment import parse_moment
from refold_adapters.recovery import building, recover, restore
from refold_adapters.recovery.folder_source import folder_events
from refold_adapters.recovery.log_source import log_events
from refold_adapters.recovery.scratch import Scratch
from refold_adapters.recovery.union import Union, Verdict
from tests.crash.campaign import fork, reap

from .damage import Listed

PARTS = refold.Collection(
    name="parts", key="no", folder="{place}", fields={"no": refold.Field("str"), "place": refold.Field("str"),
    "note": refold.Field("str", null=True)},
)  # fmt: skip


async def fill(root: Path, *, large: int = 0) -> None:
    """The archives `a`, `b` and `c`, which have met twice and hold the same; `large` is the size of some values."""
    async with (
        refold.open(root / "a", replica="a") as a,
        refold.open(root / "b", replica="b") as b,
        refold.open(root / "c", replica="c") as c,
    ):
        await a.define(PARTS)
        for turn in range(2):
            for engine in (a, b, c):
                if engine is not a:
                    await engine.sync(a)
                await engine.put("parts", {"no": f"{turn}{engine.replica}", "place": "north", "note": "x" * large})
                async with engine.batch() as batch:
                    batch.put("parts", {"no": "1", "place": "south", "note": f"{turn} {engine.replica}"})
                    batch.put("parts", {"no": f"2{engine.replica}", "place": "north"})
        for engine in (b, c, b):
            await engine.sync(a)


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fill` made, for tests that only read."""
    root = tmp_path_factory.mktemp("meeting")
    asyncio.run(fill(root, large=9000))
    return root


def bytes_under(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def judged(*sources: Callable[[], Iterator[Any]]) -> tuple[Verdict, list[Event]]:
    """What comes of sources that are read now."""
    listed = [Listed(str(number), list(source())) for number, source in enumerate(sources)]
    with Scratch() as scratch:
        union = Union(listed, scratch)
        union.gather(lambda what, done: None)
        verdict = union.judge()
        return verdict, [event for event, _ in union.events()]


def wound(data: bytearray, wounds: list[tuple[str, int, int]]) -> bytes:
    """The bytes with a bit turned, a page blanked, or the end gone, at places that are fractions of the whole."""
    for kind, place, bit in wounds:
        at = place * (len(data) - 1) // 10**6
        if kind == "bit" and data:
            data[at] ^= 1 << bit
        elif kind == "page":
            start = at - at % 4096
            data[start : start + 4096] = bytes(len(data[start : start + 4096]))
        elif kind == "cut":
            del data[max(at, 4096) :]
    return bytes(data)


WOUNDS = st.lists(
    st.tuples(st.sampled_from(["bit", "bit", "bit", "page", "cut"]), st.integers(0, 10**6), st.integers(0, 7)),
    min_size=1,
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(wounds=WOUNDS)
def test_a_log_wounded_anywhere_yields_no_event_that_was_not_written(
    meeting: Path, tmp_path: Path, wounds: list[tuple[str, int, int]]
) -> None:
    _, truth = judged(partial(log_events, meeting / "a/changelog.db"))
    written = {event.dot: event for event in truth}
    log = tmp_path / "changelog.db"
    log.write_bytes(wound(bytearray((meeting / "a/changelog.db").read_bytes()), wounds))
    verdict, taken = judged(partial(log_events, log))
    unproved = {(replica, seq) for replica, seq, _ in verdict.unproved}
    assert all(event.dot in unproved or written[event.dot] == event for event in taken)
    whole, filled = judged(partial(log_events, log), partial(folder_events, meeting / "b"))
    assert whole.missing == [] and whole.blocked == 0
    assert {event.dot: event for event in filled} == written


def test_every_page_of_a_log_can_be_lost_at_once_but_those_with_rows(meeting: Path, tmp_path: Path) -> None:
    data = bytearray((meeting / "a/changelog.db").read_bytes())
    for start in range(0, len(data), 4096):
        kind = data[start + 100] if start == 0 else data[start]
        if kind in (2, 5, 10) or start == 0:  # the header, the inner pages, the indexes
            data[start : start + 4096] = bytes(4096)
    (tmp_path / "changelog.db").write_bytes(data)
    _, truth = judged(partial(log_events, meeting / "a/changelog.db"))
    verdict, taken = judged(partial(log_events, tmp_path / "changelog.db"))
    assert verdict.whole and len(taken) == len(truth) == 16


def test_a_log_whose_newest_events_are_in_the_write_ahead_log_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with refold.open(tmp_path / "a", replica="a", folders=False) as engine:
            await engine.define(PARTS)
            for number in range(30):
                await engine.put("parts", {"no": str(number), "place": "north", "note": "x" * 3000})
            (tmp_path / "copy").mkdir()
            for name in ("changelog.db", "changelog.db-wal"):
                await asyncio.to_thread(shutil.copy, tmp_path / "a" / name, tmp_path / "copy")

    asyncio.run(work())
    log, wal = tmp_path / "copy/changelog.db", tmp_path / "copy/changelog.db-wal"
    size = wal.stat().st_size
    assert size > 100_000
    log.write_bytes(b"\xff" * 64 + log.read_bytes()[64:])
    assert judged(partial(log_events, log))[0].have == {"a": 31}
    wal.write_bytes(wal.read_bytes()[: size // 2])
    verdict, _ = judged(partial(log_events, log))
    assert 1 < verdict.have["a"] < 31 and verdict.whole


def test_after_a_restore_to_any_moment_nothing_is_lost_silently(tmp_path: Path) -> None:
    async def work() -> None:
        await fill(tmp_path)
        async with refold.open(tmp_path / "b", readonly=True) as b:
            end, all_of_it = b.position, {event.dot async for event in b.events()}
        for position in range(1, end + 1):
            peer, copy = tmp_path / f"peer{position}", tmp_path / f"copy{position}"
            await asyncio.to_thread(shutil.copytree, tmp_path / "b", peer)
            report = await restore(tmp_path / "a", copy, at=parse_moment(f"@{position}"), replica=f"new{position}")
            assert report.ok
            async with refold.open(copy) as restored, refold.open(peer) as other:
                await restored.define(PARTS)
                await restored.put("parts", {"no": "1", "place": "south", "note": "after"})
                await restored.sync(other)
                assert all_of_it < {event.dot async for event in restored.events()}
                assert await restored.digest() == await other.digest()
                assert (await restored.verify()).findings == []
            shutil.rmtree(peer)
            shutil.rmtree(copy)

    asyncio.run(work())


def live(root: Path, step: int) -> None:
    """A process that recovers, and ends by its own hand at the `step`th thing that it does to the disk or tells."""
    passed = 0

    def passing(*_: object) -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            passing()
            result = real(*arguments, **keywords)
            passing()
            return result

        setattr(owner, name, wrapped)

    for name in ("_prepare", "_publish", "sync_directory", "write_receipt", "discard"):
        wrap(building, name)
    wrap(Path, "rename")
    asyncio.run(recover([str(root / "a"), str(root / "b")], root / "new", replica="new", progress=passing))


def test_a_recovery_that_is_killed_leaves_the_archive_whole_or_not_at_all(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    sources = {name: bytes_under(tmp_path / name) for name in ("a", "b")}
    step, published = 1, False
    while True:
        status = reap(fork(partial(live, tmp_path, step), tmp_path / f"output-{step}"), 60)
        if status == 0:
            break
        assert status == signal.SIGKILL, (tmp_path / f"output-{step}").read_text()
        assert {name: bytes_under(tmp_path / name) for name in ("a", "b")} == sources
        if (tmp_path / "new").exists():
            published = True
            asyncio.run(_sound(tmp_path / "new"))
            shutil.rmtree(tmp_path / "new")
        step += 1
    assert step > 12 and published
    asyncio.run(_sound(tmp_path / "new"))
    assert not building.beside(tmp_path / "new").exists()


async def _sound(root: Path) -> None:
    assert (root / "refold-receipt.json").is_file()
    async with refold.open(root, create=False) as engine:
        assert engine.replica == "new"
        assert {name: seq for name, seq in (await engine.checkpoint()).vector.items() if name != "new"} == {
            "a": 6,
            "b": 5,
            "c": 5,
        }
        assert (await engine.verify()).findings == []


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_receipt", "_publish"):
        with monkeypatch.context() as patch:
            patch.setattr(building, name, full)
            with pytest.raises(StorageFailed):
                asyncio.run(recover([str(tmp_path / "a")], tmp_path / "new"))
        assert not (tmp_path / "new").exists()
    assert asyncio.run(recover([str(tmp_path / "a")], tmp_path / "new")).published
