"""An edited file row by row against what it was made of: which records its author changed, made and took away.

What a file was made of are the records of its folder as the version vector in its meta.json covers them. So what others
wrote meanwhile is no part of the comparison, and an edit says only what its author did; its context is the version of
the record that its author had seen.

Spreadsheets spell a file anew: other quotes, line ends, a byte order mark, columns and rows in another order, an empty
text as nothing, a decimal without its zeros. A cell that reads as what was written is no edit. The rows wait in a
database of their own for their records to be asked for, so that memory holds a page of each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from refold.conflict import same
from refold.conflict_list import seen_state
from refold.decide import settled_branches, settled_values
from refold.errors import InputRefused, ValueRefused
from refold.events import Event
from refold.fold import State
from refold.values import Refused, show
from refold_adapters.csv_cells import original_row
from refold_adapters.record_files import FileRow, RecordFile, RowError, bad_bytes

from .content import Sheet, read_meta
from .disk import Disk
from .edits import Edit
from .index import Index
from .source import Source

_PAGE = 200
_ROWS = """
CREATE TABLE rows (key TEXT PRIMARY KEY, number INTEGER NOT NULL, cells BLOB NOT NULL, used INTEGER NOT NULL DEFAULT 0);
CREATE TABLE gone (rest BLOB NOT NULL, key TEXT NOT NULL, seen BLOB NOT NULL);
"""
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_cells = msgspec.msgpack.Decoder(list[str | None]).decode
_vector = msgspec.msgpack.Decoder(dict[str, int]).decode


class Wanted(msgspec.Struct, frozen=True):
    """One change that an edit makes: `create`, `update` or `delete`; of which row, and what its author had seen."""

    operation: str
    key: str
    seen: dict[str, int]
    values: dict[str, Any] = {}
    row: int | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A row that cannot be taken for an edit, or with no row a file, and why."""

    folder: str
    file: str
    row: int | None
    field: str | None
    code: str
    message: str


