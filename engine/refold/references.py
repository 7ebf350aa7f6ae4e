"""References between records: which of them lead nowhere, as entries of the conflict list. Pure.

A reference that comes before its target is not refused: the record is there, and a dependency conflict is open until
the target comes, or the reference is changed. So it is a function of the state alone: the record refers to what is
missing, or deleted. Its side is the write that holds the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .conflict import Conflict, ConflictKind, Side, conflict_id
from .conflict_list import OPEN, Entry, Record
from .fold import State
from .schema import Schema


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
    """The dependency conflicts of a record that is there, given what it refers to."""
    return [
        Entry(conflict_id({field: sides}), ConflictKind.DEPENDENCY, *record, [field])
        for field, target in sorted(found.items())
        if not present(target) and (sides := _sides(state, field, target[1]))
    ]


def describe_dangling(entry: Entry, state: State, values: Mapping[str, Any]) -> Conflict | None:
    """All there is to say of a dependency conflict but its event; None when the record does not have it."""
    (field,) = entry.fields
    sides = {field: _sides(state, field, str(values.get(field)))}
    if not sides[field] or conflict_id(sides) != entry.id:
        return None
    return Conflict(
        entry.id, entry.kind, entry.collection, entry.key, sides, "", {field: values.get(field)}, True, OPEN
    )
