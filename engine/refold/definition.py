"""What two definitions of one collection, made apart, come to. Pure.

A definition is settled like any record, property by property, so fields that were added apart are all there. What would
change the meaning of stored values is settled otherwise than by the last write, and alike on every replica:

- a key that disagrees is the one that was first written;
- a field whose type disagrees takes any value, as JSON; if it is the key, it is as it was first written;
- a field may be null when one side allows it, and is required only when all sides say so;
- of fields whose names differ in case alone, the first by name has the column.

Nothing that was stored under either definition is lost or changed; the disagreement stands in the conflict list. To
define such a field again as one of the sides did changes nothing, and is not refused: see `schema.evolve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .conflict import Policy, Side, disagreements, settle
from .fold import State, is_concurrent
from .schema import KEY_TYPES, Field, parse_field

_PREFIX = "field:"


def merged_definition(state: State) -> dict[str, Any]:
    """The data of a definition as its events make it."""
    values = _without_twins(settle("", "", state, Policy()).values)
    if not is_concurrent(state):
        return values
    fields, _ = disagreements(state)
    merged = dict(values)
    if "key" in fields:
        merged["key"] = fields["key"][0].value
    for name, sides in fields.items():
        if name.startswith(_PREFIX) and name in merged:
            is_key = name.removeprefix(_PREFIX) == merged.get("key")
            merged[name] = _merged_key(sides) if is_key else _merged_field(merged[name], sides)
    return merged


def fields_apart(state: State) -> dict[str, list[Field]]:
    """The fields of a definition that disagree, each as the replicas define it."""
    if not is_concurrent(state):
        return {}
    return {
        name.removeprefix(_PREFIX): [
            parse_field({key: value for key, value in side.value.items() if key != "order"}) for side in sides
        ]
        for name, sides in disagreements(state)[0].items()
        if name.startswith(_PREFIX)
    }


def _without_twins(values: dict[str, Any]) -> dict[str, Any]:
    taken: set[str] = set()
    kept = {}
    for name in sorted(values):
        if not name.startswith(_PREFIX) or name.casefold() not in taken:
            kept[name] = values[name]
            taken.add(name.casefold())
    return kept


def _merged_key(sides: Sequence[Side]) -> dict[str, Any]:
    fitting = [side.value for side in sides if side.value["type"] in KEY_TYPES]
    return {**(fitting or [sides[0].value])[0], "null": False}


def _merged_field(chosen: dict[str, Any], sides: Sequence[Side]) -> dict[str, Any]:
    specs = [side.value for side in sides]
    if len({spec["type"] for spec in specs}) > 1:
        return {"type": "json", "null": True, "order": min(spec["order"] for spec in specs)}
    required = all(spec.get("required", False) for spec in specs)
    null = not required and any(spec.get("null", False) for spec in specs)
    return {**chosen, "null": null, "required": required}
