"""Planted bugs in what makes writes survive: each of them is found by the campaign of kills, or by the order of calls.

A kill leaves what the kernel was given, synced or not, so the two bugs about syncing are looked for where they show: in
the system calls of a process, and in the order of the calls to the disk under the folders.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from refold.events import Checkpoint
from refold_adapters.folders import FolderReplicas, ReadTables
from refold_adapters.sqlite_log import SqliteLog

from .adapters.folders.world import ORDERS, PARTS, MortalDisk, World
from .crash.plants import PLANTS
from .test_crashes import ROOT, crash

FOUND = {
    "acknowledged before commit": ("before changelog: BEGIN", "acknowledged and lost"),
    "batches torn": ("changelog: COMMIT", r"\d+ of \d+ events are there"),
    "tables checkpoint before data": ("tables: BEGIN", r"the log has no|KeyError|table-missing|tables: .* is missing"),
    "folders checkpoint before data": ("folders: COMMIT,disk: write", "a replay elsewhere makes another"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_the_campaign_finds(plant: str) -> None:
    points, words = FOUND[plant]
    done = crash("--quick", "--kills", "60", "--seed", "canary", "--plant", plant, "--points", points)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(words, done.stdout), done.stdout


WRITES = """
import asyncio, sys, refold
from refold_adapters.sqlite_log import SqliteLog
from tests.crash.work import THINGS

async def main():
    async with refold.open(sys.argv[1], folders=False) as engine:
        if sys.argv[2] == "planted":
            engine._store._log._connection.execute("PRAGMA synchronous = OFF")
        await engine.define(THINGS)
        for n in range(20):
            await engine.put("things", {"id": str(n), "place": "here", "n": n})

asyncio.run(main())
"""


@pytest.mark.parametrize("planted", [False, True])
def test_every_acknowledged_write_was_synced(planted: bool, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    path = os.pathsep.join(str(ROOT / name) for name in ("engine", "adapters", "."))
    command = ["strace", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(tmp_path / "calls")]
    command += [sys.executable, "-c", WRITES, str(tmp_path / "archive"), "planted" if planted else "as it is"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)
    synced = (tmp_path / "calls").read_text().count("changelog.db-wal>) = 0")
    assert (synced >= 21) is not planted


class Recorded(FolderReplicas):
    """Folders that write down when they note how far they have come."""

    def watch(self, disk: MortalDisk) -> None:
        save = self._index.save_checkpoint

        def noted(checkpoint: Checkpoint) -> None:
            disk.done.append("checkpoint")
            save(checkpoint)

        setattr(self._index, "save_checkpoint", noted)  # noqa: B010


class Hasty(Recorded):
    """The planted bug: files get their names before they are durable."""

    def _write(self, rendered: list[Any]) -> Any:
        batch = super()._write(rendered)
        for coming in batch.coming:
            self._disk.publish(coming.place, coming.names)
        batch.coming = []
        return batch


class Trusting(Recorded):
    """The planted bug: what was renamed is noted without another sync."""

    def _advance(self, waiting: list[Any], synced: Any, noted: list[Any]) -> Any:
        noted = super()._advance(waiting, synced, noted)
        return super()._advance(waiting, synced, noted)


def hasty(calls: Sequence[str]) -> list[str]:
    """Calls that gave a name to what was not durable, or noted it."""
    unsynced: set[str] = set()
    found = []
    for call in calls:
        what, _, name = call.partition(" ")
        if what == "sync":
            unsynced.clear()
        elif (what == "publish" and name in unsynced) or (what == "checkpoint" and unsynced):
            found.append(call)
        if what in {"write", "stream", "append", "publish"}:
            unsynced.add(name)
    return found


@pytest.mark.parametrize(("kind", "wrong"), [(Recorded, ""), (Hasty, "publish"), (Trusting, "checkpoint")])
def test_files_are_durable_before_they_are_named_and_named_before_they_are_noted(
    kind: type[Recorded], wrong: str, tmp_path: Path
) -> None:
    world = World(tmp_path / "archive")
    world.define(ORDERS)
    world.define(PARTS)
    disk = MortalDisk(world.root, 1_000_000)
    log = SqliteLog(world.root / "changelog.db", readonly=True)
    replicas = kind(world.root, log, ReadTables(world.root / "tables.db", log), disk=disk, batch=3)
    replicas.watch(disk)
    for turn in range(3):
        for n in range(12):
            world.put("orders", {"id": str(n), "place": f"p{(n + turn) % 5}", "n": turn})
        world.follow(replicas)
    assert {call.partition(" ")[0] for call in hasty(disk.done)} == ({wrong} if wrong else set())
    replicas.close()
    world.close()
