"""What is measured and how: every measurement runs alone in a process of its own, and returns named figures.

A measurement is a function of its work directory and `Sizes`, registered by name. Processes keep one measurement's
heap, caches and threads out of the next, give each its own peak memory, and allow the library that slows every fsync
down to be preloaded into some of them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

Figures = Mapping[str, float]


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured: events or folders by kind of work."""

    commits: int = 20_000
    slow_commits: int = 500
    one: int = 5_000
    many: int = 60_000
    batches: int = 60_000
    replay: int = 100_000
    large: int = 1_000_000
    folders: int = 10_000
    sync: int = 100_000
    apart: int = 50_000
    documents: int = 100_000
    pushes: int = 10_000


QUICK = Sizes(
    commits=3_000,
    slow_commits=200,
    one=1_000,
    many=10_000,
    batches=10_000,
    replay=20_000,
    large=60_000,
    folders=1_000,
    sync=20_000,
    apart=5_000,
    documents=5_000,
    pushes=2_000,
)


class Place(msgspec.Struct, frozen=True):
    """Where a measurement works: a new directory of its own, and the directory of what was prepared for all."""

    work: Path
    prepared: Path
    sizes: Sizes


class Measurement(msgspec.Struct, frozen=True):
    """One thing that can be timed, and what must have been prepared for it."""

    name: str
    run: Callable[[Place], Figures]
    needs: tuple[str, ...] = ()
    slow: bool = False
    rounds: int = 100


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: a figure of a measurement, beside the same figure of a raw one.

    `target` is what to reach: of the ratio if `of` is "ratio", of the figure itself if it is "figure". `least` says
    whether more is better. A row without a target is told for information.
    """

    group: str
    name: str
    measurement: str
    raw: str | None = None
    figure: str = "rate"
    raw_figure: str = "rate"
    unit: str = "events/s"
    target: float | None = None
    of: str = "ratio"
    least: bool = True


MEASUREMENTS: dict[str, Measurement] = {}
PREPARATIONS: dict[str, Callable[[Place], Figures]] = {}
ROWS: list[Row] = []


def measurement(
    name: str, *, needs: tuple[str, ...] = (), slow: bool = False, rounds: int = 100
) -> Callable[[Callable[[Place], Figures]], Callable[[Place], Figures]]:
    """Registers a function as a measurement; also several times, under different names."""

    def register(function: Callable[[Place], Figures]) -> Callable[[Place], Figures]:
        MEASUREMENTS[name] = Measurement(name, function, needs, slow, rounds)
        return function

    return register


def preparation(name: str) -> Callable[[Callable[[Place], Figures]], Callable[[Place], Figures]]:
    """Registers a function that fills `prepared / name` once, for measurements that need it."""

    def register(function: Callable[[Place], Figures]) -> Callable[[Place], Figures]:
        PREPARATIONS[name] = function
        return function

    return register


def run_here(name: str, place: Place) -> dict[str, float]:
    """Runs a measurement or a preparation in this process; its figures and the peak memory in MB."""
    function = PREPARATIONS.get(name) or MEASUREMENTS[name].run
    figures = dict(function(place))
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


class Failed(Exception):
    """A measurement ended with an error, the last line of which is the message."""


class Runner:
    """Starts the processes; `script` is what they run."""

    def __init__(self, script: Path, scratch: Path, *, quick: bool) -> None:
        self.scratch = scratch
        self._script = script
        self._quick = quick
        self._prepared: dict[str, str | None] = {}
        self._count = 0
        self._library: Path | None = None

    def slow_library(self) -> Path | None:
        """The compiled library that slows fsync down, or None where there is no C compiler."""
        if self._library is None:
            compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
            if compiler is None or not sys.platform.startswith("linux"):
                return None
            source = Path(__file__).with_name("slow_fsync.c")
            self._library = self.scratch / "slow_fsync.so"
            command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"]
            subprocess.run(command, check=True)
        return self._library

    def run(self, name: str) -> dict[str, float]:
        """Runs a measurement in a process of its own, after what it needs was prepared. Raises `Failed`."""
        found = MEASUREMENTS[name]
        for need in found.needs:
            if need not in self._prepared:
                try:
                    self._start(need, slow=False)
                    self._prepared[need] = None
                except Failed as error:
                    self._prepared[need] = str(error)
            if self._prepared[need] is not None:
                raise Failed(f"preparing {need}: {self._prepared[need]}")
        return self._start(name, slow=found.slow)

    def _start(self, name: str, *, slow: bool) -> dict[str, float]:
        self._count += 1
        work = self.scratch / f"{self._count:04d}-{name}"
        work.mkdir(parents=True)
        environment = dict(os.environ)
        if slow:
            library = self.slow_library()
            if library is None:
                raise Failed("skipped: it takes Linux and a C compiler (cc) to slow fsync down")
            environment["LD_PRELOAD"] = str(library)
        command = [sys.executable, str(self._script), "--child", name, str(work), str(self.scratch / "prepared")]
        os.sync()
        done = subprocess.run(
            command + (["--quick"] if self._quick else []), env=environment, capture_output=True, text=True, check=False
        )
        for file in work.iterdir():
            # Folders stay until the end: deleting thousands of files slows the disk for those that follow.
            if file.is_file():
                file.unlink()
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise Failed(lines[-1][:300])
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures
