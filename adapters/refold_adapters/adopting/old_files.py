r"""The files of the older format, as bytes: a meta.json that tells of a data.csv, in one of two spellings. Pure.

A cell with a quote in it was once written with the quote escaped by a backslash, `"{\"Ölwechsel\": [1]}"`, and later
with the quote doubled, as RFC 4180 has it. A file is read as RFC 4180 first: in the older spelling the first escaped
quote ends the cell for such a reader, and text follows where none may, so the file is refused and read the other way.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from refold_adapters.csv_cells import CsvError, CsvReader, Row, reads_plainly

BOM = b"\xef\xbb\xbf"

_BARE = r'[^",\r\n]*'
_ESCAPED = r'"(?:[^"\\]|\\.)*"'
_row = re.compile(rf"(?:(?:{_ESCAPED}|{_BARE}),)*(?:{_ESCAPED}|{_BARE})(?:\r\n|\n|\r|\Z)", re.DOTALL)
_cells = re.compile(rf"({_ESCAPED}|{_BARE})(?:,|\r\n|\n|\r|\Z)", re.DOTALL)


class OldMeta(msgspec.Struct):
    """What the older tool's meta.json says; every entry may be missing."""

    schema_version: str | None = None
    checksum: str | None = None
    exported_at: str | None = None
    auftrag_nr: str | None = None
    record_id: int | str | None = None
    file_size: int | None = None


class Table(NamedTuple):
    """A data.csv: its header, its rows with the number of each (the header is row 1), and what is wrong with it."""

    header: list[str]
    rows: list[tuple[int, list[str | None]]]
    errors: list[tuple[int | None, str]]


def read_old_meta(data: bytes) -> OldMeta | str:
    """What a meta.json says, or why it says nothing."""
    try:
        return msgspec.json.decode(data.removeprefix(BOM), type=OldMeta)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"it is not the JSON it should be: {error}"


def read_old_csv(data: bytes) -> Table:
    """The rows of a data.csv, in whichever spelling."""
    try:
        text = data.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        return Table([], [], [(None, f"byte 0x{data[error.start]:02X} at offset {error.start} is not UTF-8")])
    if not text:
        return Table([], [], [(None, "it is empty")])
    if '\\"' not in text:
        return _strict(text)
    if reads_plainly(text if text.endswith(("\n", "\r")) else text + "\n"):
        strict = _strict(text)
        if not strict.errors:
            return strict
    backslashed = _backslashed(text)
    return backslashed if not backslashed.errors else _strict(text)


def _strict(text: str) -> Table:
    reader = CsvReader()
    found = [*reader.feed(text), *reader.close()]
    header = [cell or "" for cell in found[0].cells] if found and isinstance(found[0], Row) else []
    rows: list[tuple[int, list[str | None]]] = []
    errors: list[tuple[int | None, str]] = []
    for row in found:
        if isinstance(row, CsvError):
            errors.append((row.row, row.why))
        elif row.number > 1 and row.cells != [None]:
            rows.append((row.number, row.cells))
    return _checked(header, rows, errors)


def _backslashed(text: str) -> Table:
    lines: list[list[str | None]] = []
    position = 0
    while position < len(text):
        row = _row.match(text, position)
        if row is None or row.end() == position:
            return Table([], [], [(len(lines) + 1, "it is spelt in no known way")])
        lines.append([_plain(cell) for cell in _cells.findall(text, position, row.end())][: _count(row[0])])
        position = row.end()
    header = [cell or "" for cell in lines[0]] if lines else []
    return _checked(header, [(number, cells) for number, cells in enumerate(lines[1:], 2) if cells != [None]], [])


def _count(row: str) -> int:
    """How many cells a row has: one more than the commas outside of quotes."""
    return re.sub(_ESCAPED, "", row, flags=re.DOTALL).count(",") + 1


def _plain(cell: str) -> str | None:
    if cell.startswith('"'):
        return cell[1:-1].replace('\\"', '"')
    return cell or None


def _checked(
    header: list[str], rows: list[tuple[int, list[str | None]]], errors: list[tuple[int | None, str]]
) -> Table:
    if not rows and not errors:
        errors = [(None, "it has no row")]
    good = []
    for number, cells in rows:
        if len(cells) == len(header):
            good.append((number, cells))
        else:
            errors.append((number, f"it has {len(cells)} cells, the header {len(header)}"))
    if len(set(header)) < len(header):
        return Table(header, [], [(1, "the header names a column twice")])
    return Table(header, good, errors)
