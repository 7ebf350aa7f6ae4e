"""Bringing a collection to the state that a file of records has.

The file is the whole state of its columns: a row whose record is already so writes nothing, one that differs writes the
fields that differ, and where asked, records that the file no longer has are deleted. Rows go to the engine in batches,
each one commit. A row that cannot be taken is reported and harms no other: when the engine refuses a batch, its rows
are handed over again each by itself, which group commit still makes one commit of.

A key that stands twice would make a full state ambiguous, and importing the file again would write again. So the first
row counts and the second is an error. The keys that were seen are kept in a temporary database on disk, which also
tells what is missing. When a row could not be read far enough to tell its key, nothing is deleted: it may be that row's
record.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from refold import Collection, Engine, Event, Field, Kind, RefoldError
from refold.decide import Apart, Operation, Repeat, Request
from refold.errors import (
    FieldUnknown,
    InputRefused,
    ReferenceMissing,
    RuleBroken,
    StorageFailed,
    UniqueTaken,
    ValueRefused,
)
from refold.schema import Schema
from refold.values import Refused, show

from .csv_cells import original_cell
from .inference import infer_fields
from .record_files import FileRow, RecordFile, RowError, bad_bytes, where
from .wording import Wording

BATCH = 1000
LISTED = 100_000
"""Errors that are kept to be listed; further ones are counted."""


class Report(msgspec.Struct, omit_defaults=False):
    """What an import did, row by row of the file; `unlisted` errors are beyond those in `failed`."""

    read: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: list[RowError] = msgspec.field(default_factory=list[RowError])
    unlisted: int = 0

    def fail(self, error: RowError) -> None:
        """Takes in a row that was not taken."""
        if len(self.failed) < LISTED:
            self.failed.append(error)
        else:
            self.unlisted += 1


class SeenKeys:
    """The keys of a file and the row of each, in a database that SQLite deletes by itself."""

    def __init__(self) -> None:
        try:
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._connection.execute("CREATE TABLE seen (key TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise StorageFailed("temporary directory", "noting the keys of the file", str(error)) from error

    def rows(self, keys: Sequence[str]) -> dict[str, int]:
        """The rows of those keys that have been seen."""
        found: dict[str, int] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ", ".join("?" * len(part))
            found.update(self._connection.execute(f"SELECT key, row FROM seen WHERE key IN ({marks})", part).fetchall())
        return found

    def add(self, keys: Mapping[str, int]) -> None:
        """Notes keys that were not seen before."""
        self._connection.executemany("INSERT INTO seen VALUES (?, ?)", keys.items())

    def close(self) -> None:
        """Forgets everything."""
        self._connection.close()


class Converter:
    """Makes requests of rows by the types of the fields."""

    def __init__(self, schema: Schema, file: RecordFile, wording: Wording, *, neutralised: bool = False) -> None:
        self._schema = schema
        self._file = file
        self._wording = wording
        self._meta = wording.meta
        self._key = schema.collection.key
        self._neutralised = neutralised
        self._columns = [(name, *self._parser(name)) for name in file.columns or ()]

    def _parser(self, name: str) -> tuple[str, Any]:
        field = self._schema.collection.fields[name]
        return ("?" if field.null else "") + field.type, self._schema.types[name].parse

    def request(self, row: FileRow) -> Request:
        """The request of a row. Raises `ValueRefused` or `FieldUnknown`."""
        values = row.cells if isinstance(row.cells, Mapping) else self._parsed(row.cells)
        stored = self._schema.store(values)
        key = stored.get(self._key)
        if key is None:
            raise ValueRefused(self._schema.name, self._key, "the key is required", "nothing")
        return Request(Operation.PUT, self._schema.name, str(key), stored, self._wording.actor, self._meta)

    def _parsed(self, cells: Sequence[str | None]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for (name, kind, parse), cell in zip(self._columns, cells, strict=True):
            if kind == "str":
                values[name] = original_cell(cell) if cell and self._neutralised else cell or ""
            elif kind == "?str":
                values[name] = original_cell(cell) if cell and self._neutralised else cell
            elif cell:
                try:
                    values[name] = parse(cell)
                except Refused as error:
                    raise ValueRefused(self._schema.name, name, str(error), show(cell)) from None
            elif kind[0] == "?":
                values[name] = None
            else:
                raise ValueRefused(self._schema.name, name, "must not be empty", "nothing")
        return values

    def key_of(self, row: FileRow) -> str | None:
        """The key of a row that was refused, when it can be told."""
        cell: Any
        try:
            if isinstance(row.cells, Mapping):
                cell = row.cells[self._key]
            else:
                cell = row.cells[[name for name, *_ in self._columns].index(self._key)]
            return self._schema.key_text(cell)
        except (KeyError, ValueRefused):
            return None

    def error(self, row: FileRow, error: RefoldError) -> RowError:
        """Why a row is refused."""
        at = where(row.number, row.line)
        field = error.field if isinstance(error, ValueRefused | ReferenceMissing | UniqueTaken) else None
        if isinstance(error, FieldUnknown):
            field = next(name for name in row.cells if name not in self._schema.collection.fields)
            error = FieldUnknown(self._schema.name, str(field), list(self._schema.columns))
        if isinstance(row.cells, Sequence):
            for (name, *_), cell in zip(self._columns, row.cells, strict=True):
                if cell and (bad := bad_bytes(cell)):
                    why = f"byte 0x{bad[0]:02X} is not {self._file.encoding}; say which encoding with --encoding"
                    return RowError(row.number, name, "bad-encoding", f"field {name!r}: {why}{at}")
        return RowError(row.number, field, error.code, f"{error}{at}")


class _Prepared(msgspec.Struct):
    """A batch on its way to the engine."""

    read: int = 0
    rows: list[FileRow] = []
    requests: list[Request] = []
    errors: list[RowError] = []
    keyless: bool = False


class Importer:
    """One import of one file into one collection, which is defined."""

    def __init__(
        self, engine: Engine, collection: str, file: RecordFile, wording: Wording, *, neutralised: bool, batch: int
    ) -> None:
        self._engine = engine
        self._schema = engine.schemas[collection]
        self._file = file
        self._wording = wording
        self._batch = batch
        self._rows = file.rows()
        self._converter = Converter(self._schema, file, wording, neutralised=neutralised)
        self._keyless = False
        self.report = Report()

    async def run(self, *, delete_missing: bool) -> Report:
        """Imports the file. Raises what makes all of it fail; what was written until then stays."""
        seen = await asyncio.to_thread(SeenKeys)
        try:
            prepared = await asyncio.to_thread(self._prepare, seen)
            while prepared.read:
                following = asyncio.create_task(asyncio.to_thread(self._prepare, seen))
                try:
                    await self._write(prepared)
                finally:
                    await asyncio.wait({following})
                prepared = following.result()
            if delete_missing:
                await self._delete_missing(seen)
        finally:
            await asyncio.to_thread(seen.close)
        return self.report

    def _prepare(self, seen: SeenKeys) -> _Prepared:
        prepared = _Prepared()
        known: list[tuple[str, int]] = []
        for row in islice(self._rows, self._batch):
            prepared.read += 1
            if isinstance(row, RowError):
                prepared.errors.append(row)
                prepared.keyless = True
                continue
            try:
                request = self._converter.request(row)
                key: str | None = request.key
            except RefoldError as error:
                prepared.errors.append(self._converter.error(row, error))
                key = self._converter.key_of(row)
                request = None
            if key is None:
                prepared.keyless = True
                continue
            known.append((key, row.number))
            if request is not None:
                prepared.rows.append(row)
                prepared.requests.append(request)
        self._refuse_twins(prepared, known, seen)
        return prepared

    def _refuse_twins(self, prepared: _Prepared, known: list[tuple[str, int]], seen: SeenKeys) -> None:
        earlier = seen.rows([key for key, _ in known])
        fresh: dict[str, int] = {}
        for key, number in known:
            if key not in earlier:
                fresh.setdefault(key, number)
        seen.add(fresh)
        first = {**earlier, **fresh}
        if len(fresh) == len(known):
            return
        kept = []
        for row, request in zip(prepared.rows, prepared.requests, strict=True):
            if first[request.key] == row.number:
                kept.append((row, request))
                continue
            at = where(row.number, row.line)
            message = f"key {show(request.key)} stands in row {first[request.key]} already{at}"
            prepared.errors.append(RowError(row.number, self._schema.collection.key, "duplicate-key", message))
        prepared.rows = [row for row, _ in kept]
        prepared.requests = [request for _, request in kept]

    async def _write(self, prepared: _Prepared) -> None:
        report = self.report
        report.read += prepared.read
        self._keyless = self._keyless or prepared.keyless
        errors = prepared.errors
        try:
            answers: Sequence[Event | RefoldError | None] = (
                await self._engine.submit(prepared.requests) if prepared.requests else []
            )
        except (StorageFailed, OSError):
            raise
        except RefoldError:
            answers = await self._each_alone(prepared.requests)
        for row, answer in zip(prepared.rows, answers, strict=True):
            if isinstance(answer, RefoldError):
                errors.append(self._converter.error(row, answer))
            elif answer is None:
                report.unchanged += 1
            elif answer.kind is Kind.CREATE:
                report.created += 1
            else:
                report.updated += 1
        for error in sorted(errors, key=lambda error: error.row or 0):
            report.fail(error)

    async def _each_alone(self, requests: Sequence[Request]) -> list[Event | RefoldError | None]:
        """Hands over requests that are answered each by itself; what refuses one says nothing of the others."""
        answers: list[Event | RefoldError | None] = []
        for answer in await self._engine.answers(Apart(requests)):
            if isinstance(answer, RefoldError) and not isinstance(answer, ValueRefused | RuleBroken):
                raise answer
            answers.append(answer.event if isinstance(answer, Repeat) else answer)
        return answers

    async def _delete_missing(self, seen: SeenKeys) -> None:
        if self._keyless:
            message = "nothing was deleted: a row's key could not be read, and its record may only seem to be missing"
            self.report.fail(RowError(None, None, "delete-skipped", message))
            return
        keys: list[str] = []
        async for record in self._engine.find(self._schema.name):
            keys.append(record.key)
            if len(keys) >= self._batch:
                await self._delete_unseen(keys, seen)
                keys = []
        await self._delete_unseen(keys, seen)

    async def _delete_unseen(self, keys: list[str], seen: SeenKeys) -> None:
        there = await asyncio.to_thread(seen.rows, keys)
        name, actor, meta = self._schema.name, self._wording.actor, self._wording.meta
        requests = [Request(Operation.DELETE, name, key, {}, actor, meta) for key in keys if key not in there]
        if requests:
            for request, answer in zip(requests, await self._engine.answers(Apart(requests)), strict=True):
                if isinstance(answer, RuleBroken):
                    self.report.fail(RowError(None, None, answer.code, f"{request.key} was not deleted: {answer}"))
                elif isinstance(answer, RefoldError):
                    raise answer
                else:
                    self.report.deleted += answer is not None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to import: which file as what, and what to do about what is not defined."""

    path: Path
    kind: str | None = None
    encoding: str = "utf-8"
    key: str | None = None
    folder: str | None = None
    add_fields: bool = False
    neutralised: bool = False
    delete_missing: bool = False
    batch: int = BATCH


