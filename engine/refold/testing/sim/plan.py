"""What happens in a run, drawn from its seed before it begins: so an action can be left out and the rest stays."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from refold.schema import MISSING, Collection, Field

from .network import FAULTS

FAR = 10**13
"""A `max_skew` that no clock of a run exceeds."""

KINDS = {
    "put": 20,
    "patch": 18,
    "delete": 8,
    "batch": 7,
    "resolve": 8,
    "careful": 4,
    "define": 3,
    "again": 4,
    "sync": 26,
    "crash": 8,
    "stop": 2,
    "jump": 4,
    "cancel": 4,
    "partition": 2,
    "backup": 3,
    "restore": 2,
    "clone": 1,
}
"""The kinds of actions, and how often each is drawn."""

_SIMPLE = ("last-write-wins", "first-write-wins", "manual", "keep-both")
_STRATEGIES = {
    "int": (None, *_SIMPLE, "max", "min", "sum"),
    "str": (None, *_SIMPLE),
    "json": (None, *_SIMPLE, "union"),
}


class Action(msgspec.Struct, frozen=True):
    """One thing that is done: what, on which replica, with what, and how many seconds before the next one begins.

    `seed` decides everything that is left to chance while it is done.
    """

    kind: str
    replica: int
    other: int
    key: str
    details: dict[str, Any]
    seed: int
    wait: float

    def __str__(self) -> str:
        words = [f"{self.kind} r{self.replica}"]
        if self.kind in {"sync", "restore", "clone"}:
            words.append(f"with r{self.other}")
        if self.kind in {"put", "patch", "careful", "delete"}:
            words.append(repr(self.key))
        words += [f"{name}={value}" for name, value in self.details.items()]
        return " ".join(words) + f", then {self.wait:g} s"


class Setting(msgspec.Struct, frozen=True):
    """What holds for a whole run: how many replicas, and how coarse, slow and small everything is.

    The collection is `alike` when one definition of it goes round, and `stocked` when there are records at the start.
    """

    replicas: int
    collection: Collection
    alike: bool
    stocked: bool
    follows: bool
    shuffled: bool
    grain: int
    latency: float
    pieces: int


class Plan(msgspec.Struct, frozen=True):
    """A whole run."""

    seed: int
    setting: Setting
    actions: list[Action]


def drawn(seed: int) -> Plan:
    """The run of a seed."""
    random = Random(seed)
    setting = Setting(
        replicas=random.choice((2, 2, 3, 3, 3, 4, 5, 6)),
        collection=_collection(random),
        alike=random.random() < 0.7,
        stocked=random.random() < 0.7,
        follows=random.random() < 0.25,
        shuffled=random.random() < 0.8,
        grain=random.choice((1, 1000, 60_000)),
        latency=random.choice((0.0, 0.01, 0.1)),
        pieces=random.choice((1, 2, 3, 1000)),
    )
    return Plan(seed, setting, [_action(random, setting) for _ in range(random.randint(8, 45))])


def _collection(random: Random) -> Collection:
    fields = {"id": Field("str")}
    for number in range(random.randint(1, 4)):
        kind = random.choice(("int", "int", "int", "str", "json"))
        fields[f"f{number}"] = Field(kind, null=True, strategy=random.choice(_STRATEGIES[kind]))
    if random.random() < 0.4:
        fields["code"] = Field("int", null=True, strategy=random.choice(_STRATEGIES["int"]), unique=True)
    if random.random() < 0.4:
        strategy, missing = random.choice(_STRATEGIES["str"]), random.choice(MISSING)
        fields["friend"] = Field("str", null=True, strategy=strategy, references="things", missing=missing)
    return Collection(name="things", key="id", fields=fields, strategy=random.choice(_SIMPLE))


def another_policy(random: Random, known: Collection) -> Collection:
    """The same collection, its conflicts settled in another way; it may have a field more."""
    fields = {
        name: _another_field(random, field) if name != "id" else field
        for name, field in known.fields.items()
        if name == "id" or random.random() < 0.8
    }
    if random.random() < 0.3:
        fields["more"] = Field("int", null=True, strategy=random.choice(_STRATEGIES["int"]))
    return msgspec.structs.replace(known, fields=fields, strategy=random.choice(_SIMPLE))


def _another_field(random: Random, field: Field) -> Field:
    other = msgspec.structs.replace(field, strategy=random.choice(_STRATEGIES[field.type]))
    if field.references is not None:
        return msgspec.structs.replace(other, missing=random.choice(MISSING))
    return msgspec.structs.replace(other, unique=random.random() < (0.7 if field.unique else 0.05))


def values(random: Random, collection: Collection) -> dict[str, Any]:
    """Values for some of the fields."""
    return {
        name: _value(random, _kind(field))
        for name, field in collection.fields.items()
        if name != "id" and random.random() < 0.6
    }


def _kind(field: Field) -> str:
    return "friend" if field.references is not None else "code" if field.unique else field.type


def _value(random: Random, kind: str) -> Any:
    if random.random() < 0.1:
        return None
    match kind:
        case "int":
            return random.randint(0, 9)
        case "code":
            return random.choice((1, 2, 3, 4, 4))
        case "str":
            return random.choice("abc")
        case "friend":
            return random.choice("xyzxyzxyzwv")
        case _:
            return sorted(random.sample(range(5), random.randint(0, 3)))


def _action(random: Random, setting: Setting) -> Action:
    kind = random.choices(tuple(KINDS), tuple(KINDS.values()))[0]
    replica = random.randrange(setting.replicas)
    other = (replica + random.randrange(1, setting.replicas)) % setting.replicas
    details: dict[str, Any] = {}
    key = random.choice("xyz")
    match kind:
        case "put" | "patch" | "careful":
            details = values(random, setting.collection)
        case "batch":
            writes = [
                {"id": random.choice("xyzw"), **values(random, setting.collection)} for _ in range(random.randint(2, 5))
            ]
            details = {"writes": writes, "doomed": random.random() < 0.2}
        case "sync" if random.random() < 0.4:
            details = {"fault": random.choice(FAULTS), "nth": random.randint(1, 12)}
        case "crash":
            point = random.random() < 0.6
            details = {"points": random.randint(1, 6)} if point else {"turns": random.randint(0, 60)}
        case "cancel":
            details = {"turns": random.randint(0, 30)}
        case "jump":
            details = {"ms": random.choice((-1, 1)) * random.choice((1, 1000, 60_000, 600_000, 86_400_000))}
        case "partition":
            details = {"seconds": random.choice((1, 10))}
        case "restore":
            details = {"renamed": random.random() < 0.3, "log_only": random.random() < 0.3}
        case _:
            pass
    wait = random.choice((0.0, 0.0, 0.005, 0.05, 0.5, 2.0))
    return Action(kind, replica, other, key, details, random.getrandbits(32), wait)
