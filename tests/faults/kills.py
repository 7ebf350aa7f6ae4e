"""Processes that die: at each call that changes something, and in the middle of a write, of every operation.

The kernel keeps what it was given, so this is what SIGKILL leaves, and no more: nothing may be put aside as an edit by
hand, since there is nothing that refold could not know as its own.
"""

from __future__ import annotations

import random

import msgspec

from refold_adapters.folders.disk import EDITED

from .calls import count
from .cases import Case
from .shim import CHANGING, Call
from .stage import Stage


class Kill(msgspec.Struct, frozen=True):
    """At which call of which case the process dies; `torn` when half of it is done, which is a write."""

    case: str
    nth: int
    torn: bool

    def __str__(self) -> str:
        return f"{self.case}:{self.nth}:{'torn' if self.torn else 'whole'}"


def parse(text: str) -> Kill:
    """The kill that `str` spelled."""
    case, nth, how = text.split(":")
    return Kill(case, int(nth), how == "torn")


def plan(stage: Stage, case: Case, draw: random.Random, passages: int | None) -> list[Kill]:
    """All kills of a case, or so many of each sort, spread over all there are."""
    counts = count(stage, case)
    found = []
    for torn, number in ((False, sum(counts.get(call, 0) for call in CHANGING)), (True, counts.get(Call.WRITE, 0))):
        chosen = (
            range(1, number + 1)
            if passages is None
            else sorted(draw.sample(range(1, number + 1), min(passages, number)))
        )
        found += [Kill(case.name, nth, torn) for nth in chosen]
    return found


def die(stage: Stage, case: Case, kill: Kill) -> list[str]:
    """Leads one, and judges."""
    place = stage.place(case)
    outcome = stage.lead(
        case, place, lambda: stage.shim.kill(place, kill.nth, torn=kill.torn), lambda: None, mortal=True
    )
    complaints = outcome.complaints or stage.judged(case, place, outcome.said)
    if not case.edits and not complaints:
        complaints = [f"put aside: {path.relative_to(place)}" for path in place.rglob(f"*{EDITED}*")]
    if not complaints:
        stage.clear(place)
    return complaints
