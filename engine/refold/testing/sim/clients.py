"""Those who write: what they ask of an engine, and what they take from the answer or from its absence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from refold.conflict import ConflictKind
from refold.engine import Engine
from refold.errors import (
    CollectionUnknown,
    ConflictUnknown,
    DefinitionRefused,
    EngineClosed,
    RecordUnknown,
    RefoldError,
    ResolutionRefused,
    RuleBroken,
    ValueRefused,
    VersionMismatch,
)
from refold.events import Event
from refold.schema import Collection
from refold.vector import format_vector

from .machine import Machine
from .plan import Action, another_policy

if TYPE_CHECKING:
    from .world import World

REFUSALS = (
    *(CollectionUnknown, ConflictUnknown, DefinitionRefused, EngineClosed, RecordUnknown, ResolutionRefused),
    *(RuleBroken, ValueRefused, VersionMismatch),
)
"""What a write may be refused for, leaving nothing behind."""

Write = Callable[[Engine, dict[str, Any]], Awaitable[Event | None]]
Work = Callable[[Engine, str], Awaitable[Sequence[Event | None]]]


class Clients:
    """Begins writes and keeps the ledger of them; what was not answered can be asked again under its request id."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unanswered: dict[Machine, list[tuple[str, Work]]] = {}

    def ask(self, action: Action, machine: Machine, random: Random) -> None:
        """Begins the write of an action."""
        key, given, collection = action.key, action.details, self._world.plan.setting.collection
        name, named = collection.name, random.random() < 0.5
        match action.kind:
            case "put":
                whole = {"id": key, **given}
                self._one(machine, whole, named, lambda engine, told: engine.put(name, whole, **told))
            case "patch":
                self._one(machine, given, named, lambda engine, told: engine.patch(name, key, given, **told))
            case "delete":
                self._one(machine, {}, named, lambda engine, told: engine.delete(name, key, **told))
            case "careful":
                self._one(machine, given, False, lambda engine, told: self._careful(engine, name, key, given, told))
            case "batch":
                self.batch(machine, **given)
            case "define":
                self.define(machine, another_policy(random, collection))
            case "resolve":
                self._begin(machine, [None] * 8, lambda engine, op: _resolve(engine, random, op))
            case _:
                self._again(machine)

    def define(self, machine: Machine, collection: Collection) -> None:
        """Begins a definition."""
        self._begin(machine, [None], lambda engine, op: engine.define(collection, **_told(op)))

    def batch(self, machine: Machine, writes: Sequence[dict[str, Any]], *, doomed: bool = False) -> None:
        """Begins a group of puts; one that is doomed ends with a write that is refused, and so is all of it."""
        name = self._world.plan.setting.collection.name

        async def work(engine: Engine, op: str) -> list[Event | None]:
            async with engine.batch(**_told(op)) as batch:
                for write in writes:
                    batch.put(name, write)
                if doomed:
                    batch.patch(name, "never", {})
            return batch.events

        self._begin(machine, writes, work)

    def forget(self, machine: Machine) -> None:
        """Asks nothing again of a replica whose disk is another now: it may not know what it had written."""
        self._unanswered.pop(machine, None)

    def _again(self, machine: Machine) -> None:
        """Asks again for something that was not answered; it must not be written twice."""
        waiting = self._unanswered.get(machine)
        if waiting:
            op, work = waiting.pop()
            self._world.note(f"{op} is asked for again")
            self._world.spawn(machine, self._client(machine, op, work, True))

    async def _careful(self, engine: Engine, name: str, key: str, given: Any, told: Any) -> Event | None:
        """Changes a record only if it still is what was read."""
        record = await engine.get(name, key)
        if record is None:
            return None
        event = await engine.patch(name, key, given, if_version=record.version, **told)
        if event is not None and format_vector(event.context) != record.version:
            self._world.complain(f"{told} was for version {record.version} and has seen {event.context}")
        return event

    def _one(self, machine: Machine, asked: dict[str, Any], named: bool, write: Write) -> None:
        async def work(engine: Engine, op: str) -> list[Event | None]:
            return [await write(engine, _told(op, named))]

        self._begin(machine, [asked], work, named)

    def _begin(self, machine: Machine, asked: Sequence[dict[str, Any] | None], work: Work, named: bool = False) -> None:
        op = self._world.ledger.attempt(asked)
        self._world.spawn(machine, self._client(machine, op, work, named))

    async def _client(self, machine: Machine, op: str, work: Work, named: bool) -> None:
        """Asks for one thing and notes the answer, unless the program dies before it is told."""
        engine, process, ledger, end = machine.engine, machine.process, self._world.ledger, ""
        assert engine is not None
        try:
            events = await work(engine, op)
        except RefoldError as error:
            if not process.dead:
                ledger.attempted[op].refused = True
                end = f"refused: {error.code}"
                if not isinstance(error, REFUSALS):
                    self._world.complain(f"{op} on {machine.label} was refused by {error!r}")
        else:
            if not process.dead:
                ledger.acknowledge(op, events)
                end = f"answered: {ledger.acknowledged[op]}"
        finally:
            self._world.note(f"{op} on {machine.label} {end or 'unanswered'}")
            if named and not end:
                self._unanswered.setdefault(machine, []).append((op, work))


def _told(op: str, named: bool = False) -> dict[str, Any]:
    """What goes with a write, so that its events can be told; named writes can be asked for again."""
    return {"meta": {"op": op}, "request_id": op if named else None}


async def _resolve(engine: Engine, random: Random, op: str) -> list[Event]:
    """Settles one of the conflicts on the list in one of the three ways."""
    found = [conflict async for conflict in engine.conflicts() if conflict.key]
    if not found:
        return []
    conflict = random.choice(found)
    dots = sorted({side.dot for group in conflict.sides.values() for side in group})
    how = random.random()
    if how < 0.7:
        return await engine.resolve(conflict.id, take=random.choice(dots), **_told(op))
    if how < 0.85:
        return await engine.resolve(conflict.id, keep_both=True, **_told(op))
    values: dict[str, Any] = {}
    if conflict.kind is ConflictKind.UNIQUE:
        ((field, sides),) = conflict.sides.items()
        values = {"id": random.choice(sides).value, field: random.choice((None, 5, 6, 7))}
    return await engine.resolve(conflict.id, values=values, **_told(op))