class KeyNeeded(InputRefused):
    """A collection that is not defined cannot be inferred without knowing its key."""


def _scan(plan: Plan, key: str | None) -> Mapping[str, Field]:
    file = RecordFile(plan.path, plan.kind, plan.encoding)
    try:
        return infer_fields(file.rows(), file.columns, key)
    finally:
        file.close()


def _refuse_columns(file: RecordFile, schema: Schema) -> None:
    """Raises `InputRefused` where the header does not fit the collection."""
    if file.columns is None:
        return
    key = schema.collection.key
    if key not in file.columns:
        raise file.refuse(
            f"it has no column {key!r}, the key of {schema.name}; its columns are {', '.join(file.columns)}"
        )
    unknown = [name for name in file.columns if name not in schema.collection.fields]
    if unknown:
        known = ", ".join(schema.columns)
        raise file.refuse(
            f"{schema.name} has no field {', '.join(unknown)}; it has {known}."
            " Rename the column, add the field with define, or say --add-fields"
        )


async def _define(engine: Engine, name: str, plan: Plan, wording: Wording) -> None:
    """Defines the collection as the file has it, or the fields that are new in the file."""
    known = engine.schemas.get(name)
    if known is None:
        if plan.key is None:
            raise KeyNeeded(
                str(plan.path),
                f"collection {name!r} is not defined; say --key FIELD (and --folder TEMPLATE) to infer it",
            )
        fields = await asyncio.to_thread(_scan, plan, plan.key)
        if plan.key not in fields:
            raise InputRefused(
                str(plan.path), f"it has no column {plan.key!r} to be the key; its columns are {', '.join(fields)}"
            )
        folder = plan.folder if plan.folder is not None else name
        wanted = Collection(name=name, key=plan.key, fields=dict(fields), folder=folder)
    elif plan.add_fields:
        found = await asyncio.to_thread(_scan, plan, None)
        fresh = {
            field: spec if spec.default == "" else Field(spec.type, null=True)
            for field, spec in found.items()
            if field not in known.collection.fields
        }
        if not fresh:
            return
        wanted = msgspec.structs.replace(known.collection, fields={**known.collection.fields, **fresh})
    else:
        return
    await engine.define(wanted, actor=wording.actor, reason=wording.reason)