class Comparison:
    """One edited file, compared page by page. For the thread that keeps the folders."""

    def __init__(self, edit: Edit, root: Path, index: Index, source: Source, disk: Disk) -> None:
        self.edit = edit
        self._path = root / edit.folder / edit.standing
        self._index = index
        self._source = source
        self._disk = disk
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.executescript(_ROWS)
        self._base = 0
        self._unread = False
        self.context = b""

    def close(self) -> None:
        """Lets go of the rows."""
        self._rows.close()

    def run(self) -> Iterator[Wanted | Refusal]:
        """Everything that the edit comes to."""
        try:
            yield from self._run()
        except InputRefused as error:
            yield self._refusal(None, None, error.code, error.why)

    def _run(self) -> Iterator[Wanted | Refusal]:
        edit = self.edit
        text = self._disk.read(edit.folder, edit.meta)
        meta = read_meta(text)
        with self._source.snapshot():
            schema = self._source.schemas.get(edit.collection)
        if meta is None or schema is None or text is None:
            raise InputRefused(str(self._path), f"{edit.meta} does not tell of which records it was made")
        self.context = text
        self._vector = {replica: head.seq for replica, head in meta.vector.items()}
        self._folder = meta.folder
        self._schema, self._sheet = schema, Sheet(schema)
        yield from self._load()
        for keys in self._members():
            for start in range(0, len(keys), _PAGE):
                yield from self._compare([key for key in keys[start : start + _PAGE] if key])
        while rest := self._rest():
            yield from self._compare(rest, others=True)
        yield from self._created()
        yield from self._deleted()
        lacking = meta.collections[edit.collection].records - self._base
        if lacking > 0:
            why = f"{lacking} of its records have left the folder since it was written; rows of theirs are not compared"
            yield self._refusal(None, None, "records-moved", why)

    def _members(self) -> Iterator[list[str]]:
        """The keys of the records that are in the folder now."""
        folder = self._index.standing([self.edit.folder]).get(self.edit.folder)
        if folder is not None and self._schema.name in self._index.collections():
            yield from self._index.keys_in(folder.id, self._schema.name, numeric=False)

    def _refusal(self, row: int | None, field: str | None, code: str, why: str) -> Refusal:
        return Refusal(self.edit.folder, self.edit.standing, row, field, code, why)

    def _load(self) -> Iterator[Refusal]:
        """Takes the rows of the file in, by key."""
        if self._disk.read(self.edit.folder, self.edit.standing, 0, 1) is None:
            raise InputRefused(str(self._path), "it is not there any more")
        file = RecordFile(self._path, "csv")
        try:
            self._columns = file.columns or []
            texts = [name in self._schema.types and self._schema.types[name].name == "str" for name in self._columns]
            self._texts = texts if self._schema.collection.neutralise else [False for _ in texts]
            unknown = [name for name in self._columns if name not in self._schema.types]
            if unknown or self._schema.collection.key not in self._columns:
                why = f"it has a column {unknown[0]!r}" if unknown else f"no column {self._schema.collection.key!r}"
                raise InputRefused(str(self._path), f"{why}, and the collection {'has none' if unknown else 'has'}")
            place = self._columns.index(self._schema.collection.key)
            rows = file.rows()
            while page := list(islice(rows, 1000)):
                self._rows.execute("BEGIN")
                for row in page:
                    refused = self._take(row, place)
                    if refused is not None:
                        yield refused
                self._rows.execute("COMMIT")
        finally:
            file.close()

    def _take(self, row: FileRow | RowError, place: int) -> Refusal | None:
        if isinstance(row, RowError):
            self._unread = True
            return self._refusal(row.row, row.field, row.code, row.message)
        assert not isinstance(row.cells, Mapping)
        cells = original_row(row.cells, self._texts)
        if any(cell and bad_bytes(cell) for cell in cells):
            self._unread = True
            return self._refusal(row.number, None, "bad-encoding", "it is not UTF-8")
        key_name = self._schema.collection.key
        try:
            key = self._schema.key_text(self._parsed(key_name, cells[place]))
        except ValueRefused as error:
            self._unread = True
            return self._refusal(row.number, key_name, error.code, str(error))
        try:
            self._rows.execute("INSERT INTO rows VALUES (?, ?, ?, 0)", (key, row.number, _encode(cells)))
        except sqlite3.IntegrityError:
            return self._refusal(row.number, key_name, "duplicate-key", f"an earlier row has the key {show(key)}")
        return None

    def _rest(self) -> list[str]:
        found = self._rows.execute("SELECT key FROM rows WHERE used = 0 LIMIT ?", (_PAGE,)).fetchall()
        return [key for (key,) in found]

    def _parsed(self, name: str, cell: str | None) -> Any:
        """A cell as its field reads it. Raises `ValueRefused`."""
        field, kind = self._schema.collection.fields[name], self._schema.types[name]
        if kind.name == "str":
            return cell if cell or field.null else ""
        if not cell:
            if field.null:
                return None
            raise ValueRefused(self._schema.name, name, "must not be empty", "nothing")
        try:
            return kind.parse(cell)
        except Refused as error:
            raise ValueRefused(self._schema.name, name, str(error), show(cell)) from None

    def _compare(self, keys: Sequence[str], *, others: bool = False) -> Iterator[Wanted | Refusal]:
        """What became of records of the folder; of `others`, those that were not in it then wait to be created."""
        records = [(self._schema.name, key) for key in keys]
        with self._source.snapshot():
            states = self._source.states(records)
            histories: dict[str, list[Event]] = {key: [] for key in keys}
            for page in self._source.events(self._source.history(list(states))):
                for event in page:
                    histories[event.key].append(event)
        marks = ", ".join("?" * len(keys))
        rows = {
            key: (number, _cells(cells), used)
            for key, number, cells, used in self._rows.execute(
                f"SELECT key, number, cells, used FROM rows WHERE key IN ({marks})", list(keys)
            )
        }
        for key in keys:
            yield from self._record(key, histories[key], rows.get(key), others=others)

    def _record(
        self, key: str, history: list[Event], row: tuple[int, list[str | None], int] | None, *, others: bool
    ) -> Iterator[Wanted | Refusal]:
        base = seen_state(self._vector, history)
        values, present = self._settled(key, base, history)
        if base is not None and present and self._schema.folder(values) == self._folder:
            self._base += 1
            yield from self._known(key, base, values, row)
            yield from self._branches(key, base, history)
        elif others and row is not None:
            self._rows.execute("UPDATE rows SET used = 3 WHERE key = ?", (key,))
            elsewhere = self._elsewhere(key, history)
            if elsewhere is not None:
                self._rows.execute("UPDATE rows SET used = 1 WHERE key = ?", (key,))
                yield self._refusal(row[0], None, "record-elsewhere", f"{show(key)} is a record of {elsewhere!r}")

    def _settled(self, key: str, state: State | None, history: list[Event]) -> tuple[dict[str, Any], bool]:
        if state is None:
            return {}, False
        return settled_values(state, (self._schema.name, key), self._schema, lambda record: history)

    def _elsewhere(self, key: str, history: list[Event]) -> str | None:
        """The folder in which a record stands now, if it is there and not in this one."""
        values, present = self._settled(key, seen_state({e.replica: e.seq for e in history}, history), history)
        folder = self._schema.folder(values) if present else self._folder
        return folder if folder != self._folder else None

    def _known(
        self, key: str, base: State, values: Mapping[str, Any], row: tuple[int, list[str | None], int] | None
    ) -> Iterator[Wanted | Refusal]:
        if row is None:
            written = dict(zip(self._schema.columns, self._sheet.careful_cells(values), strict=True))
            rest = self._fingerprint(self._columns, [written[name] for name in self._columns])
            self._rows.execute("INSERT INTO gone VALUES (?, ?, ?)", (rest, key, _encode(base.version)))
            return
        number, cells, used = row
        self._rows.execute("UPDATE rows SET used = 1 WHERE key = ? AND used = 0", (key,))
        if used:
            return
        written = dict(zip(self._schema.columns, self._sheet.careful_cells(values), strict=True))
        changed: dict[str, Any] = {}
        for name, cell in zip(self._columns, cells, strict=True):
            if (cell or None) == (written[name] or None) or name == self._schema.collection.key:
                continue
            try:
                value = self._parsed(name, cell)
            except ValueRefused as error:
                yield self._refusal(number, name, error.code, str(error))
                return
            if not self._equal(name, values.get(name, self._schema.blank[name]), value):
                changed[name] = value
        if changed:
            yield Wanted("update", key, base.version, changed, number)

    def _equal(self, name: str, one: Any, other: Any) -> bool:
        if same(one, other) or (one in (None, "") and other in (None, "")):
            return True
        is_decimal = self._schema.types[name].name == "decimal" and isinstance(one, str)
        return is_decimal and Decimal(one) == Decimal(other or "NaN")

    def _branches(self, key: str, base: State, history: list[Event]) -> Iterator[Refusal]:
        """Rows that keep-both shows beside a record are records of nobody's: they are settled, and not edited."""
        branches = settled_branches(base, (self._schema.name, key), self._schema, lambda record: history)
        for name, values in branches.items():
            self._base += 1
            found = self._rows.execute("SELECT number, cells FROM rows WHERE key = ? AND used = 0", (name,)).fetchone()
            shown = dict(zip(self._schema.columns, self._sheet.careful_cells(values), strict=True))
            self._rows.execute("UPDATE rows SET used = 1 WHERE key = ?", (name,))
            wanted = [shown[column] or None for column in self._columns]
            if found is None or [cell or None for cell in _cells(found[1])] != wanted:
                why = f"{show(name)} is a side of a conflict that is shown beside {show(key)}; settle it with resolve"
                yield self._refusal(found[0] if found is not None else None, None, "conflict-shown", why)

    def _created(self) -> Iterator[Wanted | Refusal]:
        """The rows of records that were not in the folder; one that is a removed record but for its key is refused."""
        found = self._rows.execute("SELECT key, number, cells FROM rows WHERE used = 3 ORDER BY number")
        for key, number, encoded in found.fetchall():
            cells = _cells(encoded)
            rest = self._fingerprint(self._columns, cells)
            twin = self._rows.execute("SELECT key FROM gone WHERE rest = ?", (rest,)).fetchone()
            if twin is not None and rest != _encode({}):
                self._rows.execute("DELETE FROM gone WHERE key = ?", twin)
                why = f"the key of {show(twin[0])} was changed; a record keeps its key"
                yield self._refusal(number, self._schema.collection.key, "key-changed", why)
                continue
            try:
                parsed = {name: self._parsed(name, cell) for name, cell in zip(self._columns, cells, strict=True)}
                values = self._schema.whole(self._schema.store(parsed))
                folder = self._schema.folder(values)
            except ValueRefused as error:
                yield self._refusal(number, error.field, error.code, str(error))
                continue
            if folder != self._folder:
                why = f"by its values it belongs to the folder {folder!r}"
                yield self._refusal(number, None, "other-folder", why)
                continue
            with self._source.snapshot():
                history = [e for p in self._source.events(self._source.history([(self._schema.name, key)])) for e in p]
            seen = seen_state(self._vector, history)
            yield Wanted("create", key, seen.version if seen is not None else {}, parsed, number)

    def _deleted(self) -> Iterator[Wanted | Refusal]:
        """The records whose rows were taken away; none where a row cannot be read, which may be theirs."""
        count = self._rows.execute("SELECT count(*) FROM gone").fetchone()[0]
        if self._unread and count:
            why = f"rows of {count} records are not there, which may be those that cannot be read; nothing was deleted"
            yield self._refusal(None, None, "delete-skipped", why)
            return
        for key, seen in self._rows.execute("SELECT key, seen FROM gone ORDER BY key"):
            yield Wanted("delete", key, _vector(seen))

    def _fingerprint(self, columns: Sequence[str], cells: Sequence[str | None]) -> bytes:
        """A row but for its key."""
        told = dict(zip(columns, cells, strict=True))
        del told[self._schema.collection.key]
        return _encode({name: cell for name, cell in told.items() if cell})
