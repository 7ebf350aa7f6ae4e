"""Installing capture in another program's database, and taking it out again.

Installing notes the table in `refold.toml`, adds the bookkeeping, and puts every row into the outbox once, so that what
was written before is taken in too. Installing again does the same after the table has changed. Taking it out empties
the outbox first; then the database is as it was.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

import refold
from refold import Collection, Field
from refold.errors import InputRefused, StorageFailed
from refold.opening import random_id
from refold.versions import retired
from refold_adapters.settings import FILE, MirrorSetting, load_mirrors

from . import bookkeeping
from .bookkeeping import CaptureStopped, in_thread
from .capture import ACTOR, CaptureReport, capture_once

_FIELDS = (("INT", "int"), ("CHAR", "str"), ("CLOB", "str"), ("TEXT", "str"), ("BLOB", "bytes"), ("REAL", "float"))
_MORE = (("FLOA", "float"), ("DOUB", "float"))
_quoted = msgspec.json.Encoder().encode


def collection_for(connection: sqlite3.Connection, table: str, name: str) -> Collection:
    """A collection with a field a column, by the types that SQLite sees in their declarations (its rules of affinity,
    https://www.sqlite.org/datatype3.html); a column of no such type takes any value, as JSON.
    """
    mirror = bookkeeping.described(connection, table, name, "")
    fields = {}
    for column, declared, is_key in bookkeeping.columns_of(connection, table):
        kind = next((kind for part, kind in (*_FIELDS, *_MORE) if part in declared), "json")
        fields[column] = Field(kind, null=not is_key)
    return Collection(name=name, key=mirror.key, fields=fields, neutralise=False)


def _read(path: Path, table: str, collection: str) -> tuple[MirrorSetting, Collection]:
    connection = bookkeeping.connect(path)
    try:
        row = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)).fetchone()
        if row is None:
            raise CaptureStopped(table, "it is not there")
        return (
            MirrorSetting(path.name, table, collection, row[0]),
            collection_for(connection, table, collection),
        )
    finally:
        connection.close()


def _add(path: Path, setting: MirrorSetting, *, polls: bool) -> None:
    """Adds the bookkeeping and puts every row into the outbox."""
    connection = bookkeeping.connect(path)
    try:
        with bookkeeping.immediate(connection):
            mirror = bookkeeping.described(connection, setting.table, setting.collection, random_id())
            known = bookkeeping.load_mirror(connection, setting.table)
            if known is not None:
                mirror = msgspec.structs.replace(mirror, identity=known.identity)
            mirror = msgspec.structs.replace(mirror, polls=polls)
            bookkeeping.install(connection, mirror)
            bookkeeping.enter_all(connection, mirror)
    finally:
        connection.close()


def _remove(path: Path, table: str) -> None:
    connection = bookkeeping.connect(path)
    try:
        with bookkeeping.immediate(connection):
            bookkeeping.uninstall(connection, table)
    finally:
        connection.close()


def _rewrite(root: Path, change: Callable[[str], str]) -> None:
    """Changes the text of `refold.toml`, atomically."""
    path = root / FILE
    beside = path.with_name(f"{FILE}.partial")
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        with beside.open("w", encoding="utf-8") as file:
            file.write(change(text))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise StorageFailed(str(path), "writing the settings", str(error)) from error


def _block(setting: MirrorSetting) -> str:
    values = msgspec.structs.asdict(setting).items()
    return "\n[[mirrors]]\n" + "".join(f"{name} = {_quoted(value).decode()}\n" for name, value in values)


def without(text: str, table: str) -> str:
    """The text of `refold.toml` without the mirror of a table."""
    line = re.escape(f"table = {_quoted(table).decode()}")
    return re.sub(rf"\n?\[\[mirrors\]\]\n(?:(?!\[)[^\n]*\n)*?{line}\n(?:(?!\[)[^\n]+\n)*", "", text)


async def install(
    root: Path, database: str, table: str, collection: str | None = None, *, polls: bool = False
) -> CaptureReport:
    """Begins to capture a table, or goes on after it has changed, and takes in what stands in it.

    With `polls` the table is compared with how it was seen last, and gets no triggers. The collection is defined by the
    table's columns where it is not defined yet; columns that it lacks become fields.
    Raises `CaptureStopped`, `InputRefused`, `DefinitionRefused`, `Locked`, `StorageFailed`.
    """
    path = root / database
    if "/" in database or not await asyncio.to_thread(path.is_file):
        raise InputRefused(str(path), "it is no database in the archive's directory")
    name = collection or table
    setting, wanted = await asyncio.to_thread(in_thread, path, "reading the table", lambda: _read(path, table, name))
    is_again = any(known.table == table for known in await asyncio.to_thread(load_mirrors, root))
    if is_again:
        await asyncio.to_thread(in_thread, path, "installing capture", lambda: _add(path, setting, polls=polls))
    async with refold.open(root, create=False, actor=ACTOR) as engine:
        known = engine.schemas.get(name)
        if known is not None:
            gone = retired(known.collection.steps)
            missing = {
                column: field
                for column, field in wanted.fields.items()
                if known.field_of(column) is None and column not in gone
            }
            fields = {**known.collection.fields, **missing}
            wanted = msgspec.structs.replace(known.collection, fields=fields)
        await engine.define(wanted)
    if not is_again:
        await asyncio.to_thread(in_thread, path, "installing capture", lambda: _add(path, setting, polls=polls))
    await asyncio.to_thread(_rewrite, root, lambda text: without(text, table) + _block(setting))
    async with refold.open(root, create=False) as engine:
        reports = await capture_once(engine)
    return next(report for report in reports if report.table == table)


async def uninstall(root: Path, table: str) -> CaptureReport:
    """Takes in what is left in the outbox, and leaves the database as it was. Raises as `install` does."""
    settings = {setting.table: setting for setting in await asyncio.to_thread(load_mirrors, root)}
    if table not in settings:
        raise InputRefused(str(root / FILE), f"it names no mirror of table {table!r}")
    path = root / settings[table].database
    async with refold.open(root, create=False) as engine:
        reports = await capture_once(engine)
    report = next(report for report in reports if report.table == table)
    await asyncio.to_thread(_rewrite, root, lambda text: without(text, table))
    await asyncio.to_thread(in_thread, path, "taking capture out", lambda: _remove(path, table))
    return report


class Refusal(msgspec.Struct, frozen=True):
    """A write that the archive would not take."""

    key: str
    why: str


class TableStatus(msgspec.Struct, frozen=True):
    """How a captured table stands: how many writes wait, what was refused, and what is wrong with it, if anything."""

    database: str
    table: str
    collection: str
    waiting: int
    refused: list[Refusal]
    problem: str | None = None


def table_status(path: Path, setting: MirrorSetting) -> TableStatus:
    """Looks at a captured table. Raises what SQLite raises."""
    about = (setting.database, setting.table, setting.collection)
    if not path.is_file():
        return TableStatus(*about, 0, [], "the database is not there")
    connection = bookkeeping.connect(path)
    try:
        mirror = bookkeeping.load_mirror(connection, setting.table)
        if mirror is None:
            return TableStatus(*about, 0, [], "capture is not installed in it")
        refusals = [Refusal(str(key), why) for _, key, why in bookkeeping.refused(connection, mirror)]
        waiting = bookkeeping.count_waiting(connection, mirror)
        try:
            bookkeeping.check_table(connection, mirror)
        except CaptureStopped as error:
            return TableStatus(*about, waiting, refusals, error.why)
        return TableStatus(*about, waiting, refusals)
    finally:
        connection.close()
