"""Performs the run of a seed, tells what was wrong with it, and makes a run that failed smaller."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from random import Random

import msgspec

from refold import projector, queries, reader, sync

from .loop import SimLoop, Stuck
from .plan import Plan, drawn
from .world import World


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run: its complaints, the hash of all that happened in it, and its story."""

    plan: Plan
    complaints: list[str]
    trace: str
    story: list[str]

    @property
    def ok(self) -> bool:
        """Whether everything was as it must be."""
        return not self.complaints


@contextmanager
def _small(pieces: int) -> Iterator[None]:
    """Makes frames and pages so small that a short run needs many of them."""
    wanted = [
        (sync, "FRAME_EVENTS", pieces),
        (queries, "READ_BATCH", pieces + 3),
        (reader, "CONFLICT_BATCH", pieces + 4),
        (projector, "APPLY_BATCH", pieces),
    ]
    usual = [(module, name, getattr(module, name)) for module, name, _ in wanted]
    try:
        for module, name, size in wanted:
            setattr(module, name, min(size, getattr(module, name)))
        yield
    finally:
        for module, name, size in usual:
            setattr(module, name, size)


def simulate(seed: int, plan: Plan | None = None) -> Outcome:
    """The run of a seed, or that of a plan which was made from one.

    The garbage collector rests meanwhile: when it runs is not for the seed to say, and what it finds can make calls.
    """
    plan = plan or drawn(seed)
    loop = SimLoop(Random(plan.seed ^ 0x5EED), shuffled=plan.setting.shuffled)
    collects, logs = gc.isenabled(), logging.root.manager.disable
    gc.disable()
    logging.disable()
    world = World(plan, loop)
    try:
        with _small(plan.setting.pieces):
            loop.run_until_complete(world.run())
    except Stuck as stuck:
        world.complain(f"stuck: {stuck}")
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, it is what is wrong with the run
        world.complain(f"the run ended with {error!r}")
    finally:
        loop.close()
        logging.disable(logs)
        if collects:
            gc.enable()
    for wrong in loop.errors:
        world.complain(wrong)
    trace = sha256("\n".join(world.trace).encode()).hexdigest()
    return Outcome(plan, world.complaints, trace, world.trace)


def _calmer(outcome: Outcome) -> Outcome:
    """The run with less going on around it, where that still fails."""
    best = outcome
    for change in ({"follows": False}, {"latency": 0.0}, {"shuffled": False}, {"grain": 1}, {"pieces": 1000}):
        setting = msgspec.structs.replace(best.plan.setting, **change)
        tried = simulate(best.plan.seed, msgspec.structs.replace(best.plan, setting=setting))
        best = best if tried.ok else tried
    return best


def shrink(outcome: Outcome, limit: int = 500) -> Outcome:
    """A run that still fails with actions left out: as few as dropping runs of them, then single ones, leads to."""
    best, tries = _calmer(outcome), 0
    size = max(1, len(best.plan.actions) // 2)
    while True:
        start, dropped = 0, False
        while start < len(best.plan.actions) and tries < limit:
            left = best.plan.actions[:start] + best.plan.actions[start + size :]
            tried = simulate(best.plan.seed, msgspec.structs.replace(best.plan, actions=left))
            tries += 1
            if tried.ok:
                start += size
            else:
                best, dropped = tried, True
        if tries >= limit or (size == 1 and not dropped):
            return best
        size = max(1, size // 2)
