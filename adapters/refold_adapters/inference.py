"""The fields of a collection nobody has defined, guessed from a file of its records.

A guess must not change what is there: a column has a type only when every cell of it, read as that type and written
again, means the same. So 076329 stays text, as does a column that mixes kinds, and a number with more digits than a
double holds. What remains is the narrowest of int, float, bool, date and datetime, else str. A column with empty cells
allows null, but a text column keeps the empty text, which CSV files rarely tell from null, and which is its default.

Values of JSON have a type of their own, and only text is looked at for dates; what is mixed or nested becomes `json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from refold.schema import KEY_TYPES, Field
from refold.values import INT_MAX, INT_MIN, TYPES, Refused

from .record_files import FileRow, RowError

_whole = re.compile(r"-?[1-9][0-9]{0,18}|0").fullmatch
_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?").fullmatch
_EXACT_DIGITS = 15
_EXACT_WHOLE = 2**53


def _is_int(text: str) -> bool:
    return _whole(text) is not None and INT_MIN <= int(text) <= INT_MAX


def _is_float(text: str) -> bool:
    if _number(text) is None or text == "-0":
        return False
    value = float(text)
    if value in {float("inf"), float("-inf")} or (value.is_integer() and abs(value) > _EXACT_WHOLE):
        return False
    return len(text) <= _EXACT_DIGITS or Decimal(repr(value)) == Decimal(text)


def _is_bool(text: str) -> bool:
    return text in {"true", "false", "True", "False", "TRUE", "FALSE"}


def _is_of(kind: str) -> Callable[[str], bool]:
    parse = TYPES[kind].parse

    def check(text: str) -> bool:
        if not text[:4].isdigit():
            return False
        try:
            parse(text)
        except Refused:
            return False
        return True

    return check


_CHECKS: dict[str, Callable[[str], bool]] = {
    "int": _is_int,
    "float": _is_float,
    "bool": _is_bool,
    "date": _is_of("date"),
    "datetime": _is_of("datetime"),
}


class Guess:
    """What the values of one field have been so far."""

    def __init__(self) -> None:
        self.empty = False
        self.null = False
        self.seen = 0
        self._some = False
        self._kinds = list(_CHECKS)
        self._json: set[str] = set()

    def cell(self, text: str | None) -> None:
        """Takes in a cell of CSV."""
        self.seen += 1
        if not text:
            self.empty = True
        elif self._kinds:
            if not self._some or len(text) > _EXACT_DIGITS or not _CHECKS[self._kinds[0]](text):
                self._kinds = [kind for kind in self._kinds if _CHECKS[kind](text)]
            self._some = True

    def value(self, value: Any) -> None:
        """Takes in a value of JSON."""
        self.seen += 1
        if value is None:
            self.null = True
            return
        kind = type(value).__name__
        self._json.add(kind)
        if kind == "str":
            self._kinds = [kind for kind in self._kinds if kind in {"date", "datetime"} and _CHECKS[kind](value)]

    def field(self, rows: int) -> Field:
        """The field, when the file has `rows` rows."""
        absent = self.null or self.seen < rows
        if not self._json:
            kind = self._kinds[0] if self._kinds and self._some else "str"
            return _field(kind, null=absent or (self.empty and kind != "str"))
        if self._json == {"str"}:
            kind = self._kinds[0] if self._kinds else "str"
        elif self._json <= {"int", "float"}:
            kind = "float" if "float" in self._json else "int"
        else:
            kind = "bool" if self._json == {"bool"} else "json"
        return _field(kind, null=absent)


def _field(kind: str, *, null: bool) -> Field:
    return Field(kind, null=null, default="" if kind == "str" and not null else None)


def infer_fields(
    rows: Iterable[FileRow | RowError], columns: Sequence[str] | None, key: str | None = None
) -> Mapping[str, Field]:
    """The fields that these rows have; the key's type is one that keys can have."""
    guesses: dict[str, Guess] = {name: Guess() for name in columns or ()}
    in_order = list(guesses.values())
    count = 0
    for row in rows:
        if isinstance(row, RowError):
            continue
        count += 1
        if isinstance(row.cells, Mapping):
            for name, value in row.cells.items():
                guesses.setdefault(name, Guess()).value(value)
        else:
            for guess, cell in zip(in_order, row.cells, strict=True):
                guess.cell(cell)
    fields = {name: guess.field(count) for name, guess in guesses.items()}
    if key in fields:
        fields[key] = Field(fields[key].type if fields[key].type in KEY_TYPES else "str")
    return fields
