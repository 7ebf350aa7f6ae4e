"""The table beside the folders: which rows only one side has, which differ, and which side is newer.

SQLite finds what differs. Only that is looked at by the collection's rules: what equals a row of a folder is as good as
that, and rows that a program spelt otherwise, a number as text, are the same all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refold.errors import StorageFailed
from refold.schema import Schema
from refold_adapters.adopting.candidates import Finding, differing
from refold_adapters.adopting.layout import Described
from refold_adapters.sqlite_columns import quote
from refold_adapters.stored_cells import stored_cells

from .staging import PAGE, ROWS, DatabaseBusy, Staging, differs

PROGRAM = "program"
"""What the program's database is called while it is attached."""


def unreadable(staging: Staging, table: str) -> Finding | None:
    """Attaches the program's database; what is wrong where there is no such table, or none that can be read.

    Raises `DatabaseBusy`.
    """
    again = "`refold restore` brings it back"
    if not staging.db.is_file():
        return Finding("no-table", f"the database is not there; {again}", file=staging.db.name)
    try:
        with staging.failures("reading the database"):
            staging.attach(staging.db, PROGRAM, "ro")
            found = staging.connection.execute(f"PRAGMA {PROGRAM}.quick_check(1)").fetchone()[0]
            if found == "ok" and staging.columns(PROGRAM, table):
                return None
    except DatabaseBusy:
        raise
    except StorageFailed as error:
        found = error.reason
    detail = f"there is no table {table}" if found == "ok" else f"it cannot be read: {found}"
    return Finding("no-table" if found == "ok" else "database-damaged", f"{detail}; {again}", file=staging.db.name)


def compare(described: Described, staging: Staging, table: str) -> Iterator[Finding]:
    """What the attached table and the folders do not agree in. Raises `StorageFailed`.

    Kinds: `table-row` (a row that breaks a rule), `table-only`, `table-newer` (the row was changed after the folder was
    written), `table-differs`, `folder-only`.
    """
    with staging.failures(f"reading the table {table}"):
        yield from _of_table(described, staging, table)
        yield from _of_folders(staging, table)


def _of_table(described: Described, staging: Staging, table: str) -> Iterator[Finding]:
    schema, key = described.schema, quote(staging.key)
    columns = staging.columns(PROGRAM, table)
    names = staging.shared(columns)
    picked = ", ".join(f"one.{quote(name)}" for name in (staging.key, *names))
    other = ", ".join(f"two.{quote(name)}" for name in schema.columns)
    cursor = staging.connection.execute(
        f"SELECT two.rowid, two._refold_folder, {picked}, {other} FROM {PROGRAM}.{quote(table)} one"
        f" LEFT JOIN {ROWS} two ON two.{key} = one.{key} WHERE two.rowid IS NULL OR {differs('one', 'two', names)}"
    )
    while page := cursor.fetchmany(PAGE):
        for row_id, folder, *cells in page:
            mine = dict(zip((staging.key, *names), cells[: len(names) + 1], strict=True))
            theirs = dict(zip(schema.columns, cells[len(names) + 1 :], strict=True))
            yield from _judge(described, staging.db.name, mine, theirs if row_id is not None else None, folder)


def _judge(
    described: Described, database: str, mine: dict[str, Any], theirs: dict[str, Any] | None, folder: str | None
) -> Iterator[Finding]:
    schema = described.schema
    key = str(mine[schema.collection.key])
    values, wrong = stored_cells(schema, mine)
    for field, what in wrong:
        yield Finding("table-row", what, folder=folder, file=database, field=field, key=key)
    if theirs is None:
        if not wrong:
            yield Finding("table-only", "no folder has this row, or none that can be taken", file=database, key=key)
        return
    names = differing(values, theirs) if not wrong else _changed(schema, mine, theirs)
    if names:
        updated = described.layout.updated
        is_newer = updated is not None and described.millis(values.get(updated)) > described.millis(theirs[updated])
        kind = "table-newer" if is_newer else "table-differs"
        yield Finding(kind, f"table and folder differ in {', '.join(names)}", folder=folder, file=database, key=key)


def _changed(schema: Schema, mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [name for name in schema.columns if name in mine and str(mine[name] or "") != str(theirs[name] or "")]


def _of_folders(staging: Staging, table: str) -> Iterator[Finding]:
    key = quote(staging.key)
    cursor = staging.connection.execute(
        f"SELECT {key}, _refold_folder, _refold_row FROM {ROWS} WHERE {key} NOT IN"
        f" (SELECT {key} FROM {PROGRAM}.{quote(table)} WHERE {key} IS NOT NULL)"
    )
    while page := cursor.fetchmany(PAGE):
        for value, folder, row in page:
            yield Finding("folder-only", "the table has no such row", folder=folder, row=row, key=str(value))
