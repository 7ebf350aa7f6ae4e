"""Processes that are killed in the middle of a session: what was taken in stays, and the next session goes on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

import refold
from refold import Collection, Field
from refold_adapters.share import side as share_side

from .crash.campaign import fork, kill, reap

NOTES = Collection(
    name="notes", key="id", folder="{a}", fields={"id": Field("str"), "a": Field("str", null=True), "n": Field("int")}
)


async def fill(root: Path, name: str, groups: int, *, define: bool) -> None:
    """An archive with groups of records that were written together; a group is told by its number."""
    async with refold.open(root / name, replica=name) as engine:
        if define:
            await engine.define(NOTES)
        else:
            async with refold.open(root / "a") as other:
                await engine.sync(other)
        for group in range(groups):
            async with engine.batch() as batch:
                for n in range(7):
                    batch.put("notes", {"id": f"{name}-{group}-{n}", "a": f"f{group % 5}", "n": group})


async def meet(root: Path, peer: str, last: int) -> None:
    """A session that ends this process when progress has been told so many times; 0 lets it live."""
    told = 0

    def tell(what: str, done: int) -> None:
        nonlocal told
        told += 1
        if told == last:
            os.kill(os.getpid(), signal.SIGKILL)

    async with refold.open(root / "b") as engine:
        await engine.sync(peer, progress=tell)


def live(root: Path, peer: str, last: int) -> None:
    """The whole life of a process that syncs."""
    asyncio.run(meet(root, peer, last))


async def judge(root: Path, name: str) -> tuple[str, int]:
    """The digest and position of an archive that a crash left: it verifies, and every group in it is whole."""
    async with refold.open(root / name) as engine:
        await engine.settled()
        assert (await engine.verify()).findings == []
        groups: dict[str, int] = {}
        async for event in engine.events():
            if event.key:
                group = event.key.rpartition("-")[0]
                groups[group] = groups.get(group, 0) + 1
        assert set(groups.values()) <= {7}, groups
        return await engine.digest(), engine.position


async def both(root: Path, peers: list[str]) -> tuple[set[str], set[int]]:
    """What both archives hold after they have met undisturbed."""
    async with refold.open(root / "b") as engine:
        for peer in peers:
            await engine.sync(peer)
    if peers[0].startswith("dir:"):
        async with refold.open(root / "a") as engine:
            await engine.sync(peers[0])
        async with refold.open(root / "b") as engine:
            await engine.sync(peers[0])
    found = [await judge(root, name) for name in ("a", "b")]
    return {digest for digest, _ in found}, {position for _, position in found}


@pytest.mark.parametrize("over", ["path", "share"])
def test_a_session_that_is_killed_leaves_both_sides_sound(
    tmp_path: Path, over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_side, "SEGMENT_EVENTS", 100)
    draw = random.Random(over)
    (tmp_path / "share").mkdir()
    asyncio.run(fill(tmp_path, "a", 250, define=True))
    asyncio.run(fill(tmp_path, "b", 250, define=False))
    peer = str(tmp_path / "a") if over == "path" else f"dir://{tmp_path / 'share'}"
    if over == "share":
        asyncio.run(_publish(tmp_path, peer))
    killed = 0
    for turn in range(8):
        pid = fork(partial(live, tmp_path, peer, turn + 1 if turn < 3 else 0), tmp_path / f"output-{turn}")
        status = reap(pid, 60 if turn < 3 else draw.uniform(0.05, 0.5))
        if status is None:
            status = kill(pid)  # it may have ended just now
            assert status in {0, signal.SIGKILL}
        killed += status == signal.SIGKILL
        if status != signal.SIGKILL:
            assert status == 0, (tmp_path / f"output-{turn}").read_text()
        for name in ("a", "b"):
            asyncio.run(judge(tmp_path, name))
    assert killed
    digests, positions = asyncio.run(both(tmp_path, [peer]))
    assert len(digests) == 1 and positions == {1 + 7 * 500}


async def _publish(root: Path, peer: str) -> None:
    async with refold.open(root / "a") as engine:
        await engine.sync(peer)
