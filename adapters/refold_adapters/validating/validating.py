"""Records of a file or of a collection against the definition: every bad one, each with all that is wrong with it.

Fields are looked at by `pool`; what takes a look elsewhere (documents that have to be there, records that are referred
to, keys that stand twice) is looked at here, a chunk at a time. One bad record stops nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from refold.batch import schema_for
from refold.decide import settled_values
from refold.errors import RefoldError
from refold.reader import Reader
from refold.schema import Schema
from refold.values import show
from refold_adapters.documents.paths import Absent, Below
from refold_adapters.importing import SeenKeys
from refold_adapters.record_files import FileRow, RecordFile, RowError
from refold_adapters.sqlite_connection import failures

from .checks import FieldError, Row
from .pool import Pool

CHUNK = 1000
LIMIT = 1.0
"""Seconds for which one record is looked at."""


class Invalid(msgspec.Struct, frozen=True):
    """A record that is not as its collection wants it: its row in the file, its key where it has one, what is wrong."""

    row: int | None
    key: str | None
    errors: list[FieldError]


class _Entry(msgspec.Struct, frozen=True):
    """A record on its way: what it is called, and what can be looked at of it, or why nothing can."""

    number: int | None
    key: str | None
    row: Row | None
    error: FieldError | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at: the records of a collection, or of a file, each for `limit` seconds, by so many processes."""

    collection: str
    path: Path | None = None
    kind: str | None = None
    encoding: str = "utf-8"
    limit: float = LIMIT
    jobs: int = 0


class Validation:
    """One look; `checked` and `invalid` count records as it goes on."""

    def __init__(self, engine: Reader, root: Path, plan: Plan, tell: Callable[[str, int], None]) -> None:
        self.checked = 0
        self.invalid = 0
        self._engine = engine
        self._root = root
        self._plan = plan
        self._schema = schema_for(engine.schemas, plan.collection)
        self._tell = tell
        self._seen: SeenKeys | None = None

    async def run(self) -> AsyncGenerator[Invalid, None]:
        """The bad records, in their order. Raises `InputRefused` for a file that is not what it is said to be."""
        jobs = self._plan.jobs or min(4, os.cpu_count() or 1)
        pool: Pool[list[_Entry]] = Pool(self._schema, limit=self._plan.limit, jobs=jobs)
        self._seen = await asyncio.to_thread(SeenKeys) if self._plan.path is not None else None
        try:
            async with pool, aclosing(self._chunks()) as chunks, aclosing(pool.results(chunks)) as results:
                async for entries, errors in results:
                    for found in await self._judged(entries, errors):
                        yield found
                    self._tell("records", self.checked)
        finally:
            if self._seen is not None:
                await asyncio.to_thread(self._seen.close)

    async def _chunks(self) -> AsyncGenerator[tuple[list[_Entry], list[Row]], None]:
        if self._plan.path is None:
            columns = self._schema.columns
            async for page in self._engine.fields(self._schema.name, columns):
                entries = [_Entry(None, row[0], Row(0, dict(zip(columns, row[1:], strict=True)))) for row in page]
                yield entries, [entry.row for entry in entries if entry.row is not None]
            return
        file = await asyncio.to_thread(RecordFile, self._plan.path, self._plan.kind, self._plan.encoding)
        try:
            rows = file.rows()
            while entries := await asyncio.to_thread(self._read, file, rows):
                yield entries, [entry.row for entry in entries if entry.row is not None]
        finally:
            await asyncio.to_thread(file.close)

    def _read(self, file: RecordFile, rows: Iterator[FileRow | RowError]) -> list[_Entry]:
        entries = []
        for row in islice(rows, CHUNK):
            if isinstance(row, RowError):
                entries.append(_Entry(row.row, None, None, FieldError(row.field, row.code, row.message)))
                continue
            if file.columns is None:
                read = Row(row.number, row.cells)  # type: ignore[arg-type]
            else:
                read = Row(row.number, dict(zip(file.columns, row.cells, strict=True)), True)
            entries.append(_Entry(row.number, self._key(read), read))
        return entries

    def _key(self, row: Row) -> str | None:
        cell = row.cells.get(self._schema.collection.key)
        try:
            return self._schema.key_text(cell)
        except RefoldError:
            return None

    async def _judged(self, entries: list[_Entry], errors: list[list[FieldError]]) -> list[Invalid]:
        """The bad ones of a chunk, with what only others can tell."""
        answers = iter(errors)
        told = [list(next(answers)) if entry.row is not None else [entry.error] for entry in entries]
        wrong: list[list[FieldError]] = [[error for error in found if error is not None] for found in told]
        await asyncio.to_thread(self._look_around, entries, wrong)
        await self._look_for_targets(entries, wrong)
        self.checked += len(entries)
        bad = [Invalid(entry.number, entry.key, found) for entry, found in zip(entries, wrong, strict=True) if found]
        self.invalid += len(bad)
        return bad

    def _look_around(self, entries: list[_Entry], wrong: list[list[FieldError]]) -> None:
        """Adds keys that stand twice, and documents that are not there."""
        if self._seen is not None:
            self._refuse_twins(self._seen, entries, wrong)
        if not self._schema.collection.documents:
            return
        with failures(self._root, "looking for documents"), closing(Below(self._root)) as below:
            for entry, found in zip(entries, wrong, strict=True):
                for field in self._schema.collection.documents:
                    path = entry.row.cells.get(field) if entry.row is not None else None
                    if not path or not isinstance(path, str):
                        continue
                    try:
                        below.look(path)
                    except Absent as absent:
                        found.append(FieldError(field, absent.kind, f"{show(path)}: {absent.detail}"))

    def _refuse_twins(self, seen: SeenKeys, entries: list[_Entry], wrong: list[list[FieldError]]) -> None:
        earlier = seen.rows([entry.key for entry in entries if entry.key is not None])
        fresh: dict[str, int] = {}
        for entry, found in zip(entries, wrong, strict=True):
            if entry.key is None or entry.number is None:
                continue
            first = earlier.get(entry.key, fresh.setdefault(entry.key, entry.number))
            if first != entry.number:
                message = f"key {show(entry.key)} stands in row {first} already"
                found.append(FieldError(self._schema.collection.key, "duplicate-key", message))
        seen.add({key: number for key, number in fresh.items() if key not in earlier})

    async def _look_for_targets(self, entries: list[_Entry], wrong: list[list[FieldError]]) -> None:
        """Adds references to records that are not there; rows of one file may refer to each other."""
        for field, target in self._schema.references.items():
            schema = self._engine.schemas.get(target)
            if schema is None or (self._plan.path is not None and target == self._schema.name):
                continue
            asked = [_key_text(schema, entry.row.cells.get(field)) if entry.row else None for entry in entries]
            states = await self._engine.states(sorted({(target, key) for key in asked if key is not None}))
            there = {
                key
                for (_, key), state in states.items()
                if settled_values(state, (target, key), schema, lambda _: ())[1]
            }
            for key, found in zip(asked, wrong, strict=True):
                if key is not None and key not in there:
                    message = f"it refers to {target} {show(key)}, which is missing"
                    found.append(FieldError(field, "reference-missing", message))


def _key_text(schema: Schema, value: Any) -> str | None:
    """The key that a reference leads to; None for a null, and for what no key can be, which is told elsewhere."""
    if value is None or value == "":
        return None
    try:
        return schema.key_text(value)
    except RefoldError:
        return None