def _refuse_difference(schema: Schema | None, plan: Plan) -> None:
    """Raises `InputRefused` where the plan says otherwise than the definition."""
    if schema is None:
        return
    for option, wanted, found in (
        ("--key", plan.key, schema.collection.key),
        ("--folder", plan.folder, schema.collection.folder),
    ):
        if wanted is not None and wanted != found:
            raise InputRefused(
                str(plan.path), f"{schema.name} is defined with {option} {found!r}, not {wanted!r}; define changes it"
            )


async def import_file(
    engine: Engine, collection: str, plan: Plan, wording: Wording, progress: Callable[[int], None] = lambda done: None
) -> Report:
    """Imports a file into a collection, which is inferred when it is not defined; `progress` is told bytes.

    Raises `InputRefused`, `DefinitionRefused` and `StorageFailed`; what was written until then stays.
    """
    _refuse_difference(engine.schemas.get(collection), plan)
    await _define(engine, collection, plan, wording)
    file = await asyncio.to_thread(RecordFile, plan.path, plan.kind, plan.encoding, progress)
    try:
        _refuse_columns(file, engine.schemas[collection])
        importer = Importer(engine, collection, file, wording, neutralised=plan.neutralised, batch=max(1, plan.batch))
        return await importer.run(delete_missing=plan.delete_missing)
    finally:
        await asyncio.to_thread(file.close)
