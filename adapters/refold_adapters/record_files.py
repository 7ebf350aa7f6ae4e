"""Files of records as a stream of rows: CSV, JSON Lines, or one JSON array, in any encoding that Python knows.

A row is what stands in the file, with nothing converted; what a row is worth is for its reader to judge. A row that
cannot be read is an error among the rows, and the others are unharmed. What makes the whole file unreadable raises
`InputRefused`.

Bytes that the encoding does not allow become lone surrogates (PEP 383). No field type takes those, so such a byte
makes its row bad, and it can be named.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from refold.errors import InputRefused

from .csv_cells import CsvError, CsvReader
from .json_records import ArraySplitter, LineSplitter, Malformed, Value, parse

FORMATS = ("csv", "jsonl", "json")
CHUNK = 256 * 1024
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class RowError(msgspec.Struct, frozen=True):
    """Why a row was not taken: its number (as a spreadsheet counts, a header is row 1), its field, a stable code."""

    row: int | None
    field: str | None
    code: str
    message: str


class FileRow(NamedTuple):
    """A row as it stands in the file: cells in the order of the header, or the members of a JSON object."""

    number: int
    line: int
    cells: Sequence[str | None] | Mapping[str, Any]


def bad_bytes(text: str) -> list[int]:
    """The bytes in a text that its encoding does not allow."""
    return [ord(char) - 0xDC00 for char in text if "\udc80" <= char <= "\udcff"]


def where(number: int, line: int) -> str:
    """The line of a row, where it is not its number."""
    return f" (line {line})" if line != number else ""


class RecordFile:
    """An open file of records, to be read once. `columns` is the header of a CSV file, None for JSON.

    Raises `InputRefused` when it cannot be what it is said to be.
    """

    def __init__(
        self,
        path: Path,
        kind: str | None = None,
        encoding: str = "utf-8",
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.path = path
        self.encoding = encoding
        self._progress = progress
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise InputRefused(str(path), error.strerror or str(error)) from error
        try:
            self._decode = codecs.getincrementaldecoder(encoding)(errors="surrogateescape").decode
            self._chunks = self._texts()
            self._ahead = next(self._chunks, "")
            self.kind = kind or self._guess()
            self.columns = self._header() if self.kind == "csv" else None
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def refuse(self, why: str) -> InputRefused:
        """The error that says why this file is refused."""
        return InputRefused(str(self.path), why)

    def _texts(self) -> Iterator[str]:
        done = 0
        first = True
        while True:
            try:
                data = self._file.read(CHUNK)
                if first and self.encoding.lower().replace("_", "-") in {"utf-8", "utf8"}:
                    self._check_mark(data)
                text = self._decode(data, final=not data)
            except OSError as error:
                raise self.refuse(error.strerror or str(error)) from error
            except UnicodeError as error:
                raise self.refuse(f"it is not {self.encoding}: {error}; say which with --encoding") from None
            if first and text:
                text = text.removeprefix("\ufeff")
                first = False
            if text:
                yield text
            if not data:
                return
            done += len(data)
            self._progress(done)

    def _check_mark(self, data: bytes) -> None:
        for mark, name in _WIDE.items():
            if data.startswith(mark):
                raise self.refuse(f"it starts with the byte order mark of {name}; say --encoding {name}")

    def _guess(self) -> str:
        known = _SUFFIXES.get(self.path.suffix.lower())
        if known is not None:
            return known
        start = self._ahead.lstrip()[:1]
        return {"[": "json", "{": "jsonl"}.get(start, "jsonl" if self.path.suffix == ".json" else "csv")

    def _all(self) -> Iterator[str]:
        if self._ahead:
            ahead, self._ahead = self._ahead, ""
            yield ahead
        yield from self._chunks

    def _header(self) -> list[str]:
        self._rows = self._csv()
        header = next(self._rows, None)
        if header is None:
            raise self.refuse("it is empty; a CSV file starts with a header")
        if isinstance(header, CsvError):
            raise self.refuse(f"the header, line {header.line}: {header.why}")
        columns = [cell or "" for cell in header.cells]
        for number, name in enumerate(columns, 1):
            if bad := bad_bytes(name):
                raise self.refuse(f"the header has byte 0x{bad[0]:02X}, not {self.encoding}; say which with --encoding")
            if not name.strip():
                raise self.refuse(f"column {number} of {len(columns)} has no name in the header")
            if name in columns[: number - 1]:
                raise self.refuse(f"column {name!r} stands twice in the header")
        return columns

    def _csv(self) -> Iterator[Any]:
        reader = CsvReader()
        for text in self._all():
            yield from reader.feed(text)
        yield from reader.close()

    def rows(self) -> Iterator[FileRow | RowError]:
        """What stands in the file, in its order."""
        return self._csv_rows(self.columns) if self.columns is not None else self._json_rows()

    def _csv_rows(self, columns: list[str]) -> Iterator[FileRow | RowError]:
        width = len(columns)
        for row in self._rows:
            if isinstance(row, CsvError):
                yield RowError(row.row, None, "bad-row", row.why + where(row.row, row.line))
            elif len(row.cells) == width:
                yield FileRow(row.number, row.line, row.cells)
            elif row.cells != [None]:
                cells = f"{len(row.cells)} cell{'s' * (len(row.cells) != 1)}"
                why = f"{cells}, and the header has {width}" + where(row.number, row.line)
                yield RowError(row.number, None, "bad-row", why)

    def _json_rows(self) -> Iterator[FileRow | RowError]:
        for value in self._values():
            if value.text is None:
                message = "a record of more than 64 MiB" + where(value.number, value.line)
                yield RowError(value.number, None, "bad-row", message)
                continue
            try:
                cells = parse(value.text)
                if not isinstance(cells, dict):
                    raise ValueError("a JSON object is expected")
            except ValueError as error:
                yield RowError(value.number, None, "bad-row", str(error) + where(value.number, value.line))
                continue
            yield FileRow(value.number, value.line, cells)

    def _values(self) -> Iterator[Value]:
        splitter = LineSplitter() if self.kind == "jsonl" else ArraySplitter()
        try:
            for text in self._all():
                yield from splitter.feed(text)
            yield from splitter.close() or ()
        except Malformed as error:
            raise self.refuse(str(error)) from None
