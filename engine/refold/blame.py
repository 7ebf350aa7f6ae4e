"""Who wrote what a record is: for each field the events whose values stand, read off the record's state. Pure.

The state keeps of each field the writes that nobody overruled knowing them (see `refold.fold`), so there is nothing to
search: one event where nobody disagrees, several where writers had not seen each other, of which the policy lets one
hold.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .conflict import same
from .decide import branch_of, settled_branches, settled_values
from .events import Event
from .fold import State, decode_state
from .ports import Changelog
from .record import History, Load
from .schema import Schema


class Standing(msgspec.Struct, frozen=True):
    """One value that stands: the event that wrote it, and whether it is what the record shows."""

    value: Any
    event: Event
    holds: bool


class Blame(msgspec.Struct, frozen=True):
    """Who made a record what it is.

    `fields` are in the order of the definition, each with the values that stand for it as they are stored, the newest
    first; a field that was never written has none. `presence` are the events by which the record is there, or is not.
    """

    collection: str
    key: str
    deleted: bool
    values: dict[str, Any]
    fields: dict[str, list[Standing]]
    presence: list[Standing]


def blame(schema: Schema, key: str, load: Load, history: History, log: Changelog) -> Blame | None:
    """Who made a record, or a branch that keep-both shows beside one, what it is; None when it never was."""
    name = schema.name, key
    data = load([name]).get(name)
    if data is not None:
        state = decode_state(data)
        return _told(schema, key, state, settled_values(state, name, schema, history), log)
    base = schema.name, branch_of(key)
    data = load([base]).get(base) if schema.keeps_both and base[1] else None
    state = decode_state(data) if data is not None else State({}, [])
    branches = settled_branches(state, base, schema, history)
    return _told(schema, key, state, (branches[key], True), log) if key in branches else None


def _told(schema: Schema, key: str, state: State, shown: tuple[dict[str, Any], bool], log: Changelog) -> Blame:
    stored, present = shown
    state = schema.read(state)
    events = {event.dot: event for event in log.at(sorted(log.positions([(w.replica, w.seq) for w in state.writes])))}
    values = {**schema.blank, **stored}
    fields: dict[str, list[Standing]] = {field: [] for field in schema.columns}
    presence = []
    for write in reversed(state.writes):
        event = events[write.replica, write.seq]
        for field, value in write.data.items():
            if field in fields:
                fields[field].append(Standing(value, event, same(value, values[field])))
        if write.present is not None:
            presence.append(Standing(write.present, event, write.present == present))
    return Blame(schema.name, key, not present, {field: values[field] for field in schema.columns}, fields, presence)
