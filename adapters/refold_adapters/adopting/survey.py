"""Looking an old archive over: every folder and every row is read and checked, and nothing is changed.

Folders are walked by descriptor and links are not followed, so nothing outside the archive is read. What refold wrote
itself is passed over, so an archive that was adopted before can be looked over again.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from refold.errors import StorageFailed
from refold_adapters.documents.paths import Absent, Below, shown
from refold_adapters.folders.disk import QUARANTINE, TEMPORARY
from refold_adapters.stored_cells import stored_cells

from .candidates import Candidate, Finding
from .layout import Described
from .old_files import OldMeta, read_old_csv, read_old_meta

LARGEST = 64 << 20
"""Bytes of a data.csv or meta.json beyond which it is not one of a folder's."""

_AWAY = {
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENODEV,
    errno.ESHUTDOWN,
}
"""What reading says when a network share or a device has gone."""

_PAGE = 500


class Looked(msgspec.Struct):
    """What one folder holds: its good rows, what there is to say, whether refold wrote it, and else the SHA-256 of its
    data file, if that could be read."""

    folder: str
    rows: list[Candidate] = []
    findings: list[Finding] = []
    is_live: bool = False
    hash: bytes | None = None


class LeftRow(msgspec.Struct):
    """A row of the table that cannot be taken, as a data file of its own, and why not."""

    key: str
    data: bytes
    findings: list[Finding]


class LookedRows(msgspec.Struct):
    """A page of the table: the good rows and the others."""

    rows: list[Candidate] = []
    left: list[LeftRow] = []


