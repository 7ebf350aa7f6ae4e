"""What two definitions of one collection, made apart, come to. Pure.

A definition is settled like any record, property by property, so fields that were added apart are all there. What would
change the meaning of stored values is settled otherwise than by the last write, and alike on every replica:

- a key that disagrees is the one that was first written;
- a field whose type disagrees takes any value, as JSON; if it is the key, it is as it was first written;
- a field may be null when one side allows it, and is required only when all sides say so;
- of fields whose names differ in case alone, the first by name has the column;
- of versions that disagree the highest counts, and of steps for one field of one version those first written;
- what a step took away is no field, and what names it, the key, the folder, documents and entries of meta.json, is read
  through the steps; a field whose type disagrees and that a step converts has the type that the step leads to.

Nothing that was stored under either definition is lost or changed; the disagreement stands in the conflict list. To
define such a field again as one of the sides did changes nothing, and is not refused: see `schema.evolve`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .conflict import Policy, Side, disagreements, settle
from .fold import State, is_concurrent
from .schema import KEY_TYPES, Field, meta_field, parse_field
from .template import Template, TemplateError, renamed
from .version_rules import STEP_PREFIX, names_gone, steps_of
from .versions import Convert, Upgrade

_PREFIX = "field:"


def merged_definition(state: State) -> dict[str, Any]:
    """The data of a definition as its events make it."""
    merged = dict(settle("", "", state, Policy()).values)
    sides = disagreements(state)[0] if is_concurrent(state) else {}
    for name, found in sides.items():
        if name.startswith(STEP_PREFIX):
            merged[name] = found[0].value
    if "version" in sides:
        merged["version"] = max(side.value for side in sides["version"])
    reading = _Reading(merged)
    merged = _without_twins(reading.standing(merged))
    key = sides["key"][0].value if "key" in sides else merged["key"]
    merged["key"] = key = reading.name(key)
    for name, found in sides.items():
        if name.startswith(_PREFIX) and name in merged:
            field = name.removeprefix(_PREFIX)
            fitting = reading.converted(field, found)
            merged[name] = _merged_key(fitting) if field == key else _merged_field(fitting[-1].value, fitting)
    return reading.through(merged, [side.value for side in sides.get("folder", ())])


def fields_apart(state: State) -> dict[str, list[Field]]:
    """The fields of a definition that disagree, each as the replicas define it."""
    if not is_concurrent(state):
        return {}
    merged = merged_definition(state)
    reading = _Reading(merged)
    apart = {}
    for name, sides in disagreements(state)[0].items():
        if name.startswith(_PREFIX) and name in merged:
            fitting = reading.converted(name.removeprefix(_PREFIX), sides)
            specs = [{key: value for key, value in side.value.items() if key != "order"} for side in fitting]
            if len(specs) > 1:
                apart[name.removeprefix(_PREFIX)] = [parse_field(spec) for spec in specs]
    return apart


class _Reading:
    """What the steps of a merged definition make of the rest of it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        steps = steps_of(data) if any(name.startswith(STEP_PREFIX) for name in data) else []
        version = int(data.get("version", 1))
        self._gone = names_gone(steps, version)
        self._upgrade = Upgrade(version, steps) if steps else None
        self._types = {step.field: step.to for step in steps if isinstance(step, Convert) and step.version <= version}

    def name(self, field: str) -> str:
        """What a field is called now; one that was dropped is still called as it was."""
        return field if self._upgrade is None else self._upgrade.name(field) or field

    def standing(self, data: dict[str, Any]) -> dict[str, Any]:
        """A definition without the fields that steps took away."""
        gone = {_PREFIX + name for name in self._gone}
        return {name: value for name, value in data.items() if name not in gone}

    def converted(self, field: str, sides: Sequence[Side]) -> Sequence[Side]:
        """Of the sides of a field those that a conversion led to, if there are any."""
        to = self._types.get(field)
        return [side for side in sides if side.value["type"] == to] or sides if to is not None else sides

    def through(self, data: dict[str, Any], folders: Sequence[str]) -> dict[str, Any]:
        """A definition whose folder and meta name fields as they are called now; `folders` are others it may have.

        A folder that no present field makes is that of another side, or the root.
        """
        if self._upgrade is None:
            return data
        known = {name.removeprefix(_PREFIX) for name in data if name.startswith(_PREFIX)}
        fitting = (text for text in map(self._folder, [data["folder"], *folders[::-1]]) if _uses(text) <= known)
        entries = {name: self._entry(text) for name, text in data.get("meta", {}).items()}
        meta = {name: text for name, text in entries.items() if (meta_field(text) or data["key"]) in known}
        documents = {self.name(path): self._name(own) for path, own in data.get("documents", {}).items()}
        texts = {name for name in known if data[_PREFIX + name]["type"] == "str"} | {""}
        documents = {path: own if own in texts else "" for path, own in documents.items() if path in texts}
        return {**data, "folder": next(fitting, ""), "meta": meta, "documents": documents}

    def _name(self, field: str) -> str:
        return self.name(field) if field else ""

    def _folder(self, text: str) -> str:
        return renamed(text, self.name)

    def _entry(self, text: str) -> str:
        field = meta_field(text)
        return text if field is None else f"{{{self.name(field)}}}"


def _uses(folder: str) -> set[str]:
    try:
        return set(Template.parse(folder).fields)
    except TemplateError:
        return {folder}


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
