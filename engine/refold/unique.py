"""Unique values: which records hold the same value of a field that says no two may, as entries of the conflict list.

What is written here is refused instead (see `refold.rules`), so a clash comes of replicas that took a value apart, or
of a field that was made unique later. It is a function of the states alone: records that are there, and hold the same
value that is not null. Values are the same when they are stored alike. A branch that keep-both shows beside a record is
another version of that record and holds nothing; a value that no write of its record says, such as a sum, is held by
the newest write of the field.

Holders are ranked by the time, replica and seq of the write that holds. A clash is named after its first two, so it
stays the same when others come later, and finding it costs the same however many hold the value. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from .conflict import Conflict, ConflictKind, Side, conflict_id, same
from .conflict_list import OPEN, Entry
from .events import Event
from .fold import State
from .schema import Schema

SHOWN = 100
"""Holders of one value that a conflict shows, the first by rank."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class UniqueValue(NamedTuple):
    """A value of a unique field; `code` has one spelling for values that are stored alike."""

    collection: str
    field: str
    code: bytes


class Holder(NamedTuple):
    """The write by which a record holds a value, and the record's key; the order is that of ranks."""

    time: int
    replica: str
    seq: int
    key: str


def coded(collection: str, field: str, value: Any) -> UniqueValue:
    """A value as it is looked for; a long one by its hash, which no short value is spelt like."""
    code = _encode(value)
    return UniqueValue(collection, field, code if len(code) <= 64 else b"#" + sha256(code).digest())


def holdings(key: str, schema: Schema, state: State, values: Mapping[str, Any]) -> dict[UniqueValue, Holder]:
    """The unique values that a record holds which is there with these values, and by which writes."""
    if not schema.unique:
        return {}
    state = schema.read(state)
    found = {}
    for field in schema.unique:
        value = values.get(field)
        writes = [write for write in state.writes if field in write.data]
        if value is None or not writes:
            continue
        write = next((write for write in reversed(writes) if same(write.data[field], value)), writes[-1])
        found[coded(schema.name, field, value)] = Holder(write.time, write.replica, write.seq, key)
    return found


def _sides(holders: Sequence[Holder]) -> list[Side]:
    return [Side(holder.replica, holder.seq, holder.time, holder.key) for holder in holders]


def clash(value: UniqueValue, holders: Sequence[Holder]) -> Entry | None:
    """The conflict of those that hold a value, of whom the first two by rank are needed; None for fewer."""
    if len(holders) < 2:
        return None
    identity = conflict_id({value.field: _sides(holders[:2])}, value.field)
    return Entry(identity, ConflictKind.UNIQUE, value.collection, holders[0].key, [value.field])


def describe_clash(entry: Entry, value: UniqueValue, holders: Sequence[Holder], events: Sequence[Event]) -> Conflict:
    """All there is to say of a clash: each side is a record's key, and the first keeps the value for the time being."""
    sides = _sides(holders)
    return Conflict(
        entry.id,
        entry.kind,
        entry.collection,
        entry.key,
        {value.field: sides},
        "",
        {value.field: holders[0].key},
        True,
        OPEN,
        events=sorted(events, key=lambda event: (event.time, event.replica, event.seq)),
    )
