"""What must be in an archive after crashes, by the reports of those that wrote to it.

It uses nothing of the product but the decoding of events, and holds it to this:

    acknowledged ⊆ recovered ⊆ attempted

The recovered log goes on from what was recovered before, byte for byte. Of every writer it holds a prefix of what the
writer attempted, each operation whole, once, and saying what was asked; and the records are what these events say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from refold.events import Event, Kind, decode

from .work import Line, Step

Record = tuple[str, str]


class Recovered(msgspec.Struct):
    """What a fresh process found in an archive: the log's rows, tables, CSV rows by folder, and what is wrong."""

    bodies: list[tuple[int, bytes]] = []
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    folders: dict[str, dict[str, tuple[str, dict[str, str]]]] = {}
    complaints: list[str] = []


class Model:
    """The reports of one archive, and what was recovered last."""

    def __init__(self) -> None:
        self.attempted: dict[str, Line] = {}
        self.acknowledged: dict[str, list[int]] = {}
        self.complaints: list[str] = []
        self.base: list[tuple[int, bytes]] = []

    def read(self, lines: Sequence[Line]) -> None:
        """Takes in the report of one process."""
        for line in lines:
            if line.complaint:
                self.complaints.append(f"{line.op}: {line.complaint}")
            elif line.steps:
                self.attempted[line.op] = line
            else:
                self.acknowledged[line.op] = line.positions

    def unanswered(self) -> list[Line]:
        """Operations that can be retried, since they have a request id and nobody was told how they ended."""
        return [line for op, line in self.attempted.items() if line.request and op not in self.acknowledged]

    def judge(self, found: Recovered) -> list[str]:
        """Everything that is not as it must be."""
        complaints = list(found.complaints)
        if found.bodies[: len(self.base)] != self.base:
            complaints.append("the log does not go on from what was recovered before")
        self.base = found.bodies
        try:
            events = [decode(body, position) for position, body in found.bodies]
        except msgspec.DecodeError as error:
            return [*complaints, *self.complaints, f"an event does not decode: {error}"]
        complaints += _chain(found.bodies, events)
        recovered: dict[str, list[Event]] = defaultdict(list)
        records: dict[Record, dict[str, Any] | None] = {}
        for event in events:
            if event.kind is not Kind.DEFINE:
                op = event.meta.get("op", "")
                recovered[op].append(event)
                complaints += self._said(op, len(recovered[op]) - 1, event, records)
        complaints += self._whole(recovered)
        complaints += self._prefixes(recovered)
        complaints += _records(records, found)
        complaints += self.complaints
        self.complaints = []
        return complaints

    def _said(self, op: str, index: int, event: Event, records: dict[Record, dict[str, Any] | None]) -> Iterator[str]:
        """Whether an event says what its step asked, and what the record is then."""
        line = self.attempted.get(op)
        if line is None or index >= len(line.steps):
            yield f"position {event.position}: nobody attempted {op!r} step {index}"
            return
        step = line.steps[index]
        before = records.get(event.record)
        after, data = _effect(step, before)
        records[event.record] = after
        if (event.collection, event.key) != (step.collection, str(step.key)) or dict(event.data) != data:
            yield f"position {event.position}: {op} step {index} asked {step}, the event says {event}"

    def _whole(self, recovered: Mapping[str, list[Event]]) -> Iterator[str]:
        for op in self.acknowledged:
            if op not in recovered:
                yield f"{op}: acknowledged and lost"
        for op, events in recovered.items():
            asked = len(self.attempted[op].steps) if op in self.attempted else len(events)
            if len(events) != asked:
                yield f"{op}: {len(events)} of {asked} events are there"
            positions = [event.position for event in events]
            if positions != list(range(positions[0], positions[0] + len(positions))):
                yield f"{op}: its events are not together: {positions}"
            elif op in self.acknowledged and self.acknowledged[op] != positions:
                yield f"{op}: acknowledged at {self.acknowledged[op]}, is at {positions}"

    def _prefixes(self, recovered: Mapping[str, list[Event]]) -> Iterator[str]:
        """Of each writer's operations the first so many are there, in their order."""
        attempted: dict[str, list[str]] = defaultdict(list)
        for op in self.attempted:
            attempted[op.rpartition(".")[0]].append(op)
        for writer, operations in attempted.items():
            there = [op for op in operations if op in recovered]
            if there != operations[: len(there)]:
                yield f"writer {writer}: recovered {there} of {operations}"
            firsts = [recovered[op][0].position for op in there]
            if firsts != sorted(firsts):
                yield f"writer {writer}: out of order {firsts}"


def _effect(step: Step, before: dict[str, Any] | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """What a step makes of a record, None when it is not there, and what its event has to say."""
    if step.do == "delete":
        return None, {}
    old = before or {}
    data = {name: value for name, value in step.values.items() if name not in old or old[name] != value}
    return {**old, **step.values}, data


def _chain(bodies: Sequence[tuple[int, bytes]], events: Sequence[Event]) -> Iterator[str]:
    previous = bytes(32)
    for number, ((position, body), event) in enumerate(zip(bodies, events, strict=True), 1):
        if (position, event.seq, event.prev) != (number, number, previous):
            yield f"position {position}: seq {event.seq} does not follow event {number - 1}"
        previous = sha256(body).digest()


def _records(records: Mapping[Record, dict[str, Any] | None], found: Recovered) -> Iterator[str]:
    """Whether the tables and the CSV files hold the records that the events make, and no other."""
    wanted = {record: values for record, values in records.items() if values is not None}
    tables = {(name, key): row for name, rows in found.tables.items() for key, row in rows.items()}
    csv = {(name, key): row for name, rows in found.folders.items() for key, row in rows.items()}
    for name, have in (("tables", tables), ("folders", csv)):
        for record in sorted(wanted.keys() - have.keys()):
            yield f"{name}: {record} is missing"
        for record in sorted(have.keys() - wanted.keys()):
            yield f"{name}: {record} should not be there"
    for record, values in wanted.items():
        if record in tables and tables[record] != values:
            yield f"tables: {record} is {tables[record]}, not {values}"
        if record in csv and csv[record][1]["n"] != str(values["n"]):
            yield f"folders: {record} in {csv[record][0]} is {csv[record][1]}, not {values}"
