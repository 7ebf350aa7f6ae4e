"""What `refold export` does: the folders brought up to date, or records written out in a format that import takes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from refold import Record
from refold.batch import schema_for
from refold.errors import StorageFailed
from refold.moment import Moment
from refold.schema import Schema
from refold.values import TYPES
from refold_adapters.csv_cells import encode_rows
from refold_adapters.folders.content import DATA, EVENTS, META
from refold_adapters.folders.disk import INDEX
from refold_adapters.settings import FILE, load_settings

from .context import Settled, perform
from .output import document, json_text, say, write
from .reading import looked_at, pages


def write_records(
    settled: Settled, collection: str, kind: str, output: Path | None, at: Moment | None, *, neutralise: bool
) -> int:
    """Writes the records of a collection to stdout or a file, as they are or were at a moment; the exit code."""

    async def work() -> None:
        if output is not None and await asyncio.to_thread(_is_own, settled.root, output):
            raise click.UsageError(f"{output} is a file of the archive itself")
        async with settled.reading() as engine:
            source = engine if at is None else await looked_at(engine, at)
            writer = _Writer(schema_for(source.schemas, collection), kind, neutralise=neutralise)
            count = await _write_out(writer, pages(source.find(collection)), output)
        if settled.json and output is not None:
            document({"collection": collection, "records": count, "file": str(output)})
        elif not settled.quiet:
            say(f"wrote {count} records")

    return perform(work)


def settle_folders(settled: Settled) -> int:
    """Brings the folders up to date; the exit code."""
    return perform(lambda: _folders(settled))


def _is_own(root: Path, path: Path) -> bool:
    """Whether writing to `path` would replace the log, what was made of it, or the settings."""
    settings = load_settings(root)
    path = path.resolve()
    databases = (settings.changelog, settings.tables, INDEX)
    is_own = path.name.startswith(databases) or path.name in (FILE, DATA, META, EVENTS)
    return is_own and path.is_relative_to(root.resolve())


async def _folders(settled: Settled) -> None:
    async with settled.writing() as engine:
        await engine.settled()
        status = await engine.status()
    if settled.json:
        document({"position": status.position, "projections": status.projections})
    elif not settled.quiet:
        for projection in status.projections:
            write(f"{projection.name} {projection.state} at position {projection.position}\n")


class _Writer:
    """Spells pages of records in one format; all three are what import reads."""

    def __init__(self, schema: Schema, kind: str, *, neutralise: bool) -> None:
        self._schema = schema
        self._kind = kind
        self._neutralise = neutralise
        self._first = True
        self._texts = [TYPES[field.type].text for field in schema.collection.fields.values()]
        self._is_text = [field.type == "str" for field in schema.collection.fields.values()]

    def start(self) -> str:
        """What stands before the first record."""
        if self._kind == "csv":
            return encode_rows([self._schema.columns], neutralise=False)
        return "[\n" if self._kind == "json" else ""

    def end(self) -> str:
        """What stands after the last."""
        return ("]\n" if self._first else "\n]\n") if self._kind == "json" else ""

    def page(self, records: Sequence[Record]) -> str:
        """Some records."""
        if self._kind == "csv":
            rows = (self._cells(record) for record in records)
            return encode_rows(rows, neutralise=self._neutralise, text=self._is_text)
        lines = [json_text(record.values) for record in records]
        if self._kind == "jsonl":
            return "".join(line + "\n" for line in lines)
        lead = "" if self._first else ",\n"
        self._first = False
        return lead + ",\n".join(lines)

    def _cells(self, record: Record) -> list[str | None]:
        stored = self._schema.store(record.values)
        return [
            None if value is None else text(value) for value, text in zip(stored.values(), self._texts, strict=True)
        ]


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A new file that takes the name of `path` once it is whole."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise StorageFailed(str(path), "writing", str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


async def _write_out(writer: _Writer, records: AsyncIterator[list[Any]], output: Path | None) -> int:
    count = 0
    if output is None:
        sys.stdout.flush()
        await asyncio.to_thread(write, writer.start())
        async for page in records:
            count += len(page)
            await asyncio.to_thread(lambda part: write(writer.page(part)), page)
        await asyncio.to_thread(write, writer.end())
        return count
    replacing = _replacing(output)
    file = await asyncio.to_thread(replacing.__enter__)
    try:
        await asyncio.to_thread(file.write, writer.start())
        async for page in records:
            count += len(page)
            await asyncio.to_thread(lambda part: file.write(writer.page(part)), page)
        await asyncio.to_thread(file.write, writer.end())
    except BaseException as error:
        await asyncio.to_thread(replacing.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(replacing.__exit__, None, None, None)
    return count
