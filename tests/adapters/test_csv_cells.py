"""CSV is exact in both directions, ends its rows where the `csv` module does, and does not care how it is cut."""

import csv
import io
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refold_adapters.csv_cells import (
    CELLS_LIMIT,
    CsvError,
    CsvReader,
    Row,
    encode_row,
    encode_rows,
    neutral_cell,
    original_cell,
    original_row,
    reads_plainly,
)

nasty = st.lists(
    st.sampled_from(
        ["a", "'", '"', ",", "\r", "\n", "\r\n", " ", "=", "+", "-", "@", "\t", "\ufeff", "\x85", "\u2028", "\0", "ü"]
    )
).map("".join)
cells = st.none() | nasty | st.text(st.characters(exclude_categories=["Cs"]))
rows_of_any_shape = st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6)
raw_text = st.lists(st.sampled_from(["a", "b", '"', '"', ",", "\r", "\n", "\r\n", " "])).map("".join)
cuts = st.lists(st.integers(0, 60), max_size=6)


def read(text: str, at: Iterable[int] = ()) -> list[Row | CsvError]:
    reader = CsvReader()
    edges = [0, *sorted(at), len(text)]
    out: list[Row | CsvError] = []
    for start, end in itertools.pairwise(edges):
        out += reader.feed(text[start:end])
    return out + reader.close()


def good(items: Iterable[Row | CsvError]) -> list[list[str | None]]:
    found = []
    for item in items:
        assert isinstance(item, Row), item
        found.append(item.cells)
    return found


def plain(items: Iterable[Row | CsvError]) -> list[object]:
    return [item if isinstance(item, Row) else (item.row, item.line, item.why) for item in items]


@given(rows_of_any_shape, cuts)
@example([[None], [""], [None]], [])
def test_rows_come_back_exactly(rows: list[list[str | None]], at: list[int]) -> None:
    assert good(read(encode_rows(rows, neutralise=False), at)) == rows


@given(rows_of_any_shape, st.lists(st.booleans(), min_size=5, max_size=5) | st.none())
def test_neutralised_rows_come_back_exactly(rows: list[list[str | None]], text: list[bool] | None) -> None:
    encoded = encode_rows(rows, neutralise=True, text=text)
    found = good(read(encoded))
    assert [original_row(row, text) for row in found] == rows
    for row in found:
        for index, cell in enumerate(row):
            if cell and (text is None or text[index]):
                assert cell[0] not in "=+-@\t\r"


@given(nasty)
def test_neutralising_is_reversible(text: str) -> None:
    assert original_cell(neutral_cell(text)) == text


@given(rows_of_any_shape)
def test_the_csv_module_reads_what_is_written(rows: list[list[str | None]]) -> None:
    text = encode_rows(rows, neutralise=False)
    theirs = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [row or [""] for row in theirs] == [[cell or "" for cell in row] for row in rows]


@given(rows_of_any_shape, st.sampled_from(["\n", "\r\n", "\r"]), cuts)
def test_what_the_csv_module_writes_is_read(rows: list[list[str | None]], end: str, at: list[int]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    assert good(read(out.getvalue(), at)) == [[cell or "" for cell in row] for row in rows]


@given(raw_text, cuts)
@example('a"b,"x\n1,2\n3",y\nc', [])
@example('"ab"c"d,e\nf', [3, 4, 5])
@example('"\r\n"\r\n', [2, 5])
def test_rows_end_where_the_csv_module_ends_them_good_or_bad(text: str, at: list[int]) -> None:
    mine = read(text, at)
    theirs = csv.reader(io.StringIO(text, newline=""))
    for item in mine:
        row = next(theirs)
        if isinstance(item, Row):
            assert [cell or "" for cell in item.cells] == (row or [""])
    assert list(theirs) in ([], [[]])
    strict = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        list(strict)
    except csv.Error:
        assert any(isinstance(item, CsvError) for item in mine)


@given(raw_text, cuts)
def test_chunks_make_no_difference(text: str, at: list[int]) -> None:
    assert plain(read(text, at)) == plain(read(text)) == plain(read(text, range(len(text))))


@given(raw_text, cuts)
def test_rows_are_numbered_and_start_on_their_lines(text: str, at: list[int]) -> None:
    lines = io.StringIO(text.replace("\r\n", "\n").replace("\r", "\n")).readlines()
    for number, item in enumerate(read(text, at), 1):
        assert (item.number if isinstance(item, Row) else item.row) == number
        if isinstance(item, Row):
            first = "".join(lines[item.line - 1 :])
            cell = (item.cells[0] or "").replace("\r\n", "\n").replace("\r", "\n")
            assert first.removeprefix('"').replace('""', '"').startswith(cell.replace('""', '"'))


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ([None], "\n"),
        ([""], '""\n'),
        ([None, "", "a"], ',"",a\n'),
        (["a b", " a", "a ", "a,b", 'a"b', "a\nb", "a\rb"], 'a b," a","a ","a,b","a""b","a\nb","a\rb"\n'),
        (["\ufeffa"], '"\ufeffa"\n'),
        (["=1+1", "-1", "'=x"], "=1+1,-1,'=x\n"),
    ],
)
def test_quotes_only_where_needed(row: list[str | None], line: str) -> None:
    assert encode_row(row, neutralise=False) == line


