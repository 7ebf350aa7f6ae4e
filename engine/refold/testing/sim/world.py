"""One run as it happens: replicas, the actions that befall them, and what is noted of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from .clients import Clients
from .clones import refused_everywhere
from .disk import Disk
from .judge import judge
from .ledger import Dot, Ledger
from .loop import SimLoop
from .machine import Machine
from .meeting import Meeting
from .plan import FAR, Action, Plan, values


class World:
    """The replicas of a run and everything that is known of them from outside."""

    def __init__(self, plan: Plan, loop: SimLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.trace: list[str] = []
        self.complaints: list[str] = []
        self.ledger = Ledger()
        self.clients = Clients(self)
        self._drawn: Counter[str] = Counter()
        self.machines = [Machine(f"r{n}", Disk(f"r{n}"), plan.setting) for n in range(plan.setting.replicas)]
        self.meetings: list[Meeting] = []
        self._running: dict[asyncio.Task[Any], Machine | None] = {}
        self._parted: frozenset[Machine] = frozenset()
        self._renamed = 0

    def random(self, what: str) -> Random:
        """Chance for one purpose: what is left to it does not depend on how much was left to it elsewhere."""
        self._drawn[what] += 1
        return Random(f"{self.plan.seed} {what} {self._drawn[what]}")

    def note(self, what: str) -> None:
        """Writes down what happened, and when."""
        self.trace.append(f"{self.loop.time():.6f} {what}")

    def complain(self, what: str) -> None:
        """Writes down what must not be."""
        self.complaints.append(what)
        self.note(f"WRONG: {what}")

    async def run(self) -> None:
        """Everything, from the first definition to the last judgement."""
        await self._begin()
        for action in self.plan.actions:
            self.note(str(action))
            await self._perform(action, self.machines[action.replica], Random(action.seed))
            if self.complaints:
                break
            await asyncio.sleep(action.wait)
        await self.calm()
        if not self.complaints:
            await self._heal()
        if not self.complaints:
            await judge(self)
        for machine in self.machines:
            machine.process.kill()
            await machine.process.gone()

    async def _begin(self) -> None:
        """Gives everyone the collection: by one definition that goes round, or by one of each."""
        setting = self.plan.setting
        first, *others = self.machines
        for machine in self.machines:
            await self._up(machine)
            if machine is first or not setting.alike:
                self.clients.define(machine, setting.collection)
        await self.calm()
        if setting.stocked:
            random = self.random("stock")
            records = [{"id": key, **values(random, setting.collection)} for key in "xyz"]
            self.clients.batch(first, records)
            await self.calm()
        if setting.alike:
            for machine in others:
                await self.meet(first, machine)

    async def _up(self, machine: Machine, *, fatal: int = 0, restored: bool = False) -> bool:
        """Starts a replica that is down, and looks whether what it acknowledged is still there."""
        if machine.up and not machine.stopping:
            return True
        if machine.stopping:
            await machine.process.gone()
        lag = machine.disk.log.end() - machine.disk.tables.checkpoint().position
        up = await machine.start(self.random(machine.label), lambda: self.note(f"{machine.label} ends"), fatal=fatal)
        self.note(f"{machine.label} starts at {machine.disk.log.end()}, its tables are {lag} behind")
        for group in machine.torn():
            self.complain(f"{machine.label} has {group}")
        head = machine.disk.log.heads().get(machine.name)
        if not restored and (head.seq if head is not None else 0) < self.ledger.newest(machine.name):
            self.complain(f"{machine.label} acknowledged {self.ledger.newest(machine.name)} events, has {head}")
        return up

    async def _perform(self, action: Action, machine: Machine, random: Random) -> None:
        match action.kind:
            case "crash":
                await self._crash(machine, **action.details)
            case "jump":
                machine.offset += action.details["ms"]
            case "backup":
                machine.backup = machine.disk.copied()
            case "partition":
                self._part(random, action.details["seconds"])
            case "cancel":
                self._cancel(machine, random, action.details["turns"])
            case "restore":
                await self._restore(machine, self.machines[action.other], **action.details)
            case "clone":
                await self.calm()
                await refused_everywhere(self, machine, self.machines[action.other], random)
            case _ if not await self._up(machine):
                return
            case "stop":
                self.spawn(machine, machine.stop())
                machine.stopping = True
            case "sync":
                other = self.machines[action.other]
                if await self._up(other) and machine.up:
                    skew = FAR if random.random() < 0.7 else 300_000
                    self._meet(machine, other, random, skew, **action.details)
            case _:
                self.clients.ask(action, machine, random)

    def spawn(self, machine: Machine, work: Any) -> asyncio.Task[Any]:
        """Begins work on a replica that ends with its program, and that `calm` waits for."""
        task = machine.process.spawn(work)
        self._running[task] = machine
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self.complain(f"a task ended with {task.exception()!r}")

    def _meet(self, one: Machine, other: Machine, random: Random, skew: int, **fault: Any) -> Meeting:
        meeting = Meeting(self, one, other, random, skew, **fault)
        self.meetings = [known for known in self.meetings if not known.over] + [meeting]
        for machine in (one, other):
            self.spawn(machine, meeting.talk(machine))
        if (one in self._parted) != (other in self._parted):
            meeting.link.break_off()
        return meeting

    async def meet(self, one: Machine, other: Machine) -> int:
        """A session over a network that does nothing wrong; how many events it moved."""
        meeting = self._meet(one, other, self.random(f"{one.label} meets {other.label}"), FAR)
        await self.calm()
        if meeting.moved is None and not self.complaints:
            self.complain(f"{one.label} and {other.label} could not meet")
        return meeting.moved or 0

    async def calm(self) -> None:
        """Returns when nobody is at anything any more."""
        while self._running:
            await asyncio.wait(list(self._running))

    async def _crash(self, machine: Machine, *, points: int = 0, turns: int = 0) -> None:
        """Lets a program die at one of its next writes to the disk, or so many turns of the loop from now."""
        if points and machine.up:
            machine.process.die_after(points)
        elif points:
            await self._up(machine, fatal=points)
        else:
            self._after(turns, machine.process.kill)

    def _after(self, turns: int, call: Callable[[], object]) -> None:
        async def wait() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            call()

        task = self.loop.create_task(wait())
        self._running[task] = None
        task.add_done_callback(self._ended)

    def _part(self, random: Random, seconds: float) -> None:
        """Parts some replicas from the others for a time."""
        self._parted = frozenset(machine for machine in self.machines if random.random() < 0.5)
        for meeting in self.meetings:
            if (meeting.one in self._parted) != (meeting.other in self._parted):
                meeting.link.break_off()
        self.loop.call_later(seconds, self._join)

    def _join(self) -> None:
        self._parted = frozenset()

    def _cancel(self, machine: Machine, random: Random, turns: int) -> None:
        tasks = [task for task, whose in self._running.items() if whose is machine and not machine.stopping]
        if tasks:
            for meeting in self.meetings:
                if machine in (meeting.one, meeting.other):
                    meeting.excused = True
            self._after(turns, random.choice(tasks).cancel)

    def everything(self) -> set[Dot]:
        """The dots of all events on all disks."""
        return {dot for machine in self.machines for dot in machine.disk.log._hashes}

    async def _restore(self, machine: Machine, helper: Machine, *, renamed: bool, log_only: bool) -> None:
        """Puts a backup in the place of a disk: under a new id, or under the same one, after which it is given its
        own later events before it writes. What follows the log may be left as it was, and is ahead of it then."""
        await self.calm()
        self._join()
        backup = machine.backup
        if backup is None:
            return
        for op in self.ledger.missing(self.everything()):
            self.complain(f"{op} was acknowledged and is on no disk")
        known = [other.disk for other in self.machines if other is not machine]
        known += [other.backup for other in self.machines if other is not machine and other.backup is not None]
        newest = max((_seq(disk, machine.name) for disk in known), default=0)
        if not renamed and _seq(helper.disk, machine.name) < newest:
            self.note(f"{helper.label} does not know enough of {machine.label}")
            return
        machine.process.kill()
        await machine.process.gone()
        self.clients.forget(machine)
        self._renamed += renamed
        replaced = machine.disk
        machine.disk = backup.copied(f"{machine.label}.{self._renamed}" if renamed else machine.name)
        if log_only:
            machine.disk.projection = replaced.projection
            machine.disk.tables = replaced.tables.copied(machine.disk.log.at)
        self.ledger.forget(self.everything())
        await self._up(machine, restored=True)
        await self._up(helper)
        helper.process.fatal = None
        if not renamed and not self.complaints:
            await self.meet(machine, helper)

    async def _heal(self) -> None:
        """Everyone meets everyone through one of them, until nothing moves."""
        self._join()
        for machine in self.machines:
            machine.process.fatal = None
            await self._up(machine)
        order = list(self.machines)
        self.random("order").shuffle(order)
        moved = [await self.meet(order[0], machine) for _ in range(3) for machine in order[1:]]
        if any(moved[-len(order) + 1 :]):
            self.complain(f"events moved though all had met: {moved}")


def _seq(disk: Disk, replica: str) -> int:
    head = disk.log.heads().get(replica)
    return head.seq if head is not None else 0
