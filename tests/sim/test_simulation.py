"""The short form of `scripts/simulate`: the same runs every time, in parts that the workers of a test run share.

`REFOLD_SIM_SEEDS` says how many runs there are.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from refold.testing.sim import Outcome, shrink, simulate
from refold.testing.sim.plan import KINDS, drawn

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("REFOLD_SIM_SEEDS", "2000"))
PART = 50


def story(outcome: Outcome) -> str:
    """What a failure should tell."""
    small = shrink(outcome)
    return "\n".join(
        [f"seed {small.plan.seed}", *small.complaints, "", *map(str, small.plan.actions), "", *small.story]
    )


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_replicas_that_met_agree_whatever_befell_them(first: int) -> None:
    for seed in range(first, min(first + PART, SEEDS)):
        outcome = simulate(seed)
        if not outcome.ok:
            pytest.fail(story(outcome))
    gc.collect()


def test_everything_that_can_happen_happens() -> None:
    told = "\n".join(line for seed in range(60) for line in simulate(seed).story)
    for kind in KINDS:
        assert f" {kind} r" in told
    for words in (
        "its tables are 3 behind",
        "unanswered",
        "refused: ",
        "EventForked",
        "ClockAhead",
        "FrameRefused",
        "Timeout",
    ):
        assert words in told, words


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_tells_the_same_story_twice(seed: int) -> None:
    assert simulate(seed).trace == simulate(seed).trace != simulate(seed + 1).trace


def test_the_story_does_not_depend_on_how_python_hashes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "simulate"), "--seed", "0", "--seeds", "20", "--traces"]
    told = []
    for hashing in "12":
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        told.append(done.stdout.splitlines()[:20])
    assert told[0] == told[1] and len(told[0]) == 20


def test_a_failing_run_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a run fails when anything is deleted, so one action is left."""
    from refold.testing.sim import world

    async def strict(of: world.World) -> None:
        for line in of.trace:
            if " delete r" in line:
                of.complain("something was deleted")

    monkeypatch.setattr(world, "judge", strict)
    seed = next(seed for seed in range(100) if [a.kind for a in drawn(seed).actions].count("delete") > 1)
    small = shrink(simulate(seed))
    assert [action.kind for action in small.plan.actions] == ["delete"]
    assert simulate(seed, msgspec.structs.replace(small.plan, actions=[])).ok
