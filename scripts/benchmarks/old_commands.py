"""The older tool's commands on plain folders: each a process, from the start of the interpreter to its end."""

from __future__ import annotations

import compileall
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import refold
import refold_adapters

from .measure import ROWS, Figures, Place, Row, measurement, preparation
from .workshop import fill

ORDERS = 1000
"""What the figures to reach are of."""

_REFOLD = [sys.executable, "-c", "from refold_adapters.cli import main; main()"]


@preparation("old-many")
def _prepare(place: Place) -> Figures:
    fill(place.prepared / "old-many" / "shop", 100 * ORDERS if place.sizes.folders > ORDERS else ORDERS)
    return {}


def _command(root: Path, words: Sequence[str]) -> Figures:
    """Runs a command that has to succeed: its seconds by the clock and by the processor, and its peak memory."""
    for package in (refold, refold_adapters):
        compileall.compile_dir(os.path.dirname(package.__file__ or ""), quiet=2)  # as installing does
    command = [*_REFOLD, *words, "--db", str(root / "werkstatt.db"), "--archive", str(root)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    elapsed = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"s": elapsed, "cpu": used.ru_utime + used.ru_stime, "mb": used.ru_maxrss / 1024}


def _without_files(root: Path) -> None:
    """Leaves the documents alone, as before a first export."""
    for name in ("data.csv", "meta.json"):
        for path in root.rglob(name):
            path.unlink()


def _without_table(root: Path) -> None:
    (root / "werkstatt.db").unlink()


def _one(place: Place, *, words: Sequence[str], before: Callable[[Path], None]) -> Figures:
    root = place.work / "shop"
    fill(root, ORDERS)
    before(root)
    return _command(root, words)


def _many(place: Place, *, words: Sequence[str]) -> Figures:
    return _command(place.prepared / "old-many" / "shop", [*words, *(["--dry-run"] if words[0] == "restore" else [])])


_WORKS: dict[str, tuple[str, Callable[[Path], None], float]] = {
    "export": ("export of 1,000 orders, none exported before", _without_files, 0.3),
    "export-again": ("export of 1,000 orders, none changed", lambda root: None, 0.3),
    "verify": ("verify of 1,000 orders", lambda root: None, 0.2),
    "restore": ("restore of 1,000 orders, the database lost", _without_table, 0.45),
}
_row = partial(Row, group="old commands", unit="s", figure="s", of="figure", least=False)
for _work, (_name, _before, _target) in _WORKS.items():
    measurement(f"old-{_work}")(partial(_one, words=[_work.partition("-")[0]], before=_before))
    ROWS.append(_row(name=_name, measurement=f"old-{_work}", target=_target))
    ROWS.append(_row(name=f"processor time, {_name}", measurement=f"old-{_work}", figure="cpu"))
for _work in ("export", "verify", "restore"):
    measurement(f"old-{_work}-many", needs=("old-many",), rounds=1)(partial(_many, words=[_work]))
    ROWS.append(
        _row(
            name=f"peak memory, {_work} of 100,000 orders",
            measurement=f"old-{_work}-many",
            figure="mb",
            unit="MB",
            target=150,
        )
    )
