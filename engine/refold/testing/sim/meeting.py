"""A sync session between two replicas over a link, and whether it may end as it did."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from refold.errors import EventForked, EventsMissing, FormatUnknown, RefoldError
from refold.frames import FrameRefused
from refold.session import ClockAhead, PeerRefused
from refold.sync import SyncInterrupted

from .machine import Machine
from .network import Link
from .plan import FAR

if TYPE_CHECKING:
    from .world import World

PATIENCE = 60
"""Seconds after which a session is given up."""

LOST = (SyncInterrupted, PeerRefused, OSError, TimeoutError)
NONSENSE = (FrameRefused, EventsMissing, FormatUnknown)


class Meeting:
    """One session; `moved` is how many events came of it on either side once both have ended well."""

    def __init__(
        self,
        world: World,
        one: Machine,
        other: Machine,
        random: Random,
        skew: int,
        *,
        fault: str = "",
        nth: int = 0,
        forks: bool = False,
    ) -> None:
        self.one, self.other = one, other
        self.excused = False
        self.errors: list[BaseException] = []
        self._world, self._skew, self._fault, self._forks = world, skew, fault, forks
        self._moved: list[int] = []
        self._left = 2
        self._apart = self._clocks_apart()
        latency = random.choice((0.0, 0.02, 0.5))
        self.link = Link(random, fault=fault, nth=nth, room=random.randint(1, 4), latency=latency)
        self._processes = one.process, other.process
        for process in self._processes:
            process.last_words.append(self.link.break_off)

    @property
    def over(self) -> bool:
        """Whether both sides have ended."""
        return self._left == 0

    @property
    def moved(self) -> int | None:
        """How many events went over; None when the session did not end well on both sides."""
        return sum(self._moved) if len(self._moved) == 2 else None

    async def talk(self, machine: Machine) -> None:
        """One side of it."""
        engine, end = machine.engine, self.link.ends[machine is self.other]
        assert engine is not None
        try:
            async with asyncio.timeout(PATIENCE):
                report = await engine.sync(end, max_skew=self._skew)
        except (RefoldError, OSError) as error:  # a timeout is an OSError
            self.errors.append(error)
            self._world.note(f"{machine.label} ends the session: {type(error).__name__}")
            if not self._allowed(error):
                self._world.complain(f"{machine.label}: session of {self.one.label}-{self.other.label}: {error!r}")
        else:
            self._moved.append(report.received)
            if min(self._apart, self._clocks_apart()) > self._skew:
                self._world.complain(f"{machine.label} took part in a session though a clock is too far ahead")
            self._world.note(f"{machine.label} {report}")
        finally:
            self._left -= 1
            end.close()
            for group in machine.torn():
                self._world.complain(f"{machine.label} has {group} after its session")

    def _clocks_apart(self) -> int:
        return abs(self.one.offset - self.other.offset)

    def _allowed(self, error: RefoldError | OSError) -> bool:
        """Whether what befell the link, or either side, may have led to this error."""
        if isinstance(error, EventForked):
            return self._forks
        disturbed = any(process.dead for process in self._processes) or self.one.stopping or self.other.stopping
        if disturbed or self.excused or self.link.broken:
            return True
        if isinstance(error, ClockAhead):
            return self._skew < FAR
        if isinstance(error, NONSENSE):
            return bool(self._fault)
        return isinstance(error, LOST) and (bool(self._fault) or self._skew < FAR or self._forks)
