"""Values that the steps of a collection cannot convert, as entries of the conflict list. Pure.

A conversion is total: what it cannot read, the field has not, and it has what the step names for that case. Nothing is
lost by that, since events are never rewritten, and nothing goes out of sight: the value as it was written is an open
conflict, by its event, until somebody who has seen it writes the field. It is a function of the state and of the
definition alone, as a reference that leads nowhere is (see `refold.references`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .conflict import Conflict, ConflictKind, Side, conflict_id
from .conflict_list import OPEN, Entry, Record
from .fold import State
from .schema import Schema


def _sides(schema: Schema, state: State) -> dict[str, list[Side]]:
    found: dict[str, list[Side]] = {}
    for aside in schema.upgrade.asides(state) if schema.upgrade is not None else ():
        found.setdefault(aside.field, []).append(Side(aside.replica, aside.seq, aside.time, aside.value))
    return found


def _identity(field: str, sides: list[Side]) -> str:
    return conflict_id({field: sides}, f"convert {field}")


def conversion_entries(record: Record, schema: Schema, state: State) -> list[Entry]:
    """The conversion conflicts of a record that is there."""
    return [
        Entry(_identity(field, sides), ConflictKind.CONVERSION, *record, [field])
        for field, sides in sorted(_sides(schema, state).items())
    ]


def describe_conversion(entry: Entry, schema: Schema, state: State, values: Mapping[str, Any]) -> Conflict | None:
    """All there is to say of a conversion conflict but its events; None when the record does not have it."""
    (field,) = entry.fields
    sides = _sides(schema, state).get(field, [])
    if not sides or _identity(field, sides) != entry.id:
        return None
    outcome = {field: values.get(field, schema.blank.get(field))}
    return Conflict(entry.id, entry.kind, entry.collection, entry.key, {field: sides}, "", outcome, True, OPEN)
