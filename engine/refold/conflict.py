"""Conflicts: what they are, and how a policy settles them. Everything here is pure.

A conflict is a field, or the presence of a record, written by writers who had not seen each other and who disagree.
It is read off the state (see `refold.fold`), never stored as an event: an automatic strategy is a function of the
concurrent writes and of the policy, so every replica that holds the same events settles them alike (invariant 5).
Concurrent writes of the same value, or of different fields, are merged and are no conflict.

`sum` needs more than the writes that stand: what a write adds is its value less the value its writer saw, and that is
itself a sum over the history before it. Summing what each write adds over any causally closed set of writes gives one
total, and a writer who had seen everything gets exactly the value it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from enum import StrEnum
from hashlib import sha256
from sys import float_info
from typing import Any

import msgspec

from .errors import VersionMismatch
from .events import Event
from .fold import State, Write, is_concurrent, latest
from .values import INT_MAX, INT_MIN, TYPES

STRATEGIES = ("last-write-wins", "first-write-wins", "manual", "keep-both")
"""How a collection's conflicts may be settled."""

FIELD_STRATEGIES = (*STRATEGIES, "max", "min", "union", "sum")
"""How a single field's conflicts may be settled."""

Dot = tuple[str, int]
Disagreements = tuple[dict[str, list["Side"]], list["Side"]]
"""The sides of each field that disagrees, and those of presence."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class ConflictKind(StrEnum):
    """What disagrees."""

    CONCURRENT_MODIFICATION = "concurrent-modification"
    DELETION = "deletion-conflict"
    DEPENDENCY = "dependency-conflict"
    VERSION_MISMATCH = "version-mismatch"
    UNIQUE = "unique-conflict"
    CONVERSION = "conversion-conflict"


class Policy(msgspec.Struct, frozen=True):
    """How one collection settles its conflicts; `types` are the field types that `max`, `min` and `sum` go by."""

    strategy: str = "last-write-wins"
    fields: dict[str, str] = {}
    types: dict[str, str] = {}

    def of(self, field: str) -> str:
        """The strategy that settles `field`."""
        return self.fields.get(field, self.strategy)


class Side(msgspec.Struct, frozen=True):
    """One of the values in a conflict: the dot and time of its event, and what it wrote."""

    replica: str
    seq: int
    time: int
    value: Any

    @property
    def dot(self) -> Dot:
        """The event that wrote it."""
        return self.replica, self.seq


class Conflict(msgspec.Struct, frozen=True):
    """One disagreement: its sides by field, how it was settled, and whether that is final.

    `sides` of a deletion conflict stand under the empty field name, with whether the record is to be present as
    their value; those of a dependency, unique or conversion conflict under the field that holds the reference or value.

    In the conflict list, `status` is `open`, `settled` (by the strategy) or `resolved` (by the event `settled_by`),
    `base` what the fields were in what all sides had seen, and `events` are those of the sides.
    """

    id: str
    kind: ConflictKind
    collection: str
    key: str
    sides: dict[str, list[Side]]
    strategy: str
    outcome: dict[str, Any]
    open: bool
    status: str = ""
    base: dict[str, Any] = {}
    events: list[Event] = []
    settled_by: Event | None = None


class Settled(msgspec.Struct, frozen=True):
    """A record as its users see it: fields, presence, conflicts, and the branches that keep-both set beside it."""

    values: dict[str, Any]
    present: bool
    conflicts: list[Conflict] = []
    branches: dict[str, dict[str, Any]] = {}


def conflict_id(sides: Mapping[str, Sequence[Side]], field: str = "") -> str:
    """The hash of the sorted dots: the same disagreement has the same id on every replica.

    Where one event can be in several conflicts of a kind, as who wrote two references is, the field tells them apart.
    """
    dots = sorted({side.dot for group in sides.values() for side in group})
    return sha256(_encode([field, dots] if field else dots)).hexdigest()[:16]


def same(one: Any, other: Any) -> bool:
    """Whether two stored values are the same, type included: 1, 1.0 and True are three values."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) is str or type(one) is int:
        return bool(one == other)
    return _encode(one) == _encode(other)


def _side(write: Write, value: Any) -> Side:
    return Side(write.replica, write.seq, write.time, value)


def disagreements(state: State) -> Disagreements:
    """The fields with concurrent writes that differ, and the writes of presence if they differ; first written first."""
    seen: set[str] = set()
    several: set[str] = set()
    for write in state.writes:
        several.update(seen.intersection(write.data))
        seen.update(write.data)
    fields = {}
    for name in sorted(several):
        sides = [_side(write, write.data[name]) for write in state.writes if name in write.data]
        if not all(same(side.value, sides[0].value) for side in sides):
            fields[name] = sides
    presence = [_side(write, write.present) for write in state.writes if write.present is not None]
    return fields, presence if len({side.value for side in presence}) > 1 else []


def _ordered(policy: Policy, field: str, value: Any) -> Any:
    kind = TYPES.get(policy.types.get(field, ""))
    return kind.load(value) if kind is not None else value


def _extreme(pick: Callable[..., Side], policy: Policy, field: str, sides: list[Side]) -> Any:
    known = [side for side in sides if side.value is not None]
    try:
        return pick(known, key=lambda side: _ordered(policy, field, side.value)).value if known else None
    except TypeError:
        return sides[-1].value


