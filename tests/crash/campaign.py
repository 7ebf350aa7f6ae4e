"""Chains of crashes: an archive is written by one process after the other, each of which is killed.

A process is forked from one that has loaded the product and opened nothing, which costs milliseconds instead of the
interpreter's start; those that `strace` kills at a system call are started whole. After a kill a fresh process opens
the archive and the model judges; now and then the next process comes first, so that a crash meets the repair of the
one before.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from .look import look
from .model import Model, Recovered
from .points import POINTS
from .work import Plan, live, read_report

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60
"""Seconds after which a process that has neither ended nor died hangs."""

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "rename", "mkdirat", "renameat", "unlinkat", "syncfs")
"""System calls at whose entry `strace` kills: those of SQLite and of the folders, under the names of any platform."""

MOMENT = "a random moment"
PATIENCE = 4


class Kill(msgspec.Struct):
    """Where a process died: a named point, a system call, or a moment, and at which passage (or after how long)."""

    point: str
    nth: int
    survived: bool = False


class Outcome(msgspec.Struct):
    """One chain: its kills, how often was looked, the events recovered, and the story when something was wrong."""

    chain: int
    kills: list[Kill] = []
    looks: int = 0
    events: int = 0
    complaints: list[str] = []
    story: list[str] = []


class Hung(Exception):
    """A process did not end."""


def reap(pid: int, seconds: float) -> int | None:
    """The wait status of a process that ends within so many seconds, else None."""
    descriptor = os.pidfd_open(pid)
    try:
        if not select.select([descriptor], [], [], seconds)[0]:
            return None
        return os.waitpid(pid, 0)[1]
    finally:
        os.close(descriptor)


def kill(pid: int) -> int:
    """Kills a process and waits for its end."""
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def fork(body: Callable[[], None], output: Path) -> int:
    """A child that does only this; what it prints, or dies of, is in `output`."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        body()
        status = 0
    except BaseException:  # noqa: BLE001 - a child that returned would be a second parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Chain:
    """One archive and the processes that follow each other on it."""

    def __init__(self, scratch: Path, seed: str, number: int, plant: str = "") -> None:
        self.random = random.Random(f"{seed}/{number}")
        self.outcome = Outcome(number)
        self.model = Model()
        self.scratch = scratch / f"chain-{number}"
        self.scratch.mkdir(parents=True)
        self.root = self.scratch / "archive-0"
        self.archives = 0
        self.round = 0
        self.plant = plant
        self.counts: dict[str, int] = {}
        self.indexed = True

    def plan(self, point: str, nth: int) -> Plan:
        draw = self.random
        self.round += 1
        remove = []
        if point.partition(" ")[2].startswith("tables: schema") or draw.random() < 0.15:
            remove.append("tables.db")
        if "folders: schema" in point or draw.random() < 0.15:
            remove.append("folders.db")
        self.indexed = self.indexed and "folders.db" not in remove
        return Plan(
            root=str(self.root),
            report=str(self.scratch / f"report-{self.round}"),
            counts=str(self.scratch / "counts"),
            seed=draw.getrandbits(60),
            round=self.round,
            remove=remove,
            rebuild=draw.random() < (1 if "rebuild" in point or "swap" in point else 0.1),
            verify="tables.verify" in point or draw.random() < 0.1,
            retry=self.model.unanswered(),
            point=point,
            nth=nth,
            plant=self.plant,
        )

    def run(self, plan: Plan, delay: float | None = None) -> tuple[bool, str]:
        """Runs a plan; whether it was killed, and what it said."""
        output = self.scratch / "output"
        Path(plan.counts).unlink(missing_ok=True)
        pid = fork(lambda: live(plan), output)
        status = reap(pid, LIMIT if delay is None else delay)
        if status is None:
            kill(pid)
            if delay is None:
                raise Hung(plan.point)
            status = signal.SIGKILL
        return self._ended(plan, status, output)

    def trace(self, plan: Plan, call: str, when: int) -> tuple[bool, str]:
        """Runs a plan under `strace`, which kills it at one of its system calls."""
        output, file = self.scratch / "output", self.scratch / "plan"
        file.write_bytes(msgspec.json.encode(plan))
        Path(plan.counts).unlink(missing_ok=True)
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        command += [
            "-e",
            f"inject={call}:signal=SIGKILL:when={when}",
            sys.executable,
            "-m",
            "tests.crash.work",
            str(file),
        ]
        path = os.pathsep.join(str(ROOT / name) for name in ("engine", "adapters", "."))
        with output.open("wb") as stream:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
                stdout=stream,
                stderr=stream,
                timeout=LIMIT,
                check=False,
            )
        return self._ended(plan, signal.SIGKILL if done.returncode == -signal.SIGKILL else done.returncode << 8, output)

    def _ended(self, plan: Plan, status: int, output: Path) -> tuple[bool, str]:
        killed = os.WIFSIGNALED(status)
        self.model.read(read_report(Path(plan.report)))
        self.outcome.story.append(
            f"round {plan.round}: removed {plan.remove}, rebuild {plan.rebuild}, verify {plan.verify},"
            f" {len(plan.retry)} retried; {'killed' if killed else 'ended'} at {plan.point or 'no point'} {plan.nth}"
        )
        if killed:
            return True, ""
        if status:
            self.outcome.complaints.append(f"round {plan.round} failed: {output.read_text()[-3000:]}")
        else:
            self.counts = msgspec.json.decode(Path(plan.counts).read_bytes(), type=dict[str, int])
        return False, output.read_text()

    def look(self) -> None:
        """Has a fresh process open the archive, and judges what it finds."""
        answer, output = self.scratch / "answer", self.scratch / "looked"
        answer.unlink(missing_ok=True)
        pid = fork(lambda: self._look(answer), output)
        status = reap(pid, LIMIT)
        self.outcome.looks += 1
        if status is None:
            kill(pid)
            raise Hung("opening after a crash")
        if status or not answer.exists():
            self.outcome.complaints.append(f"a fresh process failed: {output.read_text()[-3000:]}")
            return
        found = msgspec.msgpack.decode(answer.read_bytes(), type=Recovered)
        self.outcome.complaints += self.model.judge(found)
        self.outcome.events += len(found.bodies)
        self.outcome.story.append(f"looked: {len(found.bodies)} events, {len(self.outcome.complaints)} complaints")

    def _look(self, answer: Path) -> None:
        found = look(self.root, self.scratch / "elsewhere", indexed=self.indexed)
        answer.write_bytes(msgspec.msgpack.encode(found))

    def anew(self) -> None:
        """Goes on with another archive, for points that only an archive's creation passes."""
        if self.round:
            self.look()
        shutil.rmtree(self.root, ignore_errors=True)
        self.archives += 1
        self.root = self.scratch / f"archive-{self.archives}"
        self.model = Model()
        self.indexed = True

    def die(self, point: str, usual: int, *, traced: bool) -> None:
        """One kill, at a passage that is in reach: those that were out of it are tried again at an earlier one."""
        reach = max(1, usual)
        for _ in range(PATIENCE):
            if point.endswith("changelog: schema"):
                self.anew()
            nth = self.random.randint(1, reach)
            if traced:
                killed, _ = self.trace(self.plan("", 0), point, nth)
            elif point == MOMENT:
                killed, _ = self.run(self.plan("", 0), nth / 1000)
            else:
                killed, _ = self.run(self.plan(point, nth))
            self.outcome.kills.append(Kill(point, nth, survived=not killed))
            if killed or self.outcome.complaints:
                return
            reach = max(1, min(nth - 1, self.counts.get(point, nth - 1)))


