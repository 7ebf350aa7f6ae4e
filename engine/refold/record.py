"""A record as its users see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .decide import settled_values, version_token
from .events import Event
from .fold import decode_state
from .schema import Schema


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


def load_record(schema: Schema, key: str, data: bytes, history: Callable[[tuple[str, str]], Sequence[Event]]) -> Record:
    """The record that a stored state stands for."""
    state = decode_state(data)
    stored, present = settled_values(state, (schema.name, key), schema, history)
    return Record(schema.name, key, schema.load(stored), version_token(state), schema.folder(stored), not present)