class Survey:
    """One look at the archive under `root`, or at what stands `below` it in the quarantine."""

    def __init__(self, root: Path, described: Described, *, documents: bool = True, below: str = "") -> None:
        self._root = root.absolute()
        self._below = below
        self._described = described
        self._layout = described.layout
        self._documents = documents
        key = described.collection.key
        self._key_text = described.schema.key_text
        self._key = key

    def folders(self) -> Iterator[Looked]:
        """Every folder that has a data file, in the order of their names."""
        start = self._root / self._below
        try:
            descriptor = os.open(start, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StorageFailed(str(start), "looking it over", str(error)) from error
        found = os.fstat(descriptor)
        yield from self._walk("", descriptor)
        try:
            stands = os.stat(start)
        except OSError as error:
            raise self._away(str(start), why(error)) from error
        if (stands.st_dev, stands.st_ino) != (found.st_dev, found.st_ino):
            raise self._away(str(start), "another directory stands there now")

    def _away(self, path: str, detail: str) -> StorageFailed:
        return StorageFailed(path, "looking it over; the share seems to have gone away", detail)

    def _unreadable(self, place: str, error: OSError) -> Looked:
        """The finding of what cannot be read. Raises `StorageFailed` where that speaks of the share."""
        if error.errno in _AWAY:
            raise self._away(str(self._root / place), why(error)) from error
        return Looked(place, findings=[Finding("unreadable", why(error), folder=shown(place), left_out=True)])

    def _walk(self, place: str, descriptor: int) -> Iterator[Looked]:
        below: list[str] = []
        try:
            names: set[str] = set()
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        if entry.name == self._layout.data or _leads_to_directory(entry):
                            finding = Finding("link", "a symbolic link is not followed", folder=shown(place))
                            yield Looked(place, findings=[msgspec.structs.replace(finding, file=shown(entry.name))])
                    elif entry.is_dir():
                        if not entry.name.startswith(".") and (place or self._below or entry.name != QUARANTINE):
                            below.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        names.add(entry.name)
            if self._layout.data in names:
                yield self._look(place, descriptor, names)
            for name in sorted(below):
                path = f"{place}/{name}".lstrip("/")
                try:
                    child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                except OSError as error:
                    yield self._unreadable(path, error)
                    continue
                yield from self._walk(path, child)
        except OSError as error:
            yield self._unreadable(place, error)
        finally:
            os.close(descriptor)

    def _look(self, place: str, descriptor: int, names: set[str]) -> Looked:
        looked = Looked(place, [], [])
        layout = self._layout
        try:
            data = _read(descriptor, layout.data)
            meta = _read(descriptor, layout.meta) if layout.meta in names else None
            beside = _read(descriptor, layout.meta + TEMPORARY) if layout.meta + TEMPORARY in names else None
        except OSError as error:
            return self._unreadable(place, error)
        if _is_live(meta):
            looked.is_live = True
            return looked
        looked.hash = sha256(data).digest()
        if _vouches(beside, looked.hash) and not _vouches(meta, looked.hash):
            meta = beside
            detail = f"an export was interrupted; the {layout.meta} that was not yet in its place vouches for the rows"
            looked.findings.append(Finding("unfinished", detail, folder=shown(place), file=layout.meta + TEMPORARY))
        if self._below or self._may_be_read(looked, meta):
            self._rows(looked, data)
        return looked

    def _may_be_read(self, looked: Looked, meta: bytes | None) -> bool:
        """Whether the folder's meta.json vouches for the rows, or at least does not speak against them."""

        def say(kind: str, detail: str, *, left_out: bool = True) -> None:
            looked.findings.append(
                Finding(kind, detail, folder=shown(looked.folder), file=self._layout.meta, left_out=left_out)
            )

        if meta is None:
            say("meta-missing", "nothing tells whether the rows are as they were written", left_out=False)
            return True
        told = read_old_meta(meta)
        if not isinstance(told, OldMeta):
            say("meta-bad", told)
            return False
        if told.schema_version not in self._layout.versions:
            known = ", ".join(self._layout.versions)
            say("version-unknown", f"schema_version is {told.schema_version!r}; what can be read is {known}")
            return False
        if told.checksum is None:
            say("meta-bad", "it has no checksum")
            return False
        found = looked.hash.hex() if looked.hash is not None else ""
        if told.checksum.lower() != found:
            say("checksum", f"{self._layout.data} has SHA-256 {found[:16]}…, and should have {told.checksum[:16]}…")
            return False
        return True

    def _rows(self, looked: Looked, data: bytes) -> None:
        place, file = shown(looked.folder), self._layout.data
        table = read_old_csv(data)
        for number, what in table.errors:
            kind = "csv-empty" if what == "it is empty" else "csv-bad"
            looked.findings.append(Finding(kind, what, folder=place, file=file, row=number, left_out=True))
        fields = self._described.collection.fields
        for column in table.header:
            if column not in fields and table.rows:
                detail = f"no field is called {column!r}; its cells stay in the quarantine"
                looked.findings.append(
                    Finding("column-unknown", detail, folder=place, file=file, field=column, left_out=True)
                )
        for number, cells in table.rows:
            values, wrong = self._stored(dict(zip(table.header, cells, strict=True)))
            if wrong:
                looked.findings += [
                    Finding("value-refused", what, folder=place, file=file, row=number, field=name, left_out=True)
                    for name, what in wrong
                ]
                continue
            row = self._candidate(place, number, values)
            looked.rows.append(row)
            if row.updated == 0 and self._layout.updated is not None:
                detail = f"{self._layout.updated} tells no time: {values[self._layout.updated]!r}"
                looked.findings.append(
                    Finding("time-unknown", detail, folder=place, file=file, row=number, key=row.key)
                )
            if self._documents:
                looked.findings += self.document(row)

    def _stored(self, cells: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """See `stored_cells`; the path of a document is from the archive's root from here on."""
        told = self._layout.documents
        path = cells.get(told.path) if told is not None else None
        if told is not None and told.prefix and isinstance(path, str):
            cells[told.path] = path.removeprefix(told.prefix)
        return stored_cells(self._described.schema, cells)

    def _candidate(self, place: str | None, number: int, values: dict[str, object]) -> Candidate:
        updated = values.get(self._layout.updated) if self._layout.updated is not None else None
        millis = self._described.millis(updated if isinstance(updated, str) else None)
        return Candidate(place, number, str(values[self._key]), millis, values)

    def document(self, row: Candidate) -> list[Finding]:
        """What is wrong with the document that a row points to."""
        told = self._layout.documents
        if told is None or not row.values.get(told.path):
            return []
        path = str(row.values[told.path])

        def say(kind: str, detail: str) -> list[Finding]:
            return [Finding(kind, detail, folder=row.folder, file=path, row=row.row or None, key=row.key)]

        wanted = row.values.get(told.hash)
        try:
            with closing(Below(self._root)) as below:
                _, found = below.hash(path)
        except Absent as absent:
            kind = "unreadable" if absent.kind in ("document-unreadable", "document-unsettled") else absent.kind
            return say(kind, f"{path}: {absent.detail}")
        except OSError as error:
            return say("unreadable", why(error))
        if wanted and str(wanted).lower() != found:
            return say("document-differs", f"{path} has SHA-256 {found[:16]}…, the row says {str(wanted)[:16]}…")
        return []

    def table(self, notice: Callable[[int], None] = lambda number: None) -> Iterator[LookedRows]:
        """The rows of the SQLite table, a page at a time."""
        told = self._layout.table
        if told is None or not (self._root / told.database).is_file():
            return
        path = self._root / told.database
        try:
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30, check_same_thread=False)
        except sqlite3.Error as error:
            raise StorageFailed(str(path), "reading the table", str(error)) from error
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.row_factory = sqlite3.Row
        try:
            name = told.name.replace('"', '""')
            cursor = connection.execute(f'SELECT * FROM "{name}"')
            number = 0
            while page := cursor.fetchmany(_PAGE):
                yield self._table_rows(page, number)
                number += len(page)
                notice(number)
        except sqlite3.Error as error:
            raise StorageFailed(str(path), f"reading the table {told.name}", str(error)) from error
        finally:
            connection.close()

    def _table_rows(self, page: list[sqlite3.Row], before: int) -> LookedRows:
        looked = LookedRows()
        assert self._layout.table is not None
        for number, row in enumerate(page, before + 1):
            cells = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
            values, wrong = self._stored(cells)
            if wrong:
                key = str(cells.get(self._key))
                findings = [
                    Finding(
                        "table-row",
                        what,
                        file=self._layout.table.database,
                        row=number,
                        field=field,
                        key=key,
                        left_out=True,
                    )
                    for field, what in wrong
                ]
                looked.left.append(LeftRow(key, row_csv(cells), findings))
                continue
            looked.rows.append(self._candidate(None, number, values))
        return looked


def _vouches(meta: bytes | None, digest: bytes) -> bool:
    """Whether a meta.json is one of a data file with this hash."""
    told = read_old_meta(meta) if meta is not None else None
    return isinstance(told, OldMeta) and (told.checksum or "").lower() == digest.hex()


def _is_live(meta: bytes | None) -> bool:
    """Whether refold itself wrote a meta.json."""
    if meta is None or b'"vector"' not in meta:
        return False
    from refold_adapters.folders.content import read_meta

    return read_meta(meta) is not None


def row_csv(cells: Mapping[str, object]) -> bytes:
    """A row of a table as a data file. Text keeps its bytes, null is an empty cell, and a blob is spelt X'HEX'."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(cells)
    writer.writerow([f"X'{cell.hex()}'" if isinstance(cell, bytes) else cell for cell in cells.values()])
    return out.getvalue().encode("utf-8", "surrogateescape")


def why(error: OSError) -> str:
    """What an error of the operating system says, without the path."""
    return error.strerror or str(error)


def _leads_to_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _read(descriptor: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
    try:
        size = os.fstat(file).st_size
        if size > LARGEST:
            raise OSError(f"{name} has {size} bytes, more than the {LARGEST} of a folder's file")
        data = os.read(file, size + 1)
        while len(data) < size and (more := os.read(file, size - len(data))):
            data += more
        return data
    finally:
        os.close(file)
