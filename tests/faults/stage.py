"""Where cases are led: each experiment is a copy of one place, an operation in a child process, and a judge in another.

The process that leads them has the product loaded and opens nothing itself, so a child costs milliseconds.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from refold import RefoldError
from tests.crash.campaign import fork, kill, reap

from .cases import CASES, Case, Report, edit, prepare
from .judge import Said, judge, read
from .shim import Shim

LIMIT = 60
"""Seconds after which a process hangs."""


class Failed(Exception):
    """What was to be done before any fault could not be done."""


class Outcome(msgspec.Struct):
    """One experiment: what was told to the caller, and everything that was wrong."""

    said: Said
    complaints: list[str]


def operate(case: Case, place: Path, report: Report) -> None:
    """Does the operation, and says the code of the error that ends it. Raises what is no error of ours."""
    try:
        asyncio.run(case.act(place, report))
    except RefoldError as error:
        report.say(f"x {error.code}" if error.hint and str(error) else f"x no hint: {error!r}")


class Stage:
    """A directory for experiments; `base`, made where it is not there yet, is what all of them begin with."""

    def __init__(self, scratch: Path, base: Path, shim: Shim, plant: Callable[[], None] | None = None) -> None:
        self.scratch = scratch
        self.base = base
        self.shim = shim
        self._plant = plant
        self._number = 0
        scratch.mkdir()
        if not base.exists() and (complaint := self._child(lambda: prepare(base))):
            raise Failed(f"preparing: {complaint}")

    def _child(self, body: Callable[[], None], *, mortal: bool = False) -> str:
        output = self.scratch / "output"
        pid = fork(body, output)
        status = reap(pid, LIMIT)
        if status is None:
            kill(pid)
            return f"it hangs: {output.read_text()[-2000:]}"
        if mortal and status == signal.SIGKILL:
            return ""
        return f"it ended with {status}: {output.read_text()[-3000:]}" if status else ""

    def fresh(self) -> Path:
        """A path where an experiment can stand."""
        self._number += 1
        return self.scratch / f"place-{self._number}"

    def place(self, case: Case, within: Path | None = None) -> Path:
        """A fresh copy of what the case begins with, `within` another file system if there is one."""
        place = self.fresh() if within is None else within / self.fresh().name
        shutil.copytree(self.base, place)
        if case.loses:
            for side in ("", "-wal"):
                (place / "archive" / f"changelog.db{side}").unlink(missing_ok=True)
        if case.edits:
            edit(place / "archive")
        return place

    def lead(
        self, case: Case, place: Path, arm: Callable[[], None], after: Callable[[], None], *, mortal: bool = False
    ) -> Outcome:
        """The operation with the shim armed in its process; `after` is done there too. What it said, not yet judged.

        A `mortal` process may be killed.
        """
        file = self.scratch / f"{place.name}-report"

        def body() -> None:
            if self._plant is not None:
                self._plant()
            report = Report(file, self.shim)
            arm()
            try:
                operate(case, place, report)
            finally:
                self.shim.stop()
                after()

        complaint = self._child(body, mortal=mortal)
        said = read(file.read_text().splitlines() if file.exists() else [])
        complaints = [f"no error of ours: {complaint}"] if complaint else []
        complaints += [f"an error without a hint: {code}" for code in said.errors if code.startswith("no hint")]
        return Outcome(said, complaints)

    def judged(self, case: Case, place: Path, said: Said) -> list[str]:
        """Everything that is wrong at a place, found by a process of its own."""
        answer = self.scratch / f"{place.name}-answer"

        def body() -> None:
            answer.write_bytes(msgspec.json.encode(judge(case, place, self.base, said)))

        if complaint := self._child(body):
            return [f"the judge failed: {complaint}"]
        return msgspec.json.decode(answer.read_bytes(), type=list[str])

    def clear(self, place: Path) -> None:
        """Removes an experiment."""
        for path in [*self.scratch.glob(f"{place.name}*"), *place.parent.glob(f"{place.name}*")]:
            if path.name == place.name or path.name.startswith(f"{place.name}-"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def chosen(names: str) -> list[Case]:
    """Cases by their names, with commas between; all, when none is named."""
    return [CASES[name] for name in names.split(",")] if names else list(CASES.values())
