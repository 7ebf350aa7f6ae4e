"""Power that fails: an operation is led once and written down, and then every prefix of it is a disk to start from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from .cases import Case
from .filesystem import Change, Disk, Mark, Model, Node, fingerprint, read_trace, write_tree
from .judge import Said, read
from .stage import Stage

MODELS: tuple[Model, ...] = ("free", "ordered")
KEEPS = (0.0, 1.0, 0.5)
"""How many unsynced changes there are: none, all, or some, of which the writes may be torn."""


class Crash(msgspec.Struct, frozen=True):
    """Before which step of which case the power fails, in which model, and what is left to chance."""

    case: str
    step: int
    model: Model
    keep: float
    seed: int

    def __str__(self) -> str:
        return f"{self.case}:{self.step}:{self.model}:{self.keep}:{self.seed}"


class Lost(msgspec.Struct):
    """A crash that was judged."""

    crash: str
    complaints: list[str]


def parse(text: str) -> Crash:
    """The crash that `str` spelled."""
    case, step, model, keep, seed = text.split(":")
    return Crash(case, int(step), msgspec.convert(model, Model), float(keep), int(seed))


def record(stage: Stage, case: Case, file: Path) -> Disk:
    """The trace of a case that nothing disturbs, which is also kept in a file, for `recorded`."""
    place = stage.place(case)
    disk = Disk(place)
    outcome = stage.lead(case, place, lambda: stage.shim.trace(place, file), lambda: None)
    if outcome.complaints or outcome.said.errors:
        raise AssertionError(f"{case.name} without a fault: {outcome}")
    disk.replay(list(read_trace(file.read_bytes())))
    stage.clear(place)
    _disks[file] = disk
    return disk


_disks: dict[Path, Disk] = {}


def recorded(file: Path) -> Disk:
    """What this process, or the one that it was forked from, recorded."""
    return _disks[file]


def plan(case: Case, disk: Disk, draw: random.Random, limit: int, models: Sequence[Model] = MODELS) -> list[Crash]:
    """Crashes of a case: after acknowledgements with nothing kept that need not be, and spread over all steps, half of
    them soon after a name was changed."""
    steps = [index + 1 for index, step in enumerate(disk.steps) if isinstance(step, Change)]
    names = [index + 1 for index, step in enumerate(disk.steps) if isinstance(step, Change) and step.kind == "names"]
    told = [index + 1 for index, step in enumerate(disk.steps) if isinstance(step, Mark) and step.text[0] == "!"]
    crashes = [Crash(case.name, step, model, 0.0, 0) for step in [*told, len(disk.steps)] for model in models]
    draw.shuffle(crashes)
    del crashes[max(1, limit // 3) :]
    while len(crashes) < limit and steps:
        step = (
            draw.choice(steps) if not names or draw.random() < 0.5 else draw.choice(names) + draw.choice((0, 0, 1, 3))
        )
        keep = draw.choice([*KEEPS, 0.5, 0.8])
        crashes.append(Crash(case.name, min(step, len(disk.steps)), draw.choice(models), keep, draw.getrandbits(32)))
    return crashes


def every(case: Case, disk: Disk, draw: random.Random) -> Iterator[Crash]:
    """Crashes before each step: with none, all and some of what is not durable, in both models."""
    for step in range(1, len(disk.steps) + 1):
        for model in MODELS:
            for keep in KEEPS:
                yield Crash(case.name, step, model, keep, draw.getrandbits(32))


def _left(disk: Disk, crash: Crash) -> tuple[Node, Said]:
    tree = disk.crash(crash.step, crash.model, random.Random(crash.seed), crash.keep)
    return tree, read([mark.text for mark in disk.steps[: crash.step] if isinstance(mark, Mark)])


def unlike(disk: Disk, crashes: Iterable[Crash]) -> Iterator[Crash]:
    """Those of the crashes that leave a disk which none before them leaves."""
    seen = set()
    for crash in crashes:
        tree, said = _left(disk, crash)
        known = fingerprint(tree), len(said.acknowledged), len(said.attempted)
        if known not in seen:
            seen.add(known)
            yield crash


def lose(stage: Stage, case: Case, disk: Disk, crash: Crash) -> Lost:
    """Lets the power fail, and judges."""
    tree, said = _left(disk, crash)
    place = stage.fresh()
    write_tree(tree, place)
    complaints = stage.judged(case, place, said)
    if not complaints:
        stage.clear(place)
    return Lost(str(crash), complaints)
