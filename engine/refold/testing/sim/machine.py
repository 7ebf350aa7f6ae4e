"""A replica: its disk, its clock, and the program that runs on it or does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from refold.clock import HybridClock
from refold.engine import Engine
from refold.testing.scribe import START

from .disk import Disk, SimStore
from .plan import Setting
from .process import Crash, Process


class Machine:
    """One replica of a run; `label` stays when it comes back under another id."""

    def __init__(self, label: str, disk: Disk, setting: Setting) -> None:
        self.label = label
        self.disk = disk
        self.offset = 0
        self.backup: Disk | None = None
        self.stopping = False
        self.process = Process(label)
        self.process.dead = True
        self.engine: Engine | None = None
        self._setting = setting

    @property
    def name(self) -> str:
        """The id under which it writes."""
        return self.disk.log.owner

    @property
    def up(self) -> bool:
        """Whether its program runs."""
        return self.engine is not None and not self.process.dead

    def clock(self) -> int:
        """Its wall clock, which may be wrong and is coarse: replicas often write in the same moment."""
        grain = self._setting.grain
        return (START + int(asyncio.get_running_loop().time() * 1000)) // grain * grain + self.offset

    def torn(self) -> list[str]:
        """The groups of events of which its log has a beginning only."""
        log = self.disk.log
        newest = log.at(log.positions([(replica, head.seq) for replica, head in log.heads().items()]))
        return [f"{event.replica}:{event.seq} of {event.batch}" for event in newest if event.seq != event.batch]

    async def start(self, random: Random, at_its_end: Callable[[], None] | None = None, *, fatal: int = 0) -> bool:
        """Opens the archive that is on the disk; False if the program died over it."""
        await self.process.gone()
        self.process, self.stopping, self.engine = Process(self.label), False, None
        if at_its_end is not None:
            self.process.last_words.append(at_its_end)
        if fatal:
            self.process.die_after(fatal)
        await asyncio.wait([self.process.spawn(self._boot(self.process, random))])
        return self.up

    async def _boot(self, process: Process, random: Random) -> None:
        setting = self._setting
        store = SimStore(self.disk, process, random, latency=setting.latency, follows=setting.follows)
        try:
            store.open(setting.pieces)
        except Crash:
            return
        engine = Engine(store)
        await engine.start(HybridClock(self.clock))
        self.engine = engine

    async def stop(self) -> None:
        """Ends the program in order."""
        process, engine = self.process, self.engine
        self.stopping = True
        if engine is not None:
            await engine.stop()
            if not process.dead:
                self.disk.flush(len(self.disk.unflushed))
        process.kill()
