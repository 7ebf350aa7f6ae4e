"""Processes that die, or have no more room, while they make, remove or bring back backups.

Every call that changes what is on the disk is a point. A child is killed at the first, the next at the second, until
one comes to its end: so each is a moment at which somebody died, and what it left is looked at and gone on from.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import refold
from refold.errors import StorageFailed
from refold_adapters import backup as store
from refold_adapters.backup import places
from tests.crash.campaign import fork, reap

from .world import NOW, World, quiet

Work = Callable[[], None]


class _Killer:
    """Ends this process at the chosen passage of any point."""

    def __init__(self, last: int) -> None:
        self.left = last

    def watch(self, owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            self.passing()
            result = call(*arguments, **keywords)
            self.passing()
            return result

        setattr(owner, name, watched)

    def passing(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def dying(work: Work, last: int) -> None:
    """Does the work in this process, which it may not outlive."""
    killer = _Killer(last)
    killer.watch(places.Growing, "write")
    for name in ("replace", "unlink", "rename"):
        killer.watch(Path, name)
    killer.watch(os, "fsync")
    work()


def create(root: Path, **options: Any) -> None:
    """Makes a backup, an hour after those that are there."""
    made = len(store.read_history(root / "backups").backups)
    order = store.Order(**options)
    now = NOW + 3_600_000 * (1 + made)
    store.create(root / "a", root / "backups", order, now=now, salt=bytes(16), tell=quiet)


def prune(root: Path) -> None:
    """Removes all but the newest and what that needs."""
    policy = store.Policy(last=1)
    store.prune(root / "backups", policy, dry_run=False, now=NOW, secret=lambda: None, tell=quiet)


def restore(root: Path) -> None:
    """Brings the newest back in `b`."""
    history = store.read_history(root / "backups")
    path = root / "backups" / store.newest(history).file
    asyncio.run(store.restore_backup(path, root / "b"))


def verified(root: Path) -> store.History:
    """What is there, all of it in order, and nothing that is half."""
    directory = root / "backups"
    history = store.read_history(directory)
    paths = [directory / known.file for known in history.backups]
    report = store.verify(paths, history, whole=True, secret=lambda: None, tell=quiet)
    assert report.findings == []
    return history


def deaths(work: Work, look: Callable[[], object], place: Path) -> int:
    """Kills a child at every point of the work, and looks each time; how many died before one came through."""
    for last in range(1, 500):
        status = reap(fork(partial(dying, work, last), place), 60)
        look()
        if status == 0:
            return last - 1
        assert status == signal.SIGKILL, place.read_text()
    raise AssertionError("no child came to its end")


def fill(tmp_path: Path, notes: int = 200) -> World:
    world = World(tmp_path)
    asyncio.run(world.write(0, notes))
    return world


@pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
def test_a_backup_is_there_whole_or_not_at_all(tmp_path: Path, incremental: bool) -> None:
    world = fill(tmp_path)
    create(tmp_path)
    asyncio.run(world.write(200, 260))
    before = verified(tmp_path).backups
    found: list[int] = []

    def look() -> None:
        history = verified(tmp_path)
        assert history.backups[:1] == before
        found.append(len(history.backups))

    died = deaths(partial(create, tmp_path, incremental=incremental), look, tmp_path / "output")
    assert died >= 12
    assert found[0] == 1 and found[-1] > found[0] and found == sorted(found)
    assert {path.name for path in world.directory.iterdir() if path.name.startswith(".")} == set()


def test_what_is_kept_never_loses_what_it_goes_on_from(tmp_path: Path) -> None:
    world = fill(tmp_path, 20)
    for turn in range(3):
        create(tmp_path)
        for step in range(2):
            asyncio.run(world.write(100 * turn + 10 * step, 100 * turn + 10 * step + 3))
            create(tmp_path, incremental=True)
    newest = store.newest(verified(tmp_path))
    counts: list[int] = []

    def look() -> None:
        history = verified(tmp_path)
        assert store.newest(history) == newest
        counts.append(len(history.backups))

    assert deaths(partial(prune, tmp_path), look, tmp_path / "output") >= 5
    assert counts[-1] == 3 and counts == sorted(counts, reverse=True) and len(set(counts)) > 2


def test_a_restore_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    fill(tmp_path, 30)
    create(tmp_path)
    known = store.newest(verified(tmp_path))
    target = tmp_path / "b"

    def look() -> None:
        if target.exists():
            assert asyncio.run(_digest(target)) == known.digest
            for path in sorted(target.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            target.rmdir()

    assert deaths(partial(restore, tmp_path), look, tmp_path / "output") >= 4


async def _digest(root: Path) -> str:
    """The digest that the copy says it was made of, once all of it verifies."""
    async with refold.open(root, create=False) as engine:
        assert (await engine.verify()).ok
        (note,) = [event async for event in engine.events() if event.kind == "restore"]
    (made,) = note.data.values()
    return str(made["digest"])


@pytest.mark.parametrize("room", [0, 1000, 5000])
def test_a_disk_that_is_full_leaves_no_half_backup(tmp_path: Path, room: int) -> None:
    fill(tmp_path, 400)
    create(tmp_path)
    before = verified(tmp_path).backups

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        with pytest.raises(StorageFailed):
            create(tmp_path)

    assert reap(fork(limited, tmp_path / "output"), 60) == 0, (tmp_path / "output").read_text()
    history = verified(tmp_path)
    assert (history.backups, history.stale) == (before, False)
    assert not [path for path in (tmp_path / "backups").iterdir() if path.name.endswith(".partial")]
