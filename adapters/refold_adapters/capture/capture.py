"""Captures what another program writes in a mirrored table: outbox in, events out.

Each write becomes an event with actor `capture`, in the order in which the program committed. It is written under a
request id made of the outbox's identity and the row's number, and leaves the outbox only once it is durable: whatever
is killed in between, it is written once. A program that had seen all there is of a record simply changes it. One that
had not, because somebody else changed the record meanwhile and the table did not show it yet, writes with what it had
seen as context, and meets conflict detection like any replica.

Of the rows that stood in the table when capture was installed nobody knows what their writer had seen. One that is just
what its record once was is stale, and is brought up to date; any other is taken for newer than the record.

A program that rewrites its whole table deletes rows and writes them again. A row that is deleted and written again
before it could be captured has changed by what differs, if anything does.

A write that the archive's rules do not allow stays in the outbox with the reason, until a later write of the same key
is taken; the program's row stays as the program wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import msgspec

from refold import Engine, Event
from refold.decide import Answered, Apart, Operation, Repeat, Request
from refold.errors import RecordUnknown, RefoldError, StorageFailed, StorePoisoned
from refold.fold import State, fold, latest
from refold.schema import Schema
from refold_adapters.stored_cells import stored_cells

from .bookkeeping import Captured
from .mirror_table import MirrorTable

ACTOR = "capture"
BATCH = 500
"""Rows of the outbox that are taken together."""

_MARK = "captured"


class CaptureReport(msgspec.Struct):
    """What was captured: events written, writes that changed nothing or were known, and those that were refused."""

    table: str
    written: int = 0
    unchanged: int = 0
    refused: int = 0


class Capture:
    """The capture of one mirrored table of an archive that is open for writing."""

    def __init__(self, engine: Engine, mirror: MirrorTable, *, actor: str = ACTOR, batch: int = BATCH) -> None:
        self._engine = engine
        self._mirror = mirror
        self._actor = actor
        self._batch = batch
        self._last = 0
        self.report = CaptureReport(mirror.table)

    async def drain(self) -> int:
        """Takes in what is in the outbox now; how many rows that were. Raises `CaptureStopped`, `StorageFailed`."""
        taken = 0
        look = True
        while rows := await self._engine.project(partial(self._mirror.waiting, self._last, self._batch, look=look)):
            look = False
            taken += len(rows)
            await self._take(rows)
            self._last = rows[-1].id
        return taken

    async def _take(self, rows: Sequence[Captured]) -> None:
        name = self._mirror.collection
        schema = self._engine.schemas[name]
        apart = await self._seen_less(schema, rows)
        stale = await self._stale(schema, [row for row in rows if row.position is None])
        requests, asked = [], []
        refusals: list[tuple[int, str]] = []
        done = [row for row in rows if row.id in stale or row.operation == "again"]
        self.report.unchanged += len(done)
        for row in rows:
            if row.id in stale or row.operation == "again":
                continue
            try:
                requests.append(self._request(schema, row, row.position if str(row.key) in apart else None))
                asked.append(row)
            except RefoldError as error:
                refusals.append((row.id, str(error)))
        answers = await self._engine.answers(Apart(requests)) if requests else []
        for row, answer in zip(asked, answers, strict=True):
            if self._is_taken(answer):
                done.append(row)
            else:
                refusals.append((row.id, str(answer)))
        self.report.refused += len(refusals)
        await self._engine.project(partial(self._mirror.settle, done, refusals))

    def _is_taken(self, answer: Answered) -> bool:
        """Whether the log has what was asked for; otherwise the answer is why it has not."""
        if isinstance(answer, StorageFailed | StorePoisoned):
            raise answer
        if isinstance(answer, Event):
            self.report.written += 1
        elif answer is None or isinstance(answer, Repeat | RecordUnknown):
            self.report.unchanged += 1
        else:
            return False
        return True

    def _request(self, schema: Schema, row: Captured, seen: int | None) -> Request:
        meta = {_MARK: f"{self._mirror.identity}:{row.id}"}
        key, request_id = str(row.key), f"capture:{self._mirror.identity}:{row.id}"
        if row.operation == "delete":
            return Request(Operation.DELETE, schema.name, key, {}, self._actor, meta, request_id=request_id, seen=seen)
        values, wrong = cells_of(schema, row.cells)
        if wrong:
            raise CellsRefused(schema.name, key, dict(wrong))
        return Request(Operation.PUT, schema.name, key, values, self._actor, meta, request_id=request_id, seen=seen)

    async def _seen_less(self, schema: Schema, rows: Sequence[Captured]) -> set[str]:
        """The keys that somebody else has written since the program could have seen them."""
        since: dict[str, int] = {}
        for row in rows:
            if row.position is not None:
                key = str(row.key)
                since[key] = min(since.get(key, row.position), row.position)
        records = [(schema.name, key) for key in since]
        found = await self._engine.events_of(records, after=min(since.values(), default=0))
        return {event.key for event in found if event.position > since[event.key] and not self._is_own(event)}

    async def _stale(self, schema: Schema, rows: Sequence[Captured]) -> set[int]:
        """The rows, of which nobody knows what their writer had seen, that are just what their record once was."""
        keys = {str(row.key): row for row in rows}
        states = await self._engine.states([(schema.name, key) for key in keys])
        differing: dict[str, dict[str, Any]] = {}
        for (_, key), state in states.items():
            values, wrong = cells_of(schema, keys[key].cells)
            if not wrong and not _holds(schema, state, values):
                differing[key] = values
        found: set[int] = set()
        running: dict[str, State] = {}
        for event in await self._engine.events_of([(schema.name, key) for key in differing]):
            state = running[event.key] = fold(running.get(event.key), event)
            if _holds(schema, state, differing[event.key]):
                found.add(keys[event.key].id)
        return found

    def _is_own(self, event: Event) -> bool:
        return event.meta.get(_MARK, "").startswith(f"{self._mirror.identity}:")


def cells_of(schema: Schema, cells: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What a row says of the fields that the table has columns for, and what of it cannot be taken.

    A column that has the name of a field in an earlier version is that field; one whose field was dropped says nothing.
    """
    fields = {column: schema.field_of(column) for column in cells}
    named = {field: cells[column] for column, field in fields.items() if field is not None and field != column}
    named |= {column: cell for column, cell in cells.items() if column in schema.types}
    values, wrong = stored_cells(schema, named)
    told = {name: value for name, value in values.items() if name in named}
    return told, [(name, why) for name, why in wrong if name in named]


def _holds(schema: Schema, state: State, values: Mapping[str, Any]) -> bool:
    """Whether a record has these values."""
    stands = {**schema.blank, **latest(schema.read(state))[0]}
    return all(stands.get(name) == value for name, value in values.items())


@dataclass(eq=False)
class CellsRefused(RefoldError):
    """A row of another program's table that the collection's rules do not allow: each field with the reason."""

    code: ClassVar[str] = "cells-refused"
    message: ClassVar[str] = "{collection} {key}: {wrong}"
    hint: ClassVar[str] = "correct the row in the program that wrote it, or relax the collection's rules"
    collection: str
    key: str
    wrong: dict[str, str]


def captures(engine: Engine, **options: Any) -> list[Capture]:
    """A capture of each table that an archive mirrors."""
    mirrors = [projection for projection in engine.projections if isinstance(projection, MirrorTable)]
    return [Capture(engine, mirror, **options) for mirror in mirrors]


async def capture_once(engine: Engine, **options: Any) -> list[CaptureReport]:
    """Takes in what every captured table's outbox holds now."""
    found = captures(engine, **options)
    for capture in found:
        await capture.drain()
    return [capture.report for capture in found]
