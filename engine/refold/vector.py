"""Version vectors: what a log, or a writer, has seen, as one number a replica.

Every replica numbers its own events 1, 2, 3, ... without a gap, and a log takes an event only after everything in the
event's context. What a log holds is therefore *causally closed* and, replica by replica, a prefix; the highest `seq`
of each replica says exactly which events those are. On such sets

    inclusion  is  `<=` at every replica      (`includes`)
    union      is  the maximum at every replica (`join`)

so vectors under `join` form a lattice that mirrors the sets under union, and `compare` answers for the vectors what
it would answer for the sets: equal, before, after or concurrent, with neither false order nor false conflict. That
is the theorem of Fidge (1988) and Mattern (1988, "Virtual Time and Global States of Distributed Systems"): vector
order and happened-before are the same relation. Parker et al. (1983, "Detection of Mutual Inconsistency in
Distributed Systems") used it first for replicated data. Two events need but one entry of it: e happened before f
exactly if f's context covers e's dot (`covers`).

Both premises are needed. With a gap, {1, 3} and {1, 2, 3} would share the vector {r: 3}; without causal closure, a
dot that is covered could still lack its causes.

A replica that is absent counts as 0, so a zero entry says nothing: `join` leaves it out, text may not contain it.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .errors import RefoldError

Vector = Mapping[str, int]

MAX_SEQ = 2**63 - 1
_SEQ = re.compile(r"[1-9][0-9]{0,18}")
_REPLICA = re.compile(r"[^\s,\x00-\x1f\x7f]([^,\x00-\x1f\x7f]*[^\s,\x00-\x1f\x7f])?")


class Order(enum.Enum):
    """How one vector stands to another in the causal order."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


@dataclass(eq=False)
class VectorError(RefoldError, ValueError):
    """A vector, or the text of one, that means nothing; `entry` is the part that is wrong."""

    code: ClassVar[str] = "bad-vector"
    message: ClassVar[str] = "version vector {text!r}: {entry!r}: {why}"
    hint: ClassVar[str] = 'write it as "laptop:3,office:12": each replica once, with its highest seq, from 1'
    text: str
    entry: str
    why: str


def is_replica(name: str) -> bool:
    """Whether a text can be the id of a replica."""
    return _REPLICA.fullmatch(name) is not None


def covers(vector: Vector, replica: str, seq: int) -> bool:
    """Whether the event with this dot is among those that `vector` stands for."""
    return vector.get(replica, 0) >= seq


def includes(a: Vector, b: Vector) -> bool:
    """Whether all that `b` has seen, `a` has seen too (a >= b)."""
    get = a.get
    for replica, seq in b.items():  # noqa: SIM110 - half the time of all() in the innermost test of the fold
        if get(replica, 0) < seq:
            return False
    return True


def join(a: Vector, b: Vector) -> dict[str, int]:
    """The least vector that includes both, in canonical form: sorted by replica and without zeros."""
    joined = dict(a)
    for replica, seq in b.items():
        if seq > joined.get(replica, 0):
            joined[replica] = seq
    return {replica: joined[replica] for replica in sorted(joined) if joined[replica] > 0}


def compare(a: Vector, b: Vector) -> Order:
    """Where `a` stands, seen from `b`: BEFORE when `b` has seen all of `a` and more."""
    match includes(a, b), includes(b, a):
        case True, True:
            return Order.EQUAL
        case True, False:
            return Order.AFTER
        case False, True:
            return Order.BEFORE
        case _:
            return Order.CONCURRENT


def missing(have: Vector, want: Vector) -> list[tuple[str, int, int]]:
    """The dots in `want` that `have` lacks, as `(replica, first seq, last seq)` in the order of the replicas."""
    return [
        (replica, have.get(replica, 0) + 1, seq) for replica, seq in sorted(want.items()) if seq > have.get(replica, 0)
    ]


def format_vector(v: Vector) -> str:
    """One line for people and files, the same for equal vectors; the empty vector is the empty text."""
    text = ",".join(f"{replica}:{seq}" for replica, seq in sorted(v.items()) if seq)
    for replica, seq in v.items():
        _check(text, f"{replica}:{seq}", replica, seq)
    return text


def parse_vector(text: str) -> dict[str, int]:
    """The inverse of `format_vector`; blanks around an entry and any order of entries are allowed."""
    vector: dict[str, int] = {}
    for entry in text.split(",") if text.strip() else ():
        replica, colon, digits = entry.strip().rpartition(":")
        if not colon or not _SEQ.fullmatch(digits):
            raise VectorError(text, entry, "not a replica, a colon and a seq from 1")
        if replica in vector:
            raise VectorError(text, entry, "replica named twice")
        vector[replica] = int(digits)
        _check(text, entry, replica, vector[replica])
    return {replica: vector[replica] for replica in sorted(vector)}


def _check(text: str, entry: str, replica: str, seq: int) -> None:
    if not _REPLICA.fullmatch(replica):
        raise VectorError(text, entry, "not the name of a replica")
    if not 0 <= seq <= MAX_SEQ:
        raise VectorError(text, entry, "seq out of range")
