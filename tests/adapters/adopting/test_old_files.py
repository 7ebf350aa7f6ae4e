"""Files of the older format: both spellings are read exactly, and what is wrong with a file is said."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold_adapters.adopting.old_files import OldMeta, read_old_csv, read_old_meta

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\\\0\r"), max_size=12)
ROWS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=4)
)


def names(width: int) -> list[str]:
    return [f"c{index}" for index in range(width)]


def wanted(rows: list[list[str]]) -> list[list[str]]:
    """The rows, without those that a reader cannot tell from a blank line."""
    return [row for row in rows if row != [""]]


@given(ROWS)
def test_rows_with_doubled_quotes_are_read(rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([names(len(rows[0])), *rows])
    found = read_old_csv(out.getvalue().encode())
    assert [[cell or "" for cell in cells] for _, cells in found.rows] == rows


@given(ROWS, st.booleans())
def test_rows_with_backslashes_are_read(rows: list[list[str]], bom: bool) -> None:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '\\"') + '"' if any(c in text for c in '",\n') else text

    text = "\n".join(",".join(map(cell, row)) for row in [names(len(rows[0])), *rows]) + "\n"
    if '\\",' in text or '\\"\n' in text:
        return  # a cell that ends with a quote can also be read as one with doubled quotes
    found = read_old_csv((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    assert [[cell or "" for cell in cells] for _, cells in found.rows] == wanted(rows)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"a,b\n", "it has no row"),
        (b"a,b\n1\n", "it has 1 cells, the header 2"),
        (b'a,b\n1,"2', "a quote is never closed"),
        (b"a,b\n1,\xe9\n", "byte 0xE9 at offset 6 is not UTF-8"),
        (b"a,a\n1,2\n", "the header names a column twice"),
        (b'a,b\n"x\\"y,1\n', "text after the closing quote"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    found = read_old_csv(data)
    assert found.rows == []
    assert why in [what for _, what in found.errors]


def test_line_ends_of_other_machines_are_taken() -> None:
    assert read_old_csv(b"a,b\r\n1,2\r\n").rows == [(2, ["1", "2"])]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema_version": 1}', b"\xff", b"[" * 100_000])
def test_a_meta_that_says_nothing_is_told_apart(data: bytes) -> None:
    assert isinstance(read_old_meta(data), str)


def test_a_meta_may_leave_things_out() -> None:
    assert read_old_meta(b'{"schema_version": "1.0", "more": 1}') == OldMeta("1.0")
