"""Restore: the program's table as the folders have it, in one transaction, all or nothing.

The database stays where it is until what takes its place is proved. One that is in order, which a program may have
open, is changed by a transaction: rows that differ, and no others; the rows are compared with those of the folders
before it is committed, and a copy of the database as it was is kept. One that is missing or damaged is made anew beside
the place, compared, checked by SQLite, made durable, and renamed; the damaged one is kept under another name first, and
so are the journals beside it, which SQLite would otherwise take for those of the new one.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from refold.errors import InputRefused, StorageFailed
from refold_adapters.adopting.layout import Described
from refold_adapters.durable import sync_directory, sync_file
from refold_adapters.sqlite_columns import quote

from .comparing import PROGRAM, compare
from .gathering import gather
from .outcome import Outcome
from .staging import ROWS, DatabaseBusy, Staging, column_declaration, declaration, differs

KEPT = ".before-restore"
BESIDE = ".restoring"
_JOURNALS = ("-journal", "-wal", "-shm")

Reached = Callable[[str], None]


class Keeper:
    """What else is kept in the database beside the table: nothing, for a plain one. `create` makes the table."""

    create: str | None = None

    def begin(self, staging: Staging) -> None:
        """Called in the transaction that changes the attached table, before it does."""

    def end(self, staging: Staging) -> None:
        """Called in the same transaction, when the table is as it should be."""

    def made(self, path: Path) -> None:
        """Called when a new database has its rows."""


def restore(
    root: Path,
    described: Described,
    staging: Staging,
    outcome: Outcome,
    *,
    dry_run: bool = False,
    reached: Reached = lambda point: None,
) -> None:
    """Brings the table back from the folders, or with `dry_run` does all but keep it. Raises as `put_back`."""
    outcome.found(gather(root, described, staging))
    reached("gathered")
    put_back(root, described, staging, outcome, dry_run=dry_run, reached=reached)


def put_back(
    root: Path,
    described: Described,
    staging: Staging,
    outcome: Outcome,
    *,
    dry_run: bool = False,
    keeper: Keeper | None = None,
    reached: Reached = lambda point: None,
) -> None:
    """Makes the table what `staging` has noted.

    What the present table has and the folders lack, or have older, is reported before it is replaced. `reached` is
    called at named points, for whoever tests what a crash there leaves. Raises `StorageFailed`, `DatabaseBusy`, and
    `InputRefused` where nothing was noted.
    """
    assert described.layout.table is not None
    if not staging.count():
        raise InputRefused(str(root), "no folder in it has a row that can be taken, so the database stays as it is")
    work = _Restore(described, staging, outcome, described.layout.table.name, keeper or Keeper(), reached)
    if dry_run:
        work.rehearse()
    elif is_sound(staging, "rw"):
        work.in_place()
    else:
        work.anew()


def is_sound(staging: Staging, mode: str) -> bool:
    """Whether the database is there and SQLite finds nothing wrong with it; it is attached then.

    Raises `DatabaseBusy`.
    """
    if not staging.db.is_file() or not staging.db.stat().st_size:
        return False
    try:
        with staging.failures("checking the database"):
            staging.attach(staging.db, PROGRAM, mode)
            found = staging.connection.execute(f"PRAGMA {PROGRAM}.quick_check(1)").fetchall()
    except DatabaseBusy:
        raise
    except StorageFailed as error:
        if not _is_damage(error.__cause__):
            raise
        found = []
    if found != [("ok",)]:
        if any(name == PROGRAM for _, name, _ in staging.connection.execute("PRAGMA database_list")):
            staging.connection.execute(f"DETACH {PROGRAM}")
        return False
    return True


def _is_damage(cause: BaseException | None) -> bool:
    code = getattr(cause, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class _Restore:
    def __init__(
        self,
        described: Described,
        staging: Staging,
        outcome: Outcome,
        table: str,
        keeper: Keeper,
        reached: Reached,
    ) -> None:
        self._described = described
        self._staging = staging
        self._outcome = outcome
        self._table = table
        self._keeper = keeper
        self._reached = reached
        self._db = staging.db

    def in_place(self) -> None:
        """Changes a database that is in order."""
        staging, outcome = self._staging, self._outcome
        with staging.failures("restoring the table"):
            staging.connection.execute(f"PRAGMA {PROGRAM}.synchronous = FULL")
            staging.connection.execute("BEGIN IMMEDIATE")
            try:
                self._keeper.begin(staging)
                kept = self._keep_copy() if self._differences() else None
                outcome.created, outcome.changed, outcome.removed = self._fill()
                self._reached("filled")
                self._prove()
                self._keeper.end(staging)
                self._reached("proved")
                staging.connection.execute("COMMIT")
                outcome.kept = str(kept) if kept is not None else None
            except BaseException:
                if staging.connection.in_transaction:
                    staging.connection.execute("ROLLBACK")
                raise

    def rehearse(self) -> None:
        """Compares with the present table, and makes a database that is proved and thrown away."""
        staging, outcome = self._staging, self._outcome
        if is_sound(staging, "ro"):
            with staging.failures("reading the table"):
                kinds = self._differences()
                staging.connection.execute(f"DETACH {PROGRAM}")
            outcome.removed, outcome.created = kinds["table-only"], kinds["folder-only"]
            outcome.changed = kinds["table-newer"] + kinds["table-differs"]
        else:
            outcome.created = staging.count()
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="refold-") as place:
            self._build(Path(place) / self._db.name)

    def _differences(self) -> Counter[str]:
        """How the present table differs, by kind; what is lost with it is reported."""
        kinds: Counter[str] = Counter()
        if self._staging.columns(PROGRAM, self._table):
            for finding in compare(self._described, self._staging, self._table):
                kinds[finding.kind] += 1
                if finding.kind in ("table-only", "table-newer"):
                    self._outcome.found([finding])
        return kinds

    def _keep_copy(self) -> Path:
        """A copy of the database as it is; nobody writes it meanwhile, since this run holds the right to."""
        kept = _free_name(self._db)
        connection = sqlite3.connect(self._db, isolation_level=None, timeout=self._staging.wait)
        try:
            connection.execute("VACUUM INTO ?", (str(kept),))
        finally:
            connection.close()
        sync_file(kept)
        sync_directory(kept.parent)
        return kept

    def anew(self) -> None:
        """Makes a database beside the place, and gives it its name."""
        beside = self._db.with_name(self._db.name + BESIDE)
        with self._staging.failures("making the database anew"):
            _remove(beside)
            try:
                self._outcome.created = self._build(beside)
                self._outcome.kept = _exchange(beside, self._db, self._reached)
            finally:
                _remove(beside)

    def _build(self, path: Path) -> int:
        """Makes a database and proves it; it is durable then. How many rows it has."""
        staging = self._staging
        with staging.failures("making the database anew", path):
            staging.attach(path, PROGRAM, "rwc")
            staging.connection.execute(f"PRAGMA {PROGRAM}.synchronous = FULL")
            staging.connection.execute("BEGIN IMMEDIATE")
            created, _, _ = self._fill()
            staging.connection.execute("COMMIT")
            self._reached("filled")
            staging.connection.execute(f"DETACH {PROGRAM}")
            self._keeper.made(path)
            staging.attach(path, PROGRAM, "ro")
            self._prove()
            staging.connection.execute(f"DETACH {PROGRAM}")
            self._reached("proved")
        return created

    def _fill(self) -> tuple[int, int, int]:
        """Makes the attached table what the folders have, inside a transaction: rows created, changed and removed."""
        staging = self._staging
        table, key = f"{PROGRAM}.{quote(self._table)}", quote(staging.key)
        columns = staging.columns(PROGRAM, self._table)
        if not columns:
            self._create()
        columns = staging.columns(PROGRAM, self._table)
        for field in staging.names:
            if field not in columns:
                added = column_declaration(staging.schema, field)
                staging.connection.execute(f"ALTER TABLE {table} ADD COLUMN {added}")
        names = staging.shared(staging.names)
        cells = ", ".join(f"{quote(field)} = two.{quote(field)}" for field in names)
        listed = ", ".join(map(quote, staging.names))
        removed = staging.connection.execute(
            f"DELETE FROM {table} WHERE {key} IS NULL OR {key} NOT IN (SELECT {key} FROM {ROWS})"
        ).rowcount
        changed = staging.connection.execute(
            f"UPDATE {table} AS one SET {cells} FROM {ROWS} two"
            f" WHERE two.{key} = one.{key} AND {differs('one', 'two', names)}"
        ).rowcount
        created = staging.connection.execute(
            f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {ROWS} WHERE {key} NOT IN"
            f" (SELECT {key} FROM {table}) ORDER BY {key}"
        ).rowcount
        return created, changed, removed

    def _create(self) -> None:
        create = self._keeper.create
        if create is None:
            made = f"CREATE TABLE {PROGRAM}.{declaration(self._staging.schema, self._table)}"
        else:
            name = re.compile(r"(CREATE\s+TABLE\s+)(?=[^\s])", re.IGNORECASE)
            made = name.sub(rf"\1{PROGRAM}.", create, count=1)
        self._staging.connection.execute(made)

    def _prove(self) -> None:
        """Holds the table against the folders, row by row, and asks SQLite. Raises `StorageFailed`."""
        staging = self._staging
        table, key = f"{PROGRAM}.{quote(self._table)}", quote(staging.key)
        names = staging.shared(staging.columns(PROGRAM, self._table))
        rows = staging.count()
        there = staging.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        equal = staging.connection.execute(
            f"SELECT count(*) FROM {table} one JOIN {ROWS} two ON two.{key} = one.{key}"
            f" WHERE NOT {differs('one', 'two', names)}"
        ).fetchone()[0]
        sound = staging.connection.execute(f"PRAGMA {PROGRAM}.integrity_check(1)").fetchall()
        if there != rows or equal != rows or sound != [("ok",)]:
            why = (
                f"of {rows} rows of the folders {equal} are in the table, which has {there}; SQLite says {sound[0][0]}"
            )
            raise StorageFailed(str(self._db), "proving the restored table", why)
        self._outcome.restored = rows


def _free_name(path: Path) -> Path:
    """A name for what is kept that nothing has yet."""
    return next(name for name in _names(path) if not os.path.lexists(name))


def _names(path: Path) -> Iterator[Path]:
    yield path.with_name(path.name + KEPT)
    number = 2
    while True:
        yield path.with_name(f"{path.name}{KEPT}~{number}")
        number += 1


def _exchange(beside: Path, db: Path, reached: Reached) -> str | None:
    """Puts what was proved in the place of what is there, and keeps that; under which name, if there was anything."""
    kept = _free_name(db)
    was_there = os.path.lexists(db)
    if was_there:
        mode = db.stat()
        os.chmod(beside, mode.st_mode & 0o7777)
        if (mode.st_uid, mode.st_gid) != (os.getuid(), os.getgid()):
            try:
                os.chown(beside, mode.st_uid, mode.st_gid)
            except PermissionError:
                pass  # whoever is not root gives files to nobody
        try:
            os.link(db, kept)
        except OSError:
            import shutil

            shutil.copyfile(db, kept)
            sync_file(kept)
        sync_directory(db.parent)
    for suffix in _JOURNALS:
        journal = db.with_name(db.name + suffix)
        if os.path.lexists(journal):
            os.rename(journal, kept.with_name(kept.name + suffix))
    reached("kept")
    os.replace(beside, db)
    sync_directory(db.parent)
    return str(kept) if was_there else None


def _remove(path: Path) -> None:
    for suffix in ("", *_JOURNALS):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
