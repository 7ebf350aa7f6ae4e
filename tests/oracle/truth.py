"""What has to come out when replicas write apart and meet, worked out with plain dictionaries.

It uses nothing of the product. Of every write it knows which writes of the same record its author had seen, because it
follows who wrote what and who met whom; contexts, clocks and logs are not asked. Of a field, those writes stand that no
writer of it had seen who wrote it again; the last of them by (time, replica, seq) holds, and they are in conflict when
they disagree. Whether a record is there is one more field, which every write writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Dot = tuple[str, int]
PRESENCE = ""


class Write(msgspec.Struct, frozen=True):
    """One event as it was written, and the writes of its record that its author had seen."""

    dot: Dot
    time: int
    key: str
    present: bool
    data: dict[str, Any]
    saw: frozenset[Dot]

    @property
    def rank(self) -> tuple[int, str, int]:
        """Where it stands among writes that had not seen each other."""
        return self.time, *self.dot

    def value(self, field: str) -> Any:
        """What it says of a field, or of the record's presence."""
        return self.present if field == PRESENCE else self.data[field]


class Dispute(msgspec.Struct, frozen=True):
    """A conflict: what the sides say of each field, what holds, and the write that closed it if one did."""

    key: str
    sides: dict[str, list[tuple[Dot, Any]]]
    outcome: dict[str, Any]
    closer: Dot | None = None

    @property
    def dots(self) -> frozenset[Dot]:
        """The writes that disagree."""
        return frozenset(dot for sides in self.sides.values() for dot, _ in sides)


class Seen:
    """What one replica, or a directory, has seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.writes: dict[Dot, Write] = {}
        self.records: dict[str, dict[Dot, Write]] = {}
        self._held: dict[str, dict[str, Any]] = {}

    def add(self, write: Write) -> None:
        """Sees one write."""
        self.writes[write.dot] = write
        self.records.setdefault(write.key, {})[write.dot] = write
        self._held.pop(write.key, None)

    def wrote(self, dot: Dot, time: int, key: str, present: bool, data: Mapping[str, Any]) -> Write:
        """The write of an author who has seen all of this; it is seen from now on."""
        write = Write(dot, time, key, present, dict(data), frozenset(self.records.get(key, {})))
        self.add(write)
        return write

    def meet(self, other: Seen) -> None:
        """Both see what either has seen."""
        lacks, lends = other.writes.keys() - self.writes.keys(), self.writes.keys() - other.writes.keys()
        for dot in lacks:
            self.add(other.writes[dot])
        for dot in lends:
            other.add(self.writes[dot])

    def values(self, key: str) -> dict[str, Any] | None:
        """A record's fields; None when it is not there."""
        if key not in self._held:
            self._held[key] = held(self.records.get(key, {}).values())
        found = dict(self._held[key])
        return found if found.pop(PRESENCE, False) else None

    def vector(self, key: str) -> dict[str, int]:
        """The highest number of each author among the writes of a record."""
        return highest(self.records.get(key, {}))

    def disputes(self) -> list[Dispute]:
        """Every conflict that stands, and every one that somebody closed who had seen it."""
        found = []
        for key, writes in self.records.items():
            if len(writes) > 1:
                found += standing_disputes(key, list(writes.values()))
                found += closed_disputes(key, writes)
        return found


def highest(dots: Iterable[Dot]) -> dict[str, int]:
    """The highest number of each author."""
    vector: dict[str, int] = {}
    for replica, seq in dots:
        vector[replica] = max(seq, vector.get(replica, 0))
    return vector


def same(one: Any, other: Any) -> bool:
    """Whether two values are one, type included."""
    return type(one) is type(other) and bool(one == other)


def standing(field: str, writes: Iterable[Write]) -> list[Write]:
    """The writes of a field that nobody overwrote who had seen them, the one that holds last."""
    about = [write for write in writes if field == PRESENCE or field in write.data]
    if len(about) == 1:
        return about
    left = [write for write in about if not any(write.dot in later.saw for later in about)]
    return sorted(left, key=lambda write: write.rank)


def held(writes: Iterable[Write]) -> dict[str, Any]:
    """What holds of each field, and of presence, by the last write that stands."""
    known = list(writes)
    if len(known) == 1:
        return {**known[0].data, PRESENCE: known[0].present}
    fields = {name for write in known for name in write.data}
    if known:
        fields.add(PRESENCE)
    return {name: standing(name, known)[-1].value(name) for name in fields}


def disagreements(writes: list[Write]) -> dict[str, list[tuple[Dot, Any]]]:
    """The fields whose standing writes differ, and what each says."""
    found = {}
    for name in sorted({PRESENCE, *(name for write in writes for name in write.data)}):
        left = standing(name, writes)
        if any(not same(write.value(name), left[0].value(name)) for write in left):
            found[name] = [(write.dot, write.value(name)) for write in left]
    return found


def split(sides: dict[str, list[tuple[Dot, Any]]]) -> list[dict[str, list[tuple[Dot, Any]]]]:
    """Disagreement about presence is a conflict of its own; that about fields is one for all of them."""
    presence = {name: group for name, group in sides.items() if name == PRESENCE}
    fields = {name: group for name, group in sides.items() if name != PRESENCE}
    return [part for part in (presence, fields) if part]


def standing_disputes(key: str, writes: list[Write]) -> list[Dispute]:
    """The conflicts of a record that nobody has closed."""
    return [
        Dispute(key, sides, {name: group[-1][1] for name, group in sides.items()})
        for sides in split(disagreements(writes))
    ]


def closed_disputes(key: str, writes: Mapping[Dot, Write]) -> list[Dispute]:
    """The conflicts of a record that a write closed whose author had seen all sides; of each field the first counts."""
    found: dict[tuple[frozenset[str], frozenset[Dot]], Dispute] = {}
    for write in sorted(writes.values(), key=lambda write: write.rank):
        if len(write.saw) < 2:
            continue
        seen = disagreements([writes[dot] for dot in write.saw])
        about = {name: group for name, group in seen.items() if name == PRESENCE or name in write.data}
        for sides in split(about):
            dispute = Dispute(key, sides, {name: write.value(name) for name in sides}, write.dot)
            found.setdefault((frozenset(sides), dispute.dots), dispute)
    return list(found.values())
