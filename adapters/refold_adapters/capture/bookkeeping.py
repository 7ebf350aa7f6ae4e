"""What refold keeps in another program's database: `refold_mirrors`, and for each table an outbox and three triggers.

A trigger puts each row that the program writes into the outbox, in the program's own transaction, so a write is
captured exactly when it is committed, whatever is killed at whatever moment. Beside the row stands the position of the
log that the table's row was of: what the program can have seen. A row that waits in the outbox is not brought up to the
log, so a second write of it notes the position of the first. What refold writes itself raises `applying` for as long as
its transaction lasts, and the triggers stay silent. `written` counts the rows that ever were in the outbox, so that no
number is given twice.

Nothing here changes the journal mode, or any other setting of the database.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote as quote_path

import msgspec

from refold.errors import RefoldError, StorageFailed
from refold.events import Head
from refold_adapters.sqlite_columns import quote
from refold_adapters.sqlite_connection import failures

from . import polling

T = TypeVar("T")

WAIT_SECONDS = 30.0
"""How long another program may hold its database before refold gives up."""

_RETRY_SECONDS = 0.0005

_MIRRORS = """
CREATE TABLE IF NOT EXISTS refold_mirrors (
    name TEXT PRIMARY KEY, collection TEXT NOT NULL, key TEXT NOT NULL, columns TEXT NOT NULL, identity TEXT NOT NULL,
    polls INTEGER NOT NULL,
    applying INTEGER NOT NULL DEFAULT 0, written INTEGER NOT NULL DEFAULT 0,
    position INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0, heads BLOB)
"""

_TRIGGERS = ("insert", "update", "delete", "move")
_heads = msgspec.msgpack.Decoder(dict[str, Head])


@dataclass(eq=False)
class CaptureStopped(RefoldError):
    """A captured table is not as it was when capture was installed; nothing that was captured is lost."""

    code: ClassVar[str] = "capture-stopped"
    message: ClassVar[str] = "table {table!r}: {why}"
    hint: ClassVar[str] = "run refold capture install again: it takes in what changed"
    table: str
    why: str


class Captured(msgspec.Struct):
    """One row of the outbox: `put` or `delete` of a key, by a program that had seen the log up to `position`.

    A delete of a key that was written again before it could be captured is `again`: together they are one change.
    """

    id: int
    operation: str
    position: int | None
    key: Any
    cells: dict[str, Any]


class Mirror(msgspec.Struct, frozen=True):
    """A table that mirrors a collection, as `refold_mirrors` describes it; `polls` where it has no triggers."""

    name: str
    collection: str
    key: str
    columns: list[str]
    identity: str
    polls: bool = False


def connect(path: Path) -> sqlite3.Connection:
    """A connection that leaves the database's settings alone, and waits for the program that holds it."""
    with failures(path, "opening the database"):
        connection = sqlite3.connect(
            f"file:{quote_path(str(path.absolute()))}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=WAIT_SECONDS,
        )
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return connection


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that holds the right to write from its start.

    SQLite waits for that by trying ever more seldom, and a program that commits in a tight loop leaves it no gap. So it
    is asked for every half millisecond.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
    connection.execute(f"PRAGMA busy_timeout = {int(WAIT_SECONDS * 1000)}").fetchall()
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def columns_of(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, bool]]:
    """The columns of a table: name, declared type, whether it is of the primary key; none where there is no table."""
    rows = connection.execute("SELECT name, type, pk FROM pragma_table_info(?) ORDER BY cid", (table,)).fetchall()
    return [(name, declared.upper(), bool(pk)) for name, declared, pk in rows]


def outbox_name(table: str) -> str:
    """The outbox of a table."""
    return f"refold_outbox_{table}"


def _trigger(table: str, what: str) -> str:
    return quote(f"refold_{table}_{what}")


