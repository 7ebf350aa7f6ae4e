"""Backups of many folders, beside restic and borg where these are installed; of a large log, full and incremental."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import refold
from refold_adapters import backup as store

from .measure import ROWS, Figures, Place, Row, measurement, preparation
from .record import NAME, record

NOW = 1_800_000_000_000
CHANGES = 100


def _quiet(what: str, done: int) -> None:
    del what, done


def _create(
    root: Path, directory: Path, *, incremental: bool = False, secret: store.Secret | None = None
) -> store.Known:
    order = store.Order(incremental=incremental, secret=secret)
    return store.create(root, directory, order, now=NOW, salt=bytes(16), tell=_quiet).backup


def _tree(place: Place) -> Path:
    """The folders with their files: what the others back up, and what refold's backup brings back."""
    return place.prepared / "backups" / "tree"


@preparation("backups")
def _prepare(place: Place) -> Figures:
    """The folders without databases, and a backup of each kind of what is measured."""
    base = place.prepared / "backups"
    full = place.prepared / "folders" / "full"
    shutil.copytree(full, _tree(place), ignore=shutil.ignore_patterns("*.db*"))
    _create(full, base / "refold")
    for tool in TOOLS:
        if shutil.which(tool) is not None:
            _tool(tool, "create", base / tool, _tree(place))
    return {}


@preparation("backups-large")
def _prepare_large(place: Place) -> Figures:
    """A copy of the large log with a full backup of it, and a hundred changes after that."""
    base = place.prepared / "backups-large"
    root = base / "archive"
    shutil.copytree(place.prepared / "large", root)
    _create(root, base / "backups")

    async def change() -> None:
        async with refold.open(root, folders=False) as engine:
            for number in range(CHANGES):
                await engine.patch(NAME, record(number)["record_id"], {"bemerkung": f"changed {number}"})

    asyncio.run(change())
    return {}


def _environment() -> dict[str, str]:
    return {**os.environ, "RESTIC_PASSWORD": "bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}


def _commands(tool: str, work: str, store_: Path, tree: Path) -> list[list[str]]:
    if tool == "restic":
        restic = ["restic", "-q", "--no-cache", "-r", str(store_)]
        return {
            "create": [[*restic, "init"], [*restic, "backup", "."]],
            "verify": [[*restic, "check", "--read-data"]],
            "restore": [[*restic, "restore", "latest", "--target", "."], ["sync", "-f", "."]],
        }[work]
    del tree
    borg = str(store_)
    return {
        "create": [["borg", "init", "-e", "none", borg], ["borg", "create", "-C", "zlib,6", f"{borg}::a", "."]],
        "verify": [["borg", "check", "--verify-data", borg]],
        "restore": [["borg", "extract", f"{borg}::a"], ["sync", "-f", "."]],
    }[work]


TOOLS = ("restic", "borg")


def _tool(tool: str, work: str, store_: Path, where: Path) -> float:
    """Runs a tool's commands in a directory; how long the last ones took, without the making of an empty store."""
    elapsed = 0.0
    for command in _commands(tool, work, store_, where):
        start = time.perf_counter()
        subprocess.run(command, cwd=where, env=_environment(), check=True, stdout=subprocess.DEVNULL)
        elapsed += time.perf_counter() - start if "init" not in command else 0
    return elapsed


def _beside(place: Place, *, tool: str, work: str) -> Figures:
    """The same with another tool."""
    if shutil.which(tool) is None:
        sys.exit(f"skipped: {tool} is not installed")
    if work == "create":
        elapsed = _tool(tool, work, place.work / "store", _tree(place))
    else:
        where = place.work / "out"
        where.mkdir()
        elapsed = _tool(tool, work, place.prepared / "backups" / tool, where)
    return {"rate": place.sizes.folders / elapsed}


def _backup(place: Place) -> Path:
    return next((place.prepared / "backups" / "refold").glob("*.zip"))


def _creating(place: Place, *, secret: store.Secret | None = None) -> Figures:
    start = time.perf_counter()
    known = _create(place.prepared / "folders" / "full", place.work / "backups", secret=secret)
    elapsed = time.perf_counter() - start
    return {"rate": place.sizes.folders / elapsed, "mb": known.size / 1e6}


def _verifying(place: Place) -> Figures:
    path = _backup(place)
    start = time.perf_counter()
    history = store.read_history(path.parent)
    report = store.verify([path], history, whole=False, secret=lambda: None, tell=_quiet)
    elapsed = time.perf_counter() - start
    assert report.ok, report.findings[:3]
    return {"rate": place.sizes.folders / elapsed}


def _restoring(place: Place) -> Figures:
    start = time.perf_counter()
    report = asyncio.run(store.restore_backup(_backup(place), place.work / "archive"))
    elapsed = time.perf_counter() - start
    assert report.ok, report.findings[:3]
    return {"rate": place.sizes.folders / elapsed}


def _incremental(place: Place) -> Figures:
    directory = place.work / "backups"
    shutil.copytree(place.prepared / "backups-large" / "backups", directory)
    start = time.perf_counter()
    known = _create(place.prepared / "backups-large" / "archive", directory, incremental=True)
    elapsed = time.perf_counter() - start
    assert (known.kind, known.events) == ("incremental", CHANGES), known
    return {"ms": elapsed * 1000}


def _large(place: Place) -> Figures:
    start = time.perf_counter()
    known = _create(place.prepared / "large", place.work / "backups")
    return {"rate": (known.events or 0) / (time.perf_counter() - start)}


_WORKS: dict[str, tuple[str, Callable[[Place], Figures]]] = {
    "create": ("backup of folders", _creating),
    "verify": ("verify of a backup of folders", _verifying),
    "restore": ("restore of folders, tables and log from a backup", _restoring),
}
for _work, (_name, _measure) in _WORKS.items():
    measurement(f"backup-{_work}", needs=("folders", "backups"), rounds=3)(_measure)
    for _other in TOOLS:
        measurement(f"{_other}-{_work}", needs=("folders", "backups"), rounds=3)(
            partial(_beside, tool=_other, work=_work)
        )
        ROWS.append(
            Row(
                group="backups",
                name=f"{_name}, beside {_other}",
                measurement=f"backup-{_work}",
                raw=f"{_other}-{_work}",
                unit="folders/s",
            )
        )
measurement("backup-sealed", needs=("folders", "backups"), rounds=3)(
    partial(_creating, secret=store.Secret("key-file", bytes(range(32))))
)
measurement("backup-large", needs=("large", "large-tables"), rounds=1)(_large)
measurement("backup-incremental", needs=("large", "large-tables", "backups-large"), rounds=3)(_incremental)

ROWS += [
    Row(group="backups", name="backup of folders, encrypted", measurement="backup-sealed", unit="folders/s"),
    Row(group="backups", name="backup of the large log", measurement="backup-large"),
    Row(
        group="backups",
        name="peak memory, backup of the large log",
        measurement="backup-large",
        figure="peak_mb",
        unit="MB",
        target=150,
        of="figure",
        least=False,
    ),
    Row(
        group="backups",
        name=f"incremental backup of the large log after {CHANGES} changes",
        measurement="backup-incremental",
        figure="ms",
        unit="ms",
        target=1000,
        of="figure",
        least=False,
    ),
]
