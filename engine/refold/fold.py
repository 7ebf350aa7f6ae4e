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

Fields are folded under the names that events give them. Where a collection has several schema versions, a field can
have another name in each; a write then says which of the standing writes of other versions it had seen (`Lineage`), and
`refold.versions` reads the state as one version has it. That relation is a function of the event set as well: every
write that an event had seen stands before it in every causal order, and those that do not stand any more are left out.
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


class Lineage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The schema version that a write was made under, and the dots of those standing writes of other versions that its
    writer had seen, sorted."""

    version: int
    seen: list[tuple[str, int]] = []


class State(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as its events make it: its version vector, and the writes that nobody overruled knowing them.

    `lineage` has an entry for each write; it is None when all are of schema version 1.
    """

    version: dict[str, int]
    writes: list[Write]
    lineage: list[Lineage] | None = None

    def versions(self) -> list[int]:
        """The schema version of each write."""
        return [1] * len(self.writes) if self.lineage is None else [own.version for own in self.lineage]


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
    if newest is not None and is_sole(state):
        return newest
    return _encoder.encode((state.version, state.writes) if state.lineage is None else state)


def decode_state(data: bytes) -> State:
    """The state that `data` encodes."""
    return fold(None, decode(data)) if is_event(data) else _decoder.decode(data)


def _rank(write: Write) -> tuple[int, str, int]:
    return write.time, write.replica, write.seq


def fold(state: State | None, event: Event) -> State:
    """The state after one more event. An event that the state has already seen changes nothing."""
    write = Write(event.time, event.replica, event.seq, event.kind is not Kind.DELETE, event.data)
    later = event.version > 1 and event.key != ""
    if state is None:
        return State({event.replica: event.seq}, [write], [Lineage(event.version)] if later else None)
    version = state.version
    if version.get(event.replica, 0) >= event.seq:
        return state
    if later or state.lineage is not None:
        return _fold_versions(state, event, write)
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


def _fold_versions(state: State, event: Event, write: Write) -> State:
    """The same where schema versions are told apart."""
    covered = event.context.get
    own = max(event.version, 1)
    left: list[tuple[Write, Lineage]] = []
    seen: list[tuple[str, int]] = []
    for old, lineage in zip(state.writes, state.lineage or [Lineage(1)] * len(state.writes), strict=True):
        if covered(old.replica, 0) >= old.seq:
            data = {name: value for name, value in old.data.items() if name not in event.data}
            if not data:
                continue
            old = Write(old.time, old.replica, old.seq, None, data)
            if lineage.version != own:
                seen.append((old.replica, old.seq))
        left.append((old, lineage))
    left.append((write, Lineage(own, sorted(seen))))
    left.sort(key=lambda pair: _rank(pair[0]))
    writes = [one for one, _ in left]
    vector = {**state.version, event.replica: event.seq}
    if all(lineage.version == 1 for _, lineage in left):
        return State(vector, writes)
    standing = {(one.replica, one.seq) for one in writes}
    pruned = [Lineage(old.version, [dot for dot in old.seen if dot in standing]) for _, old in left]
    return State(vector, writes, pruned)


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