def install(connection: sqlite3.Connection, mirror: Mirror) -> None:
    """Adds the bookkeeping, or brings it up to the table's present columns; what is in the outbox stays there."""
    table, outbox = quote(mirror.name), quote(outbox_name(mirror.name))
    drop_triggers(connection, mirror.name)
    connection.execute(_MIRRORS)
    connection.execute(
        "INSERT INTO refold_mirrors (name, collection, key, columns, identity, polls) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET collection = excluded.collection, columns = excluded.columns,"
        " polls = excluded.polls",
        (mirror.name, mirror.collection, mirror.key, _json(mirror.columns), mirror.identity, mirror.polls),
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {outbox} (id INTEGER PRIMARY KEY, operation TEXT NOT NULL,"
        f" position INTEGER, key, why TEXT)"
    )
    connection.execute(f"CREATE INDEX IF NOT EXISTS {quote(outbox_name(mirror.name) + '_key')} ON {outbox} (key)")
    there = {name for name, _, _ in columns_of(connection, outbox_name(mirror.name))}
    for column in mirror.columns:
        if f"c_{column}" not in there:
            connection.execute(f"ALTER TABLE {outbox} ADD COLUMN {quote(f'c_{column}')}")
    if mirror.polls:
        polling.create(connection, mirror)
        return
    name = "'" + mirror.name.replace("'", "''") + "'"
    silent = f"(SELECT applying FROM refold_mirrors WHERE name = {name}) = 0"
    key = quote(mirror.key)
    names = ", ".join(quote(f"c_{column}") for column in mirror.columns)
    cells = ", ".join(f"NEW.{quote(column)}" for column in mirror.columns)

    def seen(row: str) -> str:
        before = f"SELECT min(position) FROM {outbox} WHERE key = {row}.{key}"
        return f"coalesce(({before}), (SELECT seen FROM refold_mirrors WHERE name = {name}))"

    count = f"UPDATE refold_mirrors SET written = written + 1 WHERE name = {name}; INSERT INTO {outbox}"
    number = f"(SELECT written FROM refold_mirrors WHERE name = {name})"
    put = (
        f"{count} (id, operation, position, key, {names}) VALUES ({number}, 'put', {seen('NEW')}, NEW.{key}, {cells});"
    )
    gone = f"{count} (id, operation, position, key) VALUES ({number}, 'delete', {seen('OLD')}, OLD.{key});"
    for what, when, body in (
        ("insert", silent, put),
        ("update", silent, put),
        ("delete", silent, gone),
        ("move", f"{silent} AND OLD.{key} IS NOT NEW.{key}", gone),
    ):
        kind = "UPDATE" if what == "move" else what.upper()
        moment = "BEFORE" if what == "move" else "AFTER"
        connection.execute(
            f"CREATE TRIGGER {_trigger(mirror.name, what)} {moment} {kind} ON {table} WHEN {when} BEGIN {body} END"
        )


def has_rows(connection: sqlite3.Connection, table: str) -> bool:
    """Whether there is anything in a table."""
    return bool(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {quote(table)})").fetchone()[0])


def described(connection: sqlite3.Connection, table: str, collection: str, identity: str) -> Mirror:
    """How a table can be mirrored. Raises `CaptureStopped` when it is not there, or its key is not one column."""
    columns = columns_of(connection, table)
    keys = [name for name, _, is_key in columns if is_key]
    if not columns:
        raise CaptureStopped(table, "it is not there")
    if len(keys) != 1:
        raise CaptureStopped(table, f"its primary key has {len(keys)} columns, and must have one")
    return Mirror(table, collection, keys[0], [name for name, _, _ in columns], identity)


def enter_all(connection: sqlite3.Connection, mirror: Mirror) -> None:
    """Puts every row into the outbox, as written by a program of which nobody knows what it had seen."""
    names = ", ".join(quote(f"c_{column}") for column in mirror.columns)
    columns = ", ".join(map(quote, mirror.columns))
    key = quote(mirror.key)
    connection.execute(
        f"INSERT INTO {quote(outbox_name(mirror.name))} (id, operation, key, {names})"
        f" SELECT row_number() OVER (ORDER BY {key}) + (SELECT written FROM refold_mirrors WHERE name = ?),"
        f" 'put', {key}, {columns} FROM {quote(mirror.name)}",
        (mirror.name,),
    )
    connection.execute(
        f"UPDATE refold_mirrors SET written = written + (SELECT count(*) FROM {quote(mirror.name)}) WHERE name = ?",
        (mirror.name,),
    )


def drop_triggers(connection: sqlite3.Connection, table: str) -> None:
    """Removes the triggers of a table."""
    for what in _TRIGGERS:
        connection.execute(f"DROP TRIGGER IF EXISTS {_trigger(table, what)}")


def uninstall(connection: sqlite3.Connection, table: str) -> None:
    """Removes everything of refold's; the database is as it was, but for what is in the table itself."""
    drop_triggers(connection, table)
    connection.execute(f"DROP TABLE IF EXISTS {quote(outbox_name(table))}")
    connection.execute(f"DROP TABLE IF EXISTS {quote(polling.rows_name(table))}")
    if _has_bookkeeping(connection):
        connection.execute("DELETE FROM refold_mirrors WHERE name = ?", (table,))
        if not connection.execute("SELECT count(*) FROM refold_mirrors").fetchone()[0]:
            connection.execute("DROP TABLE refold_mirrors")


def _has_bookkeeping(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'refold_mirrors'").fetchone()
    return bool(found[0])


def load_mirror(connection: sqlite3.Connection, table: str) -> Mirror | None:
    """How a table is mirrored; None when it is not."""
    if not _has_bookkeeping(connection):
        return None
    row = connection.execute(
        "SELECT name, collection, key, columns, identity, polls FROM refold_mirrors WHERE name = ?", (table,)
    ).fetchone()
    if row is None:
        return None
    return Mirror(row[0], row[1], row[2], msgspec.json.decode(row[3]), row[4], bool(row[5]))


def check_table(connection: sqlite3.Connection, mirror: Mirror) -> None:
    """Raises `CaptureStopped` when the table has changed since capture was installed, or lost its triggers."""
    found = [name for name, _, _ in columns_of(connection, mirror.name)]
    if not found:
        raise CaptureStopped(mirror.name, "it is not there any more")
    if found != mirror.columns:
        changed = sorted(set(found) ^ set(mirror.columns)) or found
        raise CaptureStopped(mirror.name, f"its columns have changed: {', '.join(changed)}")
    if mirror.polls:
        return
    wanted = [f"refold_{mirror.name}_{what}" for what in _TRIGGERS]
    marks = ", ".join("?" * len(wanted))
    sql = f"SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? AND name IN ({marks})"
    triggers = connection.execute(sql, (mirror.name, *wanted)).fetchone()[0]
    if triggers != 4:
        raise CaptureStopped(mirror.name, f"{4 - triggers} of its 4 triggers are gone, so writes may have been missed")


def waiting(connection: sqlite3.Connection, mirror: Mirror, after: int, limit: int) -> list[Captured]:
    """The next rows of the outbox that were not refused."""
    names = ", ".join(quote(f"c_{column}") for column in mirror.columns)
    outbox = quote(outbox_name(mirror.name))
    again = f"EXISTS (SELECT 1 FROM {outbox} later WHERE later.key = this.key AND later.id > this.id)"
    rows = connection.execute(
        f"SELECT id, CASE WHEN operation = 'delete' AND {again} THEN 'again' ELSE operation END, position, key, {names}"
        f" FROM {outbox} this WHERE id > ? AND why IS NULL ORDER BY id LIMIT ?",
        (after, limit),
    ).fetchall()
    return [
        Captured(number, operation, position, key, dict(zip(mirror.columns, cells, strict=True)))
        for number, operation, position, key, *cells in rows
    ]


def count_waiting(connection: sqlite3.Connection, mirror: Mirror) -> int:
    """How many writes wait in the outbox, without those that were refused."""
    sql = f"SELECT count(*) FROM {quote(outbox_name(mirror.name))} WHERE why IS NULL"
    return int(connection.execute(sql).fetchone()[0])


def refused(connection: sqlite3.Connection, mirror: Mirror) -> list[tuple[int, Any, str]]:
    """The rows that the archive would not take: number, key, and why."""
    return connection.execute(
        f"SELECT id, key, why FROM {quote(outbox_name(mirror.name))} WHERE why IS NOT NULL ORDER BY id"
    ).fetchall()


def settle(
    connection: sqlite3.Connection, mirror: Mirror, done: Sequence[Captured], refusals: Sequence[tuple[int, str]]
) -> None:
    """Takes rows out of the outbox that are in the log, with refusals that they replace, and notes new refusals."""
    outbox = quote(outbox_name(mirror.name))
    connection.executemany(f"DELETE FROM {outbox} WHERE id = ?", [(row.id,) for row in done])
    connection.executemany(
        f"DELETE FROM {outbox} WHERE why IS NOT NULL AND key IS ? AND id < ?", [(row.key, row.id) for row in done]
    )
    connection.executemany(f"UPDATE {outbox} SET why = ? WHERE id = ?", [(why, number) for number, why in refusals])


def pending_keys(connection: sqlite3.Connection, table: str, keys: Sequence[Any]) -> set[Any]:
    """Those keys that the program has written and the log does not have yet."""
    found: set[Any] = set()
    outbox = quote(outbox_name(table))
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ", ".join("?" * len(part))
        found.update(row[0] for row in connection.execute(f"SELECT key FROM {outbox} WHERE key IN ({marks})", part))
    return found


def standing(connection: sqlite3.Connection, table: str) -> tuple[int, int, dict[str, Head]]:
    """The checkpoint's position, the position that the rows are of, and the checkpoint's heads."""
    row = connection.execute("SELECT position, seen, heads FROM refold_mirrors WHERE name = ?", (table,)).fetchone()
    if row is None:
        return 0, 0, {}
    return row[0], row[1], _heads.decode(row[2]) if row[2] is not None else {}


def forget(connection: sqlite3.Connection, table: str) -> None:
    """Forgets how far the table has come, so that every row is written again."""
    start = "position = 0, seen = 0, heads = NULL"
    connection.execute(f"UPDATE refold_mirrors SET {start} WHERE name = ?", (table,))


def in_thread(path: Path, operation: str, work: Callable[[], T]) -> T:
    """Runs work on another program's database; what SQLite raises becomes `StorageFailed`."""
    try:
        return work()
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            why = f"another program has held it for {WAIT_SECONDS:.0f} seconds"
            raise StorageFailed(str(path), operation, why) from error
        raise StorageFailed(str(path), operation, str(error)) from error
    except sqlite3.Error as error:
        raise StorageFailed(str(path), operation, str(error)) from error
