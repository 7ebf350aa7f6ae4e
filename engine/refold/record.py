"""A record as its users see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from .decide import branch_of, settled_branches, settled_values, version_token
from .errors import ValueRefused
from .events import Event
from .fold import State, decode_state
from .schema import Schema

Load = Callable[[Sequence[tuple[str, str]]], Mapping[tuple[str, str], bytes]]
History = Callable[[tuple[str, str]], Sequence[Event]]

UNPLACED = "refold.unplaced"
"""The folder of records that have none: of a collection nobody defined here yet, or whose values make no path.

No value is encoded to this name (see `refold.names`).
"""


class Record(msgspec.Struct, frozen=True):
    """One record: its values as Python values in the order of the definition, and where it stands.

    `version` is the token to state as `if_version`; `folder` is relative to the archive; a deleted record shows its
    last values.
    """

    collection: str
    key: str
    values: dict[str, Any]
    version: str
    folder: str
    deleted: bool


def find_record(schema: Schema, key: str, load: Load, history: History) -> Record | None:
    """A record, or a branch that keep-both shows beside one; None when it never was. `load` gives stored states."""
    data = load([(schema.name, key)]).get((schema.name, key))
    if data is not None:
        return load_record(schema, key, data, history)
    base = schema.name, branch_of(key)
    beside = load([base]).get(base) if schema.keeps_both and base[1] else None
    if beside is None or key not in settled_branches(decode_state(beside), base, schema, history):
        return None
    return load_record(schema, key, beside, history)


def stored_values(schema: Schema, key: str, state: State, history: History) -> tuple[dict[str, Any], bool]:
    """The values of a record, or of a branch that keep-both shows, as they are stored, and whether it is present."""
    base = branch_of(key) if schema.keeps_both else ""
    branches = settled_branches(state, (schema.name, base), schema, history) if base else {}
    if key in branches:
        return branches[key], True
    return settled_values(state, (schema.name, key), schema, history)


def load_record(schema: Schema, key: str, data: bytes, history: History) -> Record:
    """The record that a stored state stands for; a branch's, that keep-both shows, is the state of its record."""
    state = decode_state(data)
    stored, present = stored_values(schema, key, state, history)
    try:
        folder = schema.folder(stored)
    except ValueRefused:
        folder = UNPLACED
    return Record(schema.name, key, schema.load(stored), version_token(state), folder, not present)