def _union(sides: list[Side]) -> Any:
    if not all(isinstance(side.value, list) for side in sides):
        return sides[-1].value
    members = {_encode(item): item for side in sides for item in side.value}
    return [members[code] for code in sorted(members)]


_SUMS = Context(prec=2000, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Digits enough to add doubles of any size exactly; what is longer is rounded, everywhere alike."""

_FLOAT_MAX = Decimal(float_info.max)


def _number(value: Any) -> Decimal:
    return Decimal(str(value)) if value is not None else Decimal(0)


def total(field: str, history: Sequence[Event]) -> Decimal:
    """The sum of what each write of `field` in a causally closed `history` added to the value its writer saw."""
    writes = [event for event in history if field in event.data]
    writes.sort(key=lambda event: (event.time, event.replica, event.seq))
    added: dict[Dot, Decimal] = {}
    with localcontext(_SUMS):
        for event in writes:
            seen = sum((added[dot] for dot in added if event.context.get(dot[0], 0) >= dot[1]), Decimal(0))
            added[event.replica, event.seq] = _number(event.data[field]) - seen
        return sum(added.values(), Decimal(0))


def _sum(policy: Policy, field: str, history: Sequence[Event]) -> Any:
    value = total(field, history)
    match policy.types.get(field):
        case "int":
            return int(max(Decimal(INT_MIN), min(Decimal(INT_MAX), value)))
        case "decimal":
            return str(value)
        case _:
            return float(max(-_FLOAT_MAX, min(_FLOAT_MAX, value)))


def needs_history(state: State, policy: Policy) -> bool:
    """Whether settling `state` takes the record's whole history, which only concurrent writes under `sum` do."""
    return "sum" in policy.fields.values() and sums(disagreements(state), policy)


def sums(found: Disagreements, policy: Policy) -> bool:
    """Whether a field that disagrees is summed."""
    return any(policy.of(name) == "sum" for name in found[0])


def is_open(state: State, policy: Policy) -> bool:
    """Whether a record has a conflict that waits for somebody to settle it."""
    if not is_concurrent(state):
        return False
    fields, presence = disagreements(state)
    return any(policy.of(name) == "manual" for name in fields) or bool(presence and policy.strategy == "manual")


def choose(policy: Policy, field: str, sides: list[Side], history: Sequence[Event]) -> Any:
    """The value that a field with several concurrent values has under the policy.

    Values that the strategy cannot work on, written where the field was defined otherwise, leave it to the last write.
    """
    try:
        return _chosen(policy, field, sides, history)
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return sides[-1].value


def _chosen(policy: Policy, field: str, sides: list[Side], history: Sequence[Event]) -> Any:
    match policy.of(field):
        case "first-write-wins":
            return sides[0].value
        case "max":
            return _extreme(max, policy, field, sides)
        case "min":
            return _extreme(min, policy, field, sides)
        case "union":
            return _union(sides)
        case "sum":
            return _sum(policy, field, history)
        case _:
            return sides[-1].value


def branch_key(key: str, dot: Dot) -> str:
    """The key under which keep-both shows the branch of a losing event."""
    return f"{key}~{dot[0]}-{dot[1]}"


def _choose_presence(policy: Policy, sides: list[Side]) -> bool:
    match policy.strategy:
        case "first-write-wins":
            return bool(sides[0].value)
        case "keep-both":
            return True
        case _:
            return bool(sides[-1].value)


def outcome_of(
    state: State, policy: Policy, found: Disagreements, history: Sequence[Event] = ()
) -> tuple[dict[str, Any], bool]:
    """A record's fields and presence, given what of it disagrees."""
    values, present = latest(state)
    fields, presence = found
    if fields:
        values = values | {name: choose(policy, name, sides, history) for name, sides in fields.items()}
    return values, _choose_presence(policy, presence) if presence else present


def settle(collection: str, key: str, state: State, policy: Policy, history: Sequence[Event] = ()) -> Settled:
    """The record that `policy` makes of `state`. `history` is needed where `needs_history` says so."""
    found = disagreements(state) if is_concurrent(state) else ({}, [])
    fields, presence = found
    values, present = outcome_of(state, policy, found, history)
    if not fields and not presence:
        return Settled(values, present)
    outcome = {name: values[name] for name in fields}
    conflicts = []
    if presence:
        conflicts.append(_conflict(ConflictKind.DELETION, collection, key, {"": presence}, policy, {"": present}))
    if fields:
        conflicts.append(_conflict(ConflictKind.CONCURRENT_MODIFICATION, collection, key, fields, policy, outcome))
    kept = [name for name in fields if policy.of(name) == "keep-both"]
    losers = {side.dot for name in kept for side in fields[name] if not same(side.value, outcome[name])}
    branches = {
        branch_key(key, (write.replica, write.seq)): values | write.data
        for write in state.writes
        if (write.replica, write.seq) in losers
    }
    return Settled(values, present, conflicts, branches)


def _conflict(
    kind: ConflictKind,
    collection: str,
    key: str,
    sides: dict[str, list[Side]],
    policy: Policy,
    outcome: dict[str, Any],
) -> Conflict:
    strategies = sorted({policy.of(name) for name in sides})
    return Conflict(
        conflict_id(sides), kind, collection, key, sides, "+".join(strategies), outcome, "manual" in strategies
    )


def check_version(collection: str, key: str, stated: str | None, current: str) -> None:
    """Raises `VersionMismatch` when a writer stated a version and it is not the current one."""
    if stated is not None and stated != current:
        raise VersionMismatch(collection, key, stated, current)
