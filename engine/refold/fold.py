"""A record's state, folded from its events.

The state of a record is the set of its events, each reduced to the fields that no later writer who had seen it wrote
again. An event whose every field was written again drops out; a field that stands in two of them was written
concurrently. Presence is one more field: every event but a delete writes "present", a delete writes "absent".

Why this is a function of the event set (invariant 4). Let e ≺ f iff f.context[e.replica] >= e.seq. The state holds
exactly the writes w such that no write f to the same field has w ≺ f. `fold` adds f and removes what f had seen; it
never needs to remove f itself, because any event that has seen f stands after f in every causal order. So after the
last event the same set is left whatever the order was, and `writes`, sorted by (time, replica, seq), has one spelling.
This is the observed-remove register of Shapiro et al., "A comprehensive study of CRDTs" (2011), with dots apart from
contexts as in Preguiça et al., "Dotted version vectors" (2012).

The cost of an event is the number of events still alive in the record, at most the number of its fields plus the
concurrent ones: it does not grow with the record's history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from .events import Event, Kind, decode, is_event


class Write(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """What is left of one event: its time and dot, its word on presence (None when overruled), its fields."""

    time: int
    replica: str
    seq: int
    present: bool | None
    data: dict[str, Any]


class State(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as its events make it: its version vector, and the writes that nobody overruled knowing them."""

    version: dict[str, int]
    writes: list[Write]


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(State)


def is_sole(state: State) -> bool:
    """Whether a state is just what its newest event makes, as that of a record that was written once.

    Then the version names no other event than the one write, which therefore nobody overruled in part.
    """
    writes = state.writes
    if len(writes) != 1:
        return False
    write = writes[0]
    return write.present is not None and state.version == {write.replica: write.seq}


def encode_state(state: State, newest: bytes | None = None) -> bytes:
    """The canonical bytes of a state: equal states have equal bytes.

    A state that is just what one event makes is spelt as that event, of which `newest` gives the canonical bytes: most
    records of a young log then take no encoding, no hash and no place of their own.
    """
    return newest if newest is not None and is_sole(state) else _encoder.encode(state)


def decode_state(data: bytes) -> State:
    """The state that `data` encodes."""
    return fold(None, decode(data)) if is_event(data) else _decoder.decode(data)


def _rank(write: Write) -> tuple[int, str, int]:
    return write.time, write.replica, write.seq


def fold(state: State | None, event: Event) -> State:
    """The state after one more event. An event that the state has already seen changes nothing."""
    write = Write(event.time, event.replica, event.seq, event.kind is not Kind.DELETE, event.data)
    if state is None:
        return State({event.replica: event.seq}, [write])
    version = state.version
    if version.get(event.replica, 0) >= event.seq:
        return state
    seen = event.context.get
    left = []
    for old in state.writes:
        if seen(old.replica, 0) >= old.seq:
            data = {name: value for name, value in old.data.items() if name not in event.data}
            if not data:
                continue
            if old.present is not None or len(data) != len(old.data):
                old = Write(old.time, old.replica, old.seq, None, data)
        left.append(old)
    left.append(write)
    if len(left) > 1 and _rank(left[-2]) > _rank(write):
        left.sort(key=_rank)
    return State({**version, event.replica: event.seq}, left)


def is_concurrent(state: State) -> bool:
    """Whether some field, or presence, was written by two who had not seen each other."""
    writes = state.writes
    if len(writes) == 1:
        return False
    names: set[str] = set()
    present = False
    for write in writes:
        if write.present is not None:
            if present:
                return True
            present = True
        if not names.isdisjoint(write.data):
            return True
        names.update(write.data)
    return False


def latest(state: State) -> tuple[dict[str, Any], bool]:
    """The record's fields and whether it is present, the last write of each winning.

    `writes` is sorted by (time, replica, seq), so laying one over the other is last-write-wins.
    """
    writes = state.writes
    if len(writes) == 1:
        return writes[0].data, bool(writes[0].present)
    values: dict[str, Any] = {}
    present = False
    for write in writes:
        values.update(write.data)
        if write.present is not None:
            present = write.present
    return values, present


DIGEST_MODULUS = 1 << 256


def state_hash(collection: str, key: str, state: bytes) -> int:
    """One record's share of the digest: a hash of its canonical bytes, which for one event is the event's own.

    The digest of a set of records is the sum of their shares modulo 2**256 (Bellare and Micciancio, "A New Paradigm
    for Collision-free Hashing", 1997): it does not depend on order, and replacing a record is one subtraction and one
    addition. It tells states apart by accident-proof odds; proof against an adversary is the hash chain's business.
    """
    data = state if is_event(state) else f"{collection}\0{key}\0".encode() + state
    return int.from_bytes(sha256(data).digest(), "big")


def format_digest(digest: int) -> str:
    """A digest as 64 hexadecimal digits."""
    return f"{digest:064x}"


def fold_all(states: Mapping[tuple[str, str], State], events: Sequence[Event]) -> dict[tuple[str, str], State]:
    """The states that a run of events leaves, of those records that it touches."""
    after: dict[tuple[str, str], State] = {}
    for event in events:
        record = event.collection, event.key
        state = after.get(record) or states.get(record)
        after[record] = fold(state, event)
    return after
