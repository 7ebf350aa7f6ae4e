"""How a person settles a conflict: the requests that a choice comes to. Pure.

A resolution is an ordinary event that writes the fields in conflict and has seen all sides, so it stands after them
everywhere. Like any event it says that the record is present, unless the deleted side is taken.

A value that several records hold is settled record by record: the one that is taken keeps it and the others are
without, or one of them is given another value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .batch import Wording
from .conflict import Conflict, ConflictKind, branch_key, same
from .conflict_list import RESOLVES
from .decide import Operation, Request
from .errors import ResolutionRefused
from .fold import State, latest
from .schema import Schema
from .vector import VectorError, format_vector, parse_vector

_ONLY_BY_VALUES = {
    ConflictKind.DEPENDENCY: "bring the record that it refers to, or state other values=",
    ConflictKind.CONVERSION: "what was written is no value of the field now: state values=",
}


class Choice(NamedTuple):
    """One of three ways to settle a conflict: the dot of the side to take, values, or to keep both."""

    take: tuple[str, int] | str | None = None
    values: Mapping[str, Any] | None = None
    keep_both: bool = False


def parse_dot(conflict: Conflict, dot: tuple[str, int] | str) -> tuple[str, int]:
    """The side that a dot, or its text `replica:seq`, names. Raises `ResolutionRefused`."""
    sides = {side.dot for group in conflict.sides.values() for side in group}
    if isinstance(dot, str):
        try:
            named = list(parse_vector(dot).items())
        except VectorError:
            named = []
        dot = named[0] if len(named) == 1 else (dot, 0)
    if dot not in sides:
        known = ", ".join(f"{replica}:{seq}" for replica, seq in sorted(sides))
        raise ResolutionRefused(conflict.id, f"{dot[0]}:{dot[1]} is none of its sides, which are {known}")
    return dot


def requests(
    conflict: Conflict,
    schema: Schema,
    state: State,
    wording: Wording,
    choice: Choice,
) -> list[Request]:
    """The requests that settle a conflict in one of three ways, as one group. Raises `ResolutionRefused`."""
    take, values, keep_both = choice
    if (take is not None) + (values is not None) + keep_both != 1:
        raise ResolutionRefused(conflict.id, "say one of take=, values= and keep_both=")
    record = conflict.collection, conflict.key
    meta = {**wording.meta, RESOLVES: conflict.id}

    def request(operation: Operation, key: str, data: dict[str, Any], version: str | None = None) -> Request:
        return Request(operation, conflict.collection, key, data, wording.actor, meta, version, None)

    if conflict.kind in _ONLY_BY_VALUES and values is None:
        raise ResolutionRefused(conflict.id, _ONLY_BY_VALUES[conflict.kind])
    version = format_vector(state.version)
    settled = {name: value for name, value in conflict.outcome.items() if name}
    if take is not None:
        dot = parse_dot(conflict, take)
        taken = {name: side.value for name, group in conflict.sides.items() for side in group if side.dot == dot}
        if taken.get("") is False:
            return [request(Operation.RESOLVE_ABSENT, record[1], {}, version)]
        settled |= {name: value for name, value in taken.items() if name}
        return [request(Operation.RESOLVE, record[1], settled, version)]
    if values is not None:
        stored = schema.store(values)
        if schema.collection.key in stored and str(stored[schema.collection.key]) != conflict.key:
            raise ResolutionRefused(conflict.id, "a key never changes")
        return [request(Operation.RESOLVE, record[1], settled | stored, version)]
    made = [request(Operation.RESOLVE, record[1], settled, version)]
    if conflict.kind is ConflictKind.DELETION:
        return made
    key = schema.collection.key
    if schema.types[key].name != "str":
        raise ResolutionRefused(conflict.id, f"the key {key!r} is no text, so the losing side cannot have its own")
    present, _ = latest(schema.read(state))
    for event in conflict.events:
        lost = {
            name: side.value
            for name, group in conflict.sides.items()
            for side in group
            if side.dot == (event.replica, event.seq) and side.value != conflict.outcome[name]
        }
        if lost:
            branch = branch_key(conflict.key, (event.replica, event.seq))
            whole = {**present, **settled, **lost, key: branch}
            made.append(request(Operation.PUT, branch, whole))
    return made


def parting(
    conflict: Conflict,
    schema: Schema,
    states: Mapping[str, State],
    wording: Wording,
    choice: Choice,
) -> list[Request]:
    """The requests that settle a unique conflict, as one group, given the states of its records by key.

    `take` names the side whose record keeps the value; the others have null, where the field may be null. `values` are
    those of the record that their key names, and hold another value. Raises `ResolutionRefused`.
    """
    take, values, keep_both = choice
    if keep_both or (take is not None) == (values is not None):
        why = (
            "a unique value cannot be kept by both; say take= or values=" if keep_both else "say one of take=, values="
        )
        raise ResolutionRefused(conflict.id, why)
    ((field, sides),) = conflict.sides.items()
    meta = {**wording.meta, RESOLVES: conflict.id}

    def request(key: str, data: dict[str, Any]) -> Request:
        version = format_vector(states[key].version)
        return Request(Operation.RESOLVE, conflict.collection, key, data, wording.actor, meta, version, None)

    if take is not None:
        dot = parse_dot(conflict, take)
        if not schema.collection.fields[field].null:
            raise ResolutionRefused(
                conflict.id, f"{field!r} may not be null: state another value for one of its records"
            )
        return [request(side.value, {field: None}) for side in sides if side.dot != dot]
    stored = schema.store(values or {})
    name = schema.collection.key
    key = str(stored.pop(name, ""))
    if key not in {side.value for side in sides}:
        known = ", ".join(side.value for side in sides)
        raise ResolutionRefused(conflict.id, f"say by {name!r} which record the values are for: {known}")
    if field not in stored or same(stored[field], latest(schema.read(states[key]))[0].get(field)):
        raise ResolutionRefused(conflict.id, f"state another value of {field!r}")
    return [request(key, stored)]
