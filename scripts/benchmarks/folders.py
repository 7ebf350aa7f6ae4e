"""Folders: writing them all again from the log, beside `tar` and `sync`; verifying them, beside `sha256sum`."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import refold
from refold_adapters.folders import FolderReplicas, ReadTables
from refold_adapters.sqlite_log import SqliteLog

from .measure import ROWS, Figures, Place, Row, measurement, preparation
from .record import SINGLE
from .replays import write_log


async def _settle(root: Path, *, folders: bool) -> float:
    start = time.perf_counter()
    async with refold.open(root, folders=folders) as engine:
        await engine.settled()
        return time.perf_counter() - start


@preparation("folders")
def _prepare(place: Place) -> Figures:
    """A log and its tables in `bare`, the same with folders in `full`, and these folders as a tar file."""
    base = place.prepared / "folders"
    bare, full = base / "bare", base / "full"
    bare.mkdir(parents=True)
    write_log(bare / "changelog.db", place.sizes.folders, SINGLE)
    asyncio.run(_settle(bare, folders=False))
    shutil.copytree(bare, full)
    asyncio.run(_settle(full, folders=True))
    command = ["tar", "-C", str(full), "--exclude", "*.db*", "-cf", str(base / "tree.tar"), "."]
    subprocess.run(command, check=True)
    return {}


def _tar(place: Place) -> Figures:
    start = time.perf_counter()
    subprocess.run(["tar", "-C", str(place.work), "-xf", str(place.prepared / "folders" / "tree.tar")], check=True)
    subprocess.run(["sync", "-f", str(place.work)], check=True)
    return {"rate": place.sizes.folders / (time.perf_counter() - start)}


def _rebuild(place: Place) -> Figures:
    root = place.work / "archive"
    shutil.copytree(place.prepared / "folders" / "bare", root)
    elapsed = asyncio.run(_settle(root, folders=True))
    return {"rate": place.sizes.folders / elapsed}


for _slow in (False, True):
    _end = "-slow" if _slow else ""
    measurement(f"tar{_end}", needs=("folders",), slow=_slow, rounds=3)(_tar)
    measurement(f"rebuild{_end}", needs=("folders",), slow=_slow, rounds=3)(_rebuild)
    ROWS.append(
        Row(
            group="rebuild",
            name=f"rebuild of folders{', fsync + 1 ms' if _slow else ''}, beside tar x + sync",
            measurement=f"rebuild{_end}",
            raw=f"tar{_end}",
            unit="folders/s",
            target=8_000 if _slow else 10_000,
            of="figure",
        )
    )


@measurement("sha256sum", needs=("folders",))
def _hash(place: Place) -> Figures:
    find = "find . -type f ! -name '*.db*' -print0 | xargs -0 sha256sum > /dev/null"
    start = time.perf_counter()
    subprocess.run(["sh", "-c", find], cwd=place.prepared / "folders" / "full", check=True)
    return {"rate": place.sizes.folders / (time.perf_counter() - start)}


@measurement("verify-folders", needs=("folders",))
def _verify(place: Place) -> Figures:
    root = place.prepared / "folders" / "full"
    log = SqliteLog(root / "changelog.db", readonly=True)
    replicas = FolderReplicas(root, log, ReadTables(root / "tables.db", log))
    start = time.perf_counter()
    findings = replicas.verify()
    elapsed = time.perf_counter() - start
    replicas.close()
    assert not findings, findings[:3]
    return {"rate": place.sizes.folders / elapsed}


async def _whole(root: Path) -> float:
    async with refold.open(root) as engine:
        await engine.settled()
        start = time.perf_counter()
        report = await engine.verify()
        elapsed = time.perf_counter() - start
    assert report.ok, report.findings[:3]
    return elapsed


def _verify_all(place: Place) -> Figures:
    return {"rate": place.sizes.folders / asyncio.run(_whole(place.prepared / "folders" / "full"))}


measurement("verify-all", needs=("folders",))(partial(_verify_all))

ROWS += [
    Row(
        group="verify",
        name="verify of folders, beside find and sha256sum",
        measurement="verify-folders",
        raw="sha256sum",
        unit="folders/s",
        target=1,
    ),
    Row(
        group="verify",
        name="verify of log, tables and folders, beside the same",
        measurement="verify-all",
        raw="sha256sum",
        unit="folders/s",
    ),
]
