"""References between records: which of them lead nowhere, as entries of the conflict list. Pure.

A reference that comes before its target is not refused: the record is there, and a dependency conflict is open until
the target comes, or the reference is changed. So it is a function of the state alone: the record refers to what is
missing, or deleted. Its side is the write that holds the reference.

Collections may refer to each other in a circle, and to themselves, as a tree of categories does. `dependency_order`
says in which order their records are to be sent so that parents come before children as far as that can be.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from .conflict import Conflict, ConflictKind, Side, conflict_id
from .conflict_list import OPEN, Entry, Record
from .events import Event
from .fold import State
from .schema import Schema


def reached_from(start: str, schemas: Mapping[str, Schema]) -> set[str]:
    """The collections that records of one may refer to, over any number of steps; those alone that are defined."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        targets = set(schemas[waiting.pop()].references.values()) & schemas.keys()
        waiting += targets - found
        found |= targets
    return found


def dependency_order(schemas: Mapping[str, Schema]) -> tuple[list[str], list[list[str]]]:
    """All collections, those that others refer to first, and the circles in which they refer to each other.

    The collections of a circle stand together, by name; one that refers to itself is a circle of one. What a collection
    reaches, itself included, is a true part of what each collection outside its circle reaches that refers to it; so
    the order is by how much they reach.
    """
    reached = {name: reached_from(name, schemas) for name in schemas}
    circles = {name: sorted(other for other in found if name in reached[other]) for name, found in reached.items()}
    order = sorted(schemas, key=lambda name: (len(reached[name] | {name}), circles[name] or [name], name))
    return order, sorted({circle[0]: circle for circle in circles.values() if circle}.values())


def undefined_targets(schemas: Mapping[str, Schema]) -> list[tuple[str, str, str]]:
    """The references that lead to no collection: collection, field, and the name that nobody defined."""
    return sorted(
        (name, field, target)
        for name, schema in schemas.items()
        for field, target in schema.references.items()
        if target not in schemas
    )


class Defined(list[Event]):
    """The events that defined some collections, and what there is to say of the references of those.

    `cycles` are the circles they stand in, see `dependency_order`; `undefined` their references to collections that
    nobody defined, see `undefined_targets`.
    """

    def __init__(
        self,
        events: Iterable[Event] = (),
        cycles: Iterable[list[str]] = (),
        undefined: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        super().__init__(events)
        self.cycles, self.undefined = list(cycles), list(undefined)


def defined(events: Iterable[Event], names: Collection[str], schemas: Mapping[str, Schema]) -> Defined:
    """The answer to a definition of the collections of these names."""
    cycles = [circle for circle in dependency_order(schemas)[1] if not set(names).isdisjoint(circle)]
    return Defined(events, cycles, [found for found in undefined_targets(schemas) if found[0] in names])


def references(schema: Schema, values: Mapping[str, Any]) -> dict[str, Record]:
    """The records that a record with these values refers to, by field."""
    return {
        field: (target, str(values[field]))
        for field, target in schema.references.items()
        if values.get(field) not in (None, "")
    }


def _sides(state: State, field: str, value: Any) -> list[Side]:
    held = [write for write in state.writes if field in write.data and str(write.data[field]) == value]
    return [Side(write.replica, write.seq, write.time, write.data[field]) for write in held[-1:]]


def dangling_entries(
    record: Record, state: State, found: Mapping[str, Record], present: Callable[[Record], bool]
) -> list[Entry]:
    """The dependency conflicts of a record that is there, given what it refers to and its state as it is read now."""
    return [
        Entry(conflict_id({field: sides}, field), ConflictKind.DEPENDENCY, *record, [field])
        for field, target in sorted(found.items())
        if not present(target) and (sides := _sides(state, field, target[1]))
    ]


def describe_dangling(entry: Entry, state: State, values: Mapping[str, Any]) -> Conflict | None:
    """All there is to say of a dependency conflict but its event; None when the record does not have it."""
    (field,) = entry.fields
    sides = {field: _sides(state, field, str(values.get(field)))}
    if not sides[field] or conflict_id(sides, field) != entry.id:
        return None
    return Conflict(
        entry.id, entry.kind, entry.collection, entry.key, sides, "", {field: values.get(field)}, True, OPEN
    )
