"""Export: every row of the table into its folder, as a data.csv and the meta.json that vouches for it.

The rows are copied out of the program's database first, by one statement, so it is held no longer than that takes. Then
a page of folders is looked at, written beside what stands there, made durable together, and given its names.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from refold.errors import StorageFailed, ValueRefused
from refold_adapters.adopting.candidates import Finding
from refold_adapters.adopting.layout import Described
from refold_adapters.adopting.survey import LARGEST
from refold_adapters.folders.disk import PosixDisk
from refold_adapters.sqlite_columns import quote
from refold_adapters.stored_cells import stored_cells

from .deciding import Step, Wanted, decide
from .outcome import Outcome
from .spelling import data_csv, meta_json
from .staging import PAGE, Staging

ASIDE = ".aside-"
"""What stands between the name of a data file that was put aside and the start of its hash."""

_ONE_FOLDERS = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
"""Errors of one folder; of the others, as a full disk, the rest of the archive has the same."""


class NoFolder(ValueError):
    """A row's path is none of a folder below the archive."""


def folder_of(described: Described, values: dict[str, Any]) -> str:
    """The folder of a row: the parent of its document, or else what the collection's template says.

    Raises `NoFolder`.
    """
    documents = described.layout.documents
    if documents is None:
        try:
            return described.schema.folder(values)
        except ValueRefused as error:
            raise NoFolder(str(error)) from None
    path = str(values.get(documents.path) or "")
    parts = path.split("/")[:-1]
    if not parts or "\\" in path or "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise NoFolder(f"{path!r} is no path of a file in a folder below the archive")
    return "/".join(parts)


class Export:
    """One export of the table `table` of the database that `staging` knows."""

    def __init__(self, root: Path, described: Described, staging: Staging, outcome: Outcome, now: str) -> None:
        self._described = described
        self._schema = described.schema
        self._staging = staging
        self._outcome = outcome
        self._now = now
        self._database = staging.db.name
        self._disk = PosixDisk(root)

    def run(self, table: str) -> None:
        """Exports all rows. Raises `StorageFailed`."""
        try:
            self._copy(table)
            for page in self._pages():
                self._write(list(self._plans(page)))
        finally:
            self._disk.close()

    def _copy(self, table: str) -> None:
        staging = self._staging
        if not staging.db.is_file():
            raise StorageFailed(
                str(staging.db), "reading the table", "it is not there; `refold restore` brings it back"
            )
        with staging.failures(f"reading the table {table}"):
            staging.connection.execute("COMMIT")
            staging.attach(staging.db, "program", "ro")
            staging.connection.execute(f"CREATE TABLE table_rows AS SELECT * FROM program.{quote(table)}")
            staging.connection.execute("DETACH program")
            key = quote(self._schema.collection.key)
            staging.connection.execute(f"CREATE INDEX table_rows_key ON table_rows ({key})")

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        cursor = self._staging.connection.execute("SELECT * FROM table_rows ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        while page := cursor.fetchmany(PAGE):
            yield [dict(zip(names, row, strict=True)) for row in page]

    def _plans(self, page: Sequence[dict[str, Any]]) -> Iterator[tuple[Wanted, Step]]:
        taken: set[str] = set()
        for row in page:
            wanted = self._wanted(row)
            if wanted is None:
                continue
            if wanted.place in taken:
                detail = "another record of the table has the same folder; it is left as it is"
                self._found(Finding("folder-taken", detail, folder=wanted.place, key=wanted.key, left_out=True))
                continue
            taken.add(wanted.place)
            if (step := self._step(wanted)) is not None:
                yield wanted, step

    def _found(self, finding: Finding) -> None:
        self._outcome.found([finding])

    def _wanted(self, row: dict[str, Any]) -> Wanted | None:
        schema = self._schema
        values, wrong = stored_cells(schema, row)
        key = str(row.get(schema.collection.key))
        if not wrong:
            try:
                place = folder_of(self._described, values)
            except NoFolder as error:
                documents = self._described.layout.documents
                wrong = [(documents.path if documents else schema.collection.key, str(error))]
            else:
                data = data_csv(schema.columns, row)
                meta = meta_json(self._described, row, data, self._now)
                updated = self._described.layout.updated
                changed = self._described.millis(values.get(updated)) if updated is not None else 0
                return Wanted(place, key, changed, row, values, data, meta)
        for field, what in wrong:
            self._found(Finding("table-row", what, file=self._database, field=field, key=key, left_out=True))
        return None

    def _step(self, wanted: Wanted) -> Step | None:
        layout = self._described.layout
        try:
            data = self._disk.read(wanted.place, layout.data, 0, LARGEST)
            meta = self._disk.read(wanted.place, layout.meta, 0, LARGEST)
            step = decide(self._described, wanted, data, meta, lambda key: self._lives_in(key, wanted.place))
            if step.aside and data is not None:
                self._disk.rename(wanted.place, layout.data, f"{layout.data}{ASIDE}{sha256(data).hexdigest()[:16]}")
                self._outcome.put_aside += 1
        except StorageFailed as error:
            self._refuse(wanted, error)
            return None
        if step.finding is not None:
            self._found(step.finding)
        if not step.data and not step.meta:
            self._outcome.unchanged += step.finding is None
            return None
        return step

    def _lives_in(self, key: Any, place: str) -> bool:
        """Whether the table has a row of this key whose folder is `place`."""
        cursor = self._staging.connection.execute(
            f"SELECT * FROM table_rows WHERE {quote(self._schema.collection.key)} = ?", (key,)
        )
        names = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            try:
                if folder_of(self._described, dict(zip(names, row, strict=True))) == place:
                    return True
            except NoFolder:
                continue
        return False

    def _refuse(self, wanted: Wanted, error: StorageFailed) -> None:
        """Reports a folder that cannot be written; an error that is not of this folder alone is raised."""
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _ONE_FOLDERS:
            raise error
        detail = f"{error.operation}: {error.reason}"
        self._found(Finding("unwritable", detail, folder=wanted.place, key=wanted.key, left_out=True))

    def _write(self, plans: Sequence[tuple[Wanted, Step]]) -> None:
        layout = self._described.layout
        written: list[tuple[str, list[str]]] = []
        for wanted, step in plans:
            files = [(layout.data, wanted.data)] * step.data + [(layout.meta, wanted.meta)] * step.meta
            try:
                written.append((wanted.place, self._disk.write(wanted.place, files, compare=False) or []))
            except StorageFailed as error:
                self._refuse(wanted, error)
        if written:
            self._disk.sync()
        for place, names in written:
            self._disk.publish(place, names)
        self._outcome.exported += len(written)


def export(root: Path, described: Described, staging: Staging, outcome: Outcome, now: str) -> None:
    """Exports the table of the layout into the folders under `root`, counting in `outcome`. Raises `StorageFailed`."""
    assert described.layout.table is not None
    Export(root, described, staging, outcome, now).run(described.layout.table.name)
