"""Exact CSV: what is written is what is read, null and empty text told apart, in linear time.

RFC 4180 with three choices of our own. Lines end in LF, so that a file is the same on every machine and
diffs well. Null is an empty cell and "" is a quoted one, which every CSV reader accepts and most export
in the same way. The reader takes LF, CRLF and CR, and a line end inside quotes is data, kept as it is.
A blank line is a row of one null cell: the only rows that look so have one column.

Reading. A quote inside a bare cell, or text after a closing quote, makes its row bad, and no other: the
row still ends where a lenient reader (the `csv` module) would end it. So the next row starts where that
reader's starts, and no line inside a quoted cell is ever taken for a row. After a quote that is never
closed there is no telling rows from data: the error comes at the end and names where that row began.
Errors stand in the result among the rows, so that a caller cannot overlook them.

The reader keeps a state, not a buffer to be scanned again: each character is looked at a bounded number
of times however the text is cut into chunks, and bad rows are counted through without being kept.

Formulas. A spreadsheet runs a text cell that starts with one of `=+-@`, a TAB or CR
(https://owasp.org/www-community/attacks/CSV_Injection). An apostrophe before it stops that, and for the
mapping to be reversible a cell that starts with apostrophes and then a formula gets one more:
'* F -> ' '* F is one-to-one onto '+ F, and everything else stays.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

CELL_LIMIT = 64 * 1024 * 1024
CELLS_LIMIT = 32_768

_FORMULA = r"[=+\-@\t\r\n＝＋－＠]"
_is_bare = re.compile(r'(?![ \ufeff])[^",\r\n]*+(?<! )\Z').match
_is_bare_and_safe = re.compile(r"""(?![ \ufeff'=+\-@\t＝＋－＠])[^",\r\n]*+(?<! )\Z""").match
_runs = re.compile(f"'*{_FORMULA}").match
_neutralised = re.compile(f"''*{_FORMULA}").match

_PLAIN = r'[^",\r\n]*+'
_QUOTED_CELL = r'"(?:[^"]++|"")*+"'
_END = r"(?:\r\n?|\n)"
_row_without_quotes = re.compile(rf'([^"\r\n]*+){_END}').match
_row_with_quotes = re.compile(rf"(?:(?:{_QUOTED_CELL}|{_PLAIN}),)*+(?:{_QUOTED_CELL}|{_PLAIN}){_END}").match
_cells_of_row = re.compile(rf"({_QUOTED_CELL}|{_PLAIN})(?:,|{_END})").findall
_bare_text = re.compile(r"[^,\r\n]*+").match
_quoted_text = re.compile(r'(?:[^"]++|"")*+').match


class CsvError(ValueError):
    """A row that cannot be read exactly: its number, the line it starts on, and why."""

    def __init__(self, row: int, line: int, why: str) -> None:
        super().__init__(row, line, why)
        self.row, self.line, self.why = row, line, why

    def __str__(self) -> str:
        return f"row {self.row}, line {self.line}: {self.why}"


class Row(NamedTuple):
    """A good row, counted from 1 with the bad ones, and the line it starts on."""

    line: int
    number: int
    cells: list[str | None]


def neutral_cell(text: str) -> str:
    """The text as no spreadsheet runs it; `original_cell` is the inverse."""
    return "'" + text if _runs(text) else text


def original_cell(text: str) -> str:
    """The text that `neutral_cell` was given."""
    return text[1:] if _neutralised(text) else text


def original_row(cells: Sequence[str | None], text: Sequence[bool] | None = None) -> list[str | None]:
    """A row as it was before it was neutralised, with the same `text` columns."""
    return [original_cell(cell) if cell and (text is None or text[index]) else cell for index, cell in enumerate(cells)]


def encode_row(cells: Sequence[str | None], *, neutralise: bool, text: Sequence[bool] | None = None) -> str:
    """One row with its line end. Where `neutralise`, the columns that `text` marks (all, when None) are made safe."""
    return encode_rows((cells,), neutralise=neutralise, text=text)


def encode_rows(rows: Iterable[Sequence[str | None]], *, neutralise: bool, text: Sequence[bool] | None = None) -> str:
    """Rows one after the other, as `encode_row` gives each."""
    is_plain = _is_bare_and_safe if neutralise else _is_bare
    lines: list[str] = []
    for cells in rows:
        if not cells:
            raise ValueError("a row needs a cell")
        done = []
        for index, cell in enumerate(cells):
            if cell is None:
                done.append("")
            elif cell and is_plain(cell):
                done.append(cell)
            else:
                if neutralise and (text is None or text[index]):
                    cell = neutral_cell(cell)
                if not cell or not _is_bare(cell):
                    cell = '"' + cell.replace('"', '""') + '"'
                done.append(cell)
        lines.append(",".join(done))
    lines.append("")
    return "\n".join(lines)


def reads_plainly(text: str) -> bool:
    """Whether no row of a text that ends with a line end is bad; far quicker than reading bad rows."""
    position, end = 0, len(text)
    while position < end:
        row = _row_without_quotes(text, position) or _row_with_quotes(text, position)
        if not row:
            return False
        position = row.end()
    return True


_ROW: Final = 0
_CELL: Final = 1
_BARE: Final = 2
_QUOTED: Final = 3
_CLOSED: Final = 4


class CsvReader:
    """Rows out of text that comes in chunks of any size. A byte order mark is the decoder's business."""

    def __init__(self, *, cell_limit: int = CELL_LIMIT) -> None:
        self._limit = cell_limit
        self._state = _ROW
        self._line = 1
        self._number = 0
        self._after_cr = False
        self._cells: list[str | None] = []
        self._pieces: list[str] = []
        self._size = 0
        self._is_quoted = False
        self._start = 1
        self._why: str | None = None

    def feed(self, chunk: str) -> list[Row | CsvError]:
        """The rows that this chunk completes."""
        out: list[Row | CsvError] = []
        position, end = 0, len(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == "\n":
                position = 1
                if self._state == _QUOTED:
                    self._keep("\n")
        while position < end:
            if self._state == _ROW:
                position = self._whole_rows(chunk, position, out)
                self._start = self._line
                self._state = _CELL if position < end else _ROW
            else:
                position = self._step(chunk, position, out)
        return out

    def close(self) -> list[Row | CsvError]:
        """The last row, when no line end follows it."""
        if self._state == _ROW:
            return []
        if self._state == _QUOTED:
            self._fail("a quote is never closed")
        out: list[Row | CsvError] = []
        self._end_cell()
        self._end_row(out)
        return out

    def _whole_rows(self, chunk: str, position: int, out: list[Row | CsvError]) -> int:
        """The good rows that lie whole in the chunk; what is left is taken piece by piece."""
        number, line, limit = self._number, self._line, min(self._limit, CELLS_LIMIT)
        cells: list[str | None]
        while True:
            lines = 1
            if row := _row_without_quotes(chunk, position):
                cells = [cell or None for cell in row[1].split(",")]
            elif row := _row_with_quotes(chunk, position):
                text = row[0]
                cells = [_unquoted(cell) if cell else None for cell in _cells_of_row(text)]
                lines = _count_lines(text)
            if not row or row.end() - position > limit:
                break
            number += 1
            out.append(Row(line, number, cells))
            line += lines
            position = row.end()
        self._number, self._line = number, line
        self._after_cr = position == len(chunk) and chunk[-1] == "\r"
        return position

    def _step(self, chunk: str, position: int, out: list[Row | CsvError]) -> int:
        """One piece of a row that is not plain: to the end of a cell's text, or past what ends it."""
        if self._state == _QUOTED:
            return self._quoted(chunk, position)
        char = chunk[position]
        if char == '"' and self._state != _BARE:
            if self._state == _CLOSED:
                self._keep(char)
            self._is_quoted = True
            self._state = _QUOTED
            return position + 1
        if char not in ",\r\n":
            if self._state == _CLOSED:
                self._fail("text after the closing quote")
            text = _bare_text(chunk, position)
            assert text
            if '"' in text[0]:
                self._fail("a quote inside a cell that does not start with one")
            self._keep(text[0])
            self._state = _BARE
            return text.end()
        self._end_cell()
        if char == ",":
            self._state = _CELL
            return position + 1
        self._end_row(out)
        if char == "\r":
            if position + 1 == len(chunk):
                self._after_cr = True
            elif chunk[position + 1] == "\n":
                position += 1
        return position + 1

    def _quoted(self, chunk: str, position: int) -> int:
        text = _quoted_text(chunk, position)
        assert text
        self._keep(text[0].replace('""', '"'))
        self._line += _count_lines(text[0])
        position = text.end()
        if position < len(chunk):
            self._state = _CLOSED
            return position + 1
        self._after_cr = chunk[-1] == "\r"
        return position

    def _keep(self, text: str) -> None:
        self._size += len(text)
        if self._size > self._limit:
            self._fail(f"a cell of more than {self._limit} characters")
        elif self._why is None:
            self._pieces.append(text)

    def _fail(self, why: str) -> None:
        self._why = self._why or why
        self._pieces.clear()
        self._cells.clear()

    def _end_cell(self) -> None:
        if self._why is None:
            text = "".join(self._pieces)
            self._cells.append(text if text or self._is_quoted else None)
            if len(self._cells) > CELLS_LIMIT:
                self._fail(f"a row of more than {CELLS_LIMIT} cells")
        self._pieces.clear()
        self._size = 0
        self._is_quoted = False

    def _end_row(self, out: list[Row | CsvError]) -> None:
        self._number += 1
        if self._why is None:
            out.append(Row(self._start, self._number, self._cells))
        else:
            out.append(CsvError(self._number, self._start, self._why))
        self._cells = []
        self._why = None
        self._line += 1
        self._state = _ROW


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell[0] == '"' else cell


def _count_lines(text: str) -> int:
    lines = text.count("\n")
    return lines + text.count("\r") - text.count("\r\n") if "\r" in text else lines
