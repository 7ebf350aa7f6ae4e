"""One run as it happens: replicas, the actions that befall them, and what is noted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from refold.engine import Engine
from refold.errors import (
    CollectionUnknown,
    ConflictUnknown,
    DefinitionRefused,
    EngineClosed,
    RecordUnknown,
    RefoldError,
    ResolutionRefused,
    ValueRefused,
    VersionMismatch,
)
from refold.events import Event
from refold.schema import Collection

from .clones import refused_everywhere
from .disk import Disk
from .judge import judge
from .ledger import Dot, Ledger
from .loop import SimLoop
from .machine import Machine
from .meeting import Meeting
from .plan import FAR, Action, Plan, another_policy, values

REFUSALS = (
    *(CollectionUnknown, ConflictUnknown, DefinitionRefused, EngineClosed, RecordUnknown, ResolutionRefused),
    *(ValueRefused, VersionMismatch),
)
"""What a write may be refused for, leaving nothing behind."""

Work = Callable[[Engine, str], Awaitable[Sequence[Event | None]]]


class World:
    """The replicas of a run and everything that is known of them from outside."""

    def __init__(self, plan: Plan, loop: SimLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.trace: list[str] = []
        self.complaints: list[str] = []
        self.ledger = Ledger()
        self.random = Random(plan.seed ^ 0xACE)
        self.machines = [Machine(f"r{n}", Disk(f"r{n}"), plan.setting) for n in range(plan.setting.replicas)]
        self.meetings: list[Meeting] = []
        self._running: dict[asyncio.Task[Any], Machine] = {}
        self._parted: frozenset[Machine] = frozenset()
        self._renamed = 0

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
                await self._define(machine, setting.collection)
        await self.calm()
        if setting.stocked:
            records = [{"id": key, **values(self.random, setting.collection)} for key in "xyz"]
            await self._write(first, records, lambda engine, op: _batch(engine, setting.collection.name, records, op))
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
        up = await machine.start(self.random, lambda: self.note(f"{machine.label} ends"), fatal=fatal)
        self.note(f"{machine.label} starts at {machine.disk.log.end()}, its tables are {lag} behind")
        head = machine.disk.log.heads().get(machine.name)
        if not restored and (head.seq if head is not None else 0) < self.ledger.newest(machine.name):
            self.complain(f"{machine.label} acknowledged {self.ledger.newest(machine.name)} events, has {head}")
        return up

    async def _perform(self, action: Action, machine: Machine, random: Random) -> None:
        match action.kind:
            case "crash":
                await self._crash(machine, action.details["points"])
            case "jump":
                machine.offset += action.details["ms"]
            case "backup":
                machine.backup = machine.disk.copied()
            case "partition":
                self._part(random, action.details["seconds"])
            case "cancel":
                self._cancel(machine, random)
            case "restore":
                await self._restore(machine, self.machines[action.other], action.details["renamed"])
            case "clone":
                await self.calm()
                await refused_everywhere(self, machine, self.machines[action.other], random)
            case _ if not await self._up(machine):
                return
            case "stop":
                self._spawn(machine, machine.stop())
                machine.stopping = True
            case "sync":
                other = self.machines[action.other]
                if await self._up(other) and machine.up:
                    skew = FAR if random.random() < 0.7 else 300_000
                    self._meet(machine, other, random, skew, **action.details)
            case _:
                await self._ask(action, machine, random)

    async def _ask(self, action: Action, machine: Machine, random: Random) -> None:
        """Begins a write."""
        key, given, name = action.key, action.details, self.plan.setting.collection.name
        match action.kind:
            case "put":
                whole = {"id": key, **given}
                await self._write(machine, [whole], lambda engine, op: _one(engine.put(name, whole, meta={"op": op})))
            case "patch":
                await self._write(
                    machine, [given], lambda engine, op: _one(engine.patch(name, key, given, meta={"op": op}))
                )
            case "delete":
                await self._write(machine, [{}], lambda engine, op: _one(engine.delete(name, key, meta={"op": op})))
            case "batch":
                writes = [
                    {"id": random.choice("xyzw"), **values(random, self.plan.setting.collection)}
                    for _ in range(random.randint(2, 5))
                ]
                await self._write(machine, writes, lambda engine, op: _batch(engine, name, writes, op))
            case "define":
                known = another_policy(random, self.plan.setting.collection)
                await self._define(machine, known)
            case "resolve":
                await self._write(machine, [None] * 8, lambda engine, op: _resolve(engine, random, op))

    async def _define(self, machine: Machine, collection: Collection) -> None:
        await self._write(machine, [None], lambda engine, op: engine.define(collection, meta={"op": op}))

    async def _write(self, machine: Machine, asked: Sequence[dict[str, Any] | None], work: Work) -> None:
        op = self.ledger.attempt(asked)
        self._spawn(machine, self._client(machine, op, work))

    async def _client(self, machine: Machine, op: str, work: Work) -> None:
        """Asks for one thing and notes the answer, unless the program dies before it is told."""
        engine, process, end = machine.engine, machine.process, "unanswered"
        assert engine is not None
        try:
            events = await work(engine, op)
        except RefoldError as error:
            if not process.dead:
                self.ledger.attempted[op].refused = True
                end = f"refused: {error.code}"
                if not isinstance(error, REFUSALS):
                    self.complain(f"{op} on {machine.label} was refused by {error!r}")
        else:
            if not process.dead:
                self.ledger.acknowledge(op, events)
                end = f"answered: {self.ledger.acknowledged[op]}"
        finally:
            self.note(f"{op} on {machine.label} {end}")

    def _spawn(self, machine: Machine, work: Any) -> asyncio.Task[Any]:
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
            self._spawn(machine, meeting.talk(machine))
        if (one in self._parted) != (other in self._parted):
            meeting.link.break_off()
        return meeting

    async def meet(self, one: Machine, other: Machine) -> int:
        """A session over a network that does nothing wrong; how many events it moved."""
        meeting = self._meet(one, other, self.random, FAR)
        await self.calm()
        if meeting.moved is None and not self.complaints:
            self.complain(f"{one.label} and {other.label} could not meet")
        return meeting.moved or 0

    async def calm(self) -> None:
        """Returns when nobody is at anything any more."""
        while self._running:
            await asyncio.wait(list(self._running))

    async def _crash(self, machine: Machine, points: int) -> None:
        if points and machine.up:
            machine.process.die_after(points)
        elif points:
            await self._up(machine, fatal=points)
        else:
            machine.process.kill()

    def _part(self, random: Random, seconds: float) -> None:
        """Parts some replicas from the others for a time."""
        self._parted = frozenset(machine for machine in self.machines if random.random() < 0.5)
        for meeting in self.meetings:
            if (meeting.one in self._parted) != (meeting.other in self._parted):
                meeting.link.break_off()
        self.loop.call_later(seconds, self._join)

    def _join(self) -> None:
        self._parted = frozenset()

    def _cancel(self, machine: Machine, random: Random) -> None:
        tasks = [task for task, whose in self._running.items() if whose is machine and not machine.stopping]
        if tasks:
            for meeting in self.meetings:
                if machine in (meeting.one, meeting.other):
                    meeting.excused = True
            random.choice(tasks).cancel()

    def everything(self) -> set[Dot]:
        """The dots of all events on all disks."""
        return {dot for machine in self.machines for dot in machine.disk.log._hashes}

    async def _restore(self, machine: Machine, helper: Machine, renamed: bool) -> None:
        """Puts a backup in the place of a disk: under a new id, or under the same one, after which it is given its
        own later events before it writes."""
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
        self._renamed += renamed
        projection = machine.disk.projection
        machine.disk = backup.copied(f"{machine.label}.{self._renamed}" if renamed else machine.name)
        machine.disk.projection = projection
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
        self.random.shuffle(order)
        moved = [await self.meet(order[0], machine) for _ in range(3) for machine in order[1:]]
        if any(moved[-len(order) + 1 :]):
            self.complain(f"events moved though all had met: {moved}")


def _seq(disk: Disk, replica: str) -> int:
    head = disk.log.heads().get(replica)
    return head.seq if head is not None else 0


async def _one(write: Awaitable[Event | None]) -> list[Event | None]:
    return [await write]


async def _batch(engine: Engine, name: str, writes: Sequence[dict[str, Any]], op: str) -> list[Event | None]:
    async with engine.batch(meta={"op": op}) as batch:
        for write in writes:
            batch.put(name, write)
    return batch.events


async def _resolve(engine: Engine, random: Random, op: str) -> list[Event]:
    """Settles one of the conflicts on the list in one of the three ways."""
    found = [conflict async for conflict in engine.conflicts() if conflict.key]
    if not found:
        return []
    conflict = random.choice(found)
    dots = sorted({side.dot for group in conflict.sides.values() for side in group})
    how = random.random()
    if how < 0.7:
        return await engine.resolve(conflict.id, take=random.choice(dots), meta={"op": op})
    if how < 0.85:
        return await engine.resolve(conflict.id, keep_both=True, meta={"op": op})
    return await engine.resolve(conflict.id, values={}, meta={"op": op})
