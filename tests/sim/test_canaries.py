"""Bugs planted in what must not be wrong: the simulator finds each of them, and in how many runs is written down here.

A bug is planted as in `tests.test_canaries`, by compiling a function anew with a piece of its text replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from refold import clock, decide, fold, references, replay, vector
from refold.ports import Changes
from refold.testing import MemoryTables
from refold.testing.sim import simulate
from refold.testing.sim.disk import LiveTables
from tests.test_canaries import mutated

SEEDS = 2000
"""Runs in which a planted bug has to be found. The search ends with the first that finds it."""

Edit = tuple[Any, str, dict[str, str]]

CANARIES: dict[str, list[Edit]] = {
    "wrong vector compare": [(vector, "includes", {"< seq": "< seq - 1"})],
    "a strict compare in the fold": [(fold, "fold", {">= old.seq": "> old.seq"})],
    "a resolution that depends on the order of arrival": [
        (MemoryTables, "_close", {"known is None or (entry.closer or ()) < (known.closer or ())": "known is None"})
    ],
    "unsorted ties": [(fold, "_rank", {"write.time, write.replica, write.seq": "write.time, '', 0"})],
    "lost tombstone": [(fold, "fold", {"event.kind is not Kind.DELETE": "True"})],
    "context not advanced": [
        (decide._Decider, "answer", {"        context,\n": "        {},\n"}),
    ],
    "duplicate apply": [
        (fold, "fold", {"if version.get(event.replica, 0) >= event.seq:": "if False:"}),
        (
            replay,
            "catch_up",
            {
                "    bodies = [": "    stored = log.bodies(max(checkpoint.position - 1, 0), limit + 1)\n    bodies = [",
            },
        ),
    ],
    "dropped concurrent field": [(fold, "fold", {"if not data:": "if True:"})],
    "progress before data": [
        (
            LiveTables,
            "_keep",
            {
                "    self._disk.unflushed.append((changes": "    self._disk.unflushed.append((only_progress(changes), "
                "schemas))\n    self._disk.unflushed.append((changes"
            },
        )
    ],
    "holders in the order of arrival": [(MemoryTables, "_held", {"sorted(holders)": "holders"})],
    "a value that deleted records hold": [(MemoryTables, "_standing", {"if present:": "if True:"})],
    "a missing target that stays missing": [(references, "dangling_entries", {"not present(target)": "True"})],
    "clock regress": [(clock.HybridClock, "tick", {"wall if wall > self._last else self._last + 1": "wall"})],
}


def only_progress(changes: Changes) -> Changes:
    """How far the tables have come, without what they should hold there."""
    return Changes([], {}, {}, {}, changes.checkpoint)


@pytest.fixture
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Plants the bug of that name."""
    for owner, name, edits in CANARIES[request.param]:
        original = getattr(owner, name)
        changed = mutated(original, edits)
        changed.__globals__["only_progress"] = only_progress
        monkeypatch.setattr(owner, name, changed)
        for module in list(sys.modules.values()):
            if module.__name__.startswith(("refold", "tests")) and vars(module).get(name) is original:
                monkeypatch.setattr(module, name, changed)
    yield request.param
    vars(sys.modules[LiveTables.__module__]).pop("only_progress", None)


@pytest.mark.parametrize("planted", CANARIES, indirect=True)
def test_a_planted_bug_is_found(planted: str) -> None:
    for seed in range(SEEDS):
        outcome = simulate(seed)
        if not outcome.ok:
            return
    pytest.fail(f"{planted} was not found in {SEEDS} runs")