def calibrate(scratch: Path, seed: str) -> dict[str, int]:
    """How often each point is passed by processes that are left alone. Raises when one is never passed."""
    chain = Chain(scratch, seed, -1)
    counts: Counter[str] = Counter()
    for name in ("", "tables: schema", "folders: schema", "tables.rebuild", "tables.verify"):
        wanted = f"before {name}"
        plan = chain.plan(wanted, 0)
        plan.rebuild = wanted == "before tables.rebuild"
        chain.run(plan)
        counts |= Counter(chain.counts)
        if chain.outcome.complaints:
            raise RuntimeError("\n".join(chain.outcome.complaints))
    missing = [point for point in POINTS if not counts[point]]
    if missing:
        raise RuntimeError(f"named points that no process passed: {missing}")
    chain.look()
    if chain.outcome.complaints:
        raise RuntimeError("\n".join(chain.outcome.complaints))
    shutil.rmtree(chain.scratch)
    return dict(counts)


def schedule(seed: str, kills: int, *, points: Sequence[str], traced: bool) -> list[str]:
    """Where to kill: every named point as often as the others, a fifth at random moments, a tenth at system calls."""
    draw = random.Random(seed)
    calls = [call for call in CALLS if traced]
    chosen: list[str] = []
    while len(chosen) < kills:
        lap = list(points)
        lap += [MOMENT] * (len(lap) // 5)
        lap += [draw.choice(calls) for _ in range(len(lap) // 10) if calls]
        draw.shuffle(lap)
        chosen += lap
    return chosen[:kills]


def run_chain(
    scratch: Path, seed: str, number: int, points: Sequence[str], usual: dict[str, int], plant: str = ""
) -> Outcome:
    """One archive and the kills of one chain on it, until something is wrong."""
    chain = Chain(scratch, seed, number, plant)
    outcome = chain.outcome
    for index, point in enumerate(points):
        try:
            chain.die(point, 300 if point == MOMENT else usual.get(point, 40), traced=point in CALLS)
            if not outcome.complaints and (index == len(points) - 1 or chain.random.random() < 0.7):
                chain.look()
        except (Hung, subprocess.TimeoutExpired) as error:
            outcome.complaints.append(f"hung: {error}")
        if outcome.complaints:
            return outcome
    shutil.rmtree(chain.scratch)
    return outcome


def chains(points: Sequence[str], length: int = 6) -> Iterator[list[str]]:
    """The schedule cut into chains."""
    for start in range(0, len(points), length):
        yield list(points[start : start + length])