def test_only_text_columns_are_neutralised() -> None:
    row = ["=1+1", "-1.5", "'=x", "'a", "\tx", "-a,b", None, ""]
    text = [True, False, True, True, True, True, True, True]
    assert encode_row(row, neutralise=True, text=text) == "'=1+1,-1.5,''=x,'a,'\tx,\"'-a,b\",,\"\"\n"


def test_a_row_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a cell"):
        encode_row([], neutralise=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a,b\n5" pipe,x\nc,d\n', [Row(1, 1, ["a", "b"]), (2, 2), Row(3, 3, ["c", "d"])]),
        ('"a"b,c\nd\n', [(1, 1), Row(2, 2, ["d"])]),
        ('a"b,"x\n1,2\n3"\nd\n', [(1, 1), Row(4, 2, ["d"])]),
        ('a\n"b\nc\n', [Row(1, 1, ["a"]), (2, 2)]),
        ('a\r"x\r\ny\rz"\r\nb', [Row(1, 1, ["a"]), Row(2, 2, ["x\r\ny\rz"]), Row(5, 3, ["b"])]),
        ("a,", [Row(1, 1, ["a", None])]),
        ('""', [Row(1, 1, [""])]),
        ("", []),
        ("\n\na", [Row(1, 1, [None]), Row(2, 2, [None]), Row(3, 3, ["a"])]),
    ],
)
def test_bad_rows_harm_no_other(text: str, expected: list[object]) -> None:
    everywhere: list[Iterable[int]] = [(), range(len(text))]
    for at in everywhere:
        found = [item if isinstance(item, Row) else (item.row, item.line) for item in read(text, at)]
        assert found == expected


@pytest.mark.parametrize("cell", ["x" * 11, '"' + "x" * 11 + '"', '"' + '""' * 11 + '"'])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_cell_over_the_limit_is_an_error_and_is_not_kept(cell: str, size: int) -> None:
    text = f"{cell[:10]}\n" if '"' not in cell else ""
    text += f"a,{cell},b\nc,d\n"
    reader = CsvReader(cell_limit=10)
    found = [item for start in range(0, len(text), size) for item in reader.feed(text[start : start + size])]
    *_, error, last = found
    assert isinstance(error, CsvError)
    assert "10 characters" in error.why
    assert str(error)
    assert isinstance(last, Row)
    assert last.cells == ["c", "d"]
    assert len(found) == text.count("\n")
    assert not reader.close()


def test_many_short_cells_in_a_long_line_are_within_the_limit() -> None:
    reader = CsvReader(cell_limit=10)
    assert good(reader.feed('abc,def,ghi,jkl\n"abc",def,ghi,jkl\n')) == [["abc", "def", "ghi", "jkl"]] * 2


def test_a_row_of_too_many_cells_is_an_error() -> None:
    bad, last = read("," * CELLS_LIMIT + "\na\n")
    assert isinstance(bad, CsvError)
    assert isinstance(last, Row)
    assert len(good(read("," * (CELLS_LIMIT - 1) + "\n"))[0]) == CELLS_LIMIT


@pytest.mark.parametrize("unit", ["x", '"', "a\n", 'a"', "\r"])
def test_a_large_cell_comes_back(unit: str) -> None:
    cell = unit * (2_000_000 // len(unit))
    text = encode_row([cell, "b"], neutralise=False)
    assert good(read(text, range(0, len(text), 65536))) == [[cell, "b"]]
    assert good(read(text)) == [[cell, "b"]]


@given(st.text(alphabet='a",\r\n \\', max_size=30))
def test_a_text_reads_plainly_when_no_row_of_it_is_bad(text: str) -> None:
    text += "\n"
    reader = CsvReader()
    found = [*reader.feed(text), *reader.close()]
    assert reads_plainly(text) == (not any(isinstance(row, CsvError) for row in found))
