"""Copies that write under the same id: they have to be refused by everyone who knows the other.

It happens on copies of the disks, so that the run itself goes on unharmed.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from refold.errors import EventForked

from .machine import Machine
from .meeting import Meeting
from .plan import FAR

if TYPE_CHECKING:
    from .world import World


async def refused_everywhere(world: World, machine: Machine, witness: Machine, random: Random) -> None:
    """Two copies of a replica write apart; they meet each other, and one meets a witness of the other."""
    name = world.plan.setting.collection.name
    trio = [Machine(f"{one.label}'", one.disk.copied(), world.plan.setting) for one in (machine, machine, witness)]
    for copy in trio:
        copy.offset = machine.offset
        await copy.start(random)
    one, other, third = trio
    if name in machine_schemas(one):
        for copy, key in ((one, "one"), (other, "other")):
            assert copy.engine is not None
            for number in range(random.randint(1, 2)):
                await copy.process.spawn(copy.engine.put(name, {"id": f"{key}{number}"}))
        before = other.disk.log.end()
        await _forked(world, one, other, random)
        if await _meets(world, one, third, random) is None:
            await _forked(world, third, other, random)
        if other.disk.log.end() != before:
            world.complain("a clone was given events by those that it had forked from")
    for copy in trio:
        copy.process.kill()
        await copy.process.gone()


def machine_schemas(machine: Machine) -> set[str]:
    """The collections that a replica knows."""
    return set(machine.engine.schemas) if machine.engine is not None else set()


async def _meets(world: World, one: Machine, other: Machine, random: Random) -> EventForked | None:
    """A session that may be refused as forked; the refusal."""
    meeting = Meeting(world, one, other, random, FAR, forks=True)
    for task in [machine.process.spawn(meeting.talk(machine)) for machine in (one, other)]:
        await task
    return next((error for error in meeting.errors if isinstance(error, EventForked)), None)


async def _forked(world: World, one: Machine, other: Machine, random: Random) -> None:
    error = await _meets(world, one, other, random)
    if error is None or error.replica != other.name:
        world.complain(f"{one.label} and a clone met and {error!r} came of it")
    for machine in (one, other):
        if machine.engine is not None and not (await machine.process.spawn(machine.engine.verify())).ok:
            world.complain(f"{machine.label} is not sound after it met a clone")
