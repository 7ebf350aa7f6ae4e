"""JSON cut into values, and the types that are guessed from rows."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold_adapters.inference import infer_fields
from refold_adapters.json_records import ArraySplitter, LineSplitter, Malformed, Value, parse
from refold_adapters.record_files import FileRow

TEXTS = st.text(st.sampled_from('ab"\\[]{},:\n é\u2028'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_an_array_is_cut_into_its_values_however_it_comes(
    values: list[Any], size: int, indent: int | None, plain: bool
) -> None:
    text = " " + json.dumps(values, indent=indent, ensure_ascii=plain) + "\n"
    splitter = ArraySplitter()
    found = [value for piece in pieces(text, size) for value in splitter.feed(piece)]
    splitter.close()
    assert [json.loads(value.text or "") for value in found] == values
    assert [value.number for value in found] == list(range(1, len(values) + 1))
    for value in found:
        lines = text.split("\n")[value.line - 1 :]
        assert value.text is not None and value.text.strip() in "\n".join(lines)


@given(st.lists(VALUES, max_size=5), st.integers(1, 9))
def test_lines_are_values_however_they_come(values: list[Any], size: int) -> None:
    text = "\n\n".join(json.dumps(value, ensure_ascii=False) for value in values)
    splitter = LineSplitter()
    found = [value for piece in pieces(text, size) for value in splitter.feed(piece)] + list(splitter.close())
    assert [(json.loads(value.text or ""), value.line) for value in found] == [
        (value, 2 * index + 1) for index, value in enumerate(values)
    ]


def test_a_value_that_is_too_long_is_counted_and_not_kept() -> None:
    array = ArraySplitter(limit=10)
    found = list(array.feed('["0123456789", "short", {"a": ["0123456789"]}, 1]'))
    assert [(value.number, value.text) for value in found] == [(1, None), (2, '"short"'), (3, None), (4, "1")]
    lines = LineSplitter(limit=3)
    assert list(lines.feed("12345\n1\n")) == [Value(1, 1, None), Value(2, 2, "1")]


@pytest.mark.parametrize("text", ["", "[1", '["a]', "{}", "1]", "[1] 2", "[1]]", "[}", "[1, {]"])
def test_what_is_no_array_is_malformed(text: str) -> None:
    def read() -> None:
        splitter = ArraySplitter()
        list(splitter.feed(text))
        splitter.close()

    with pytest.raises(Malformed):
        read()


@pytest.mark.parametrize("text", ["NaN", "-Infinity", '{"a": 1, "a": 1}', '[{"a": 1, "a": 2}]', "01", "[" * 10**5])
def test_what_would_not_be_handed_on_exactly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-20", "0"], "int"),
        (["1", "", None], "int?"),
        (["9223372036854775807"], "int"),
        (["9223372036854775808"], "str"),
        (["1", "2.5"], "float"),
        (["2.5", "1e3", "-0.25"], "float"),
        (["9007199254740993", "0.5"], "str"),
        (["0.1000000000000000055"], "str"),
        (["38.7040222222222", "-101.473911111111"], "float"),
        (["076329"], "str"),
        (["1", "076329"], "str"),
        (["-0"], "str"),
        (["+1"], "str"),
        (["1", "true"], "str"),
        (["true", "FALSE", ""], "bool?"),
        (["2024-07-29", ""], "date?"),
        (["2024-07-29", "2024-02-30"], "str"),
        (["2024-07-29T10:00:00Z", "2024-07-29T10:00:00+02:00"], "datetime"),
        (["2024-07-29T10:00:00"], "str"),
        (["2024-07-29", "2024-07-29T10:00:00Z"], "str"),
        (["", None], "str"),
        (["a", ""], "str"),
        ([" 1"], "str"),
        (["nan"], "str"),
        (["1e999"], "str"),
    ],
)
def test_a_column_has_a_type_only_when_nothing_changes(cells: list[str | None], kind: str) -> None:
    field = infer_fields([FileRow(number, number, [cell]) for number, cell in enumerate(cells)], ["x"])["x"]
    assert field.type + "?" * field.null == kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "int"),
        ([1, 2.5], "float"),
        ([True], "bool"),
        ([1, True], "json"),
        (["1", "2"], "str"),
        (["2024-07-29", None], "date?"),
        (["a", None], "str?"),
        ([1, "a"], "json"),
        ([[1], {"a": 1}], "json"),
        ([None], "str?"),
    ],
)
def test_values_of_json_have_a_type_of_their_own(values: list[Any], kind: str) -> None:
    field = infer_fields([FileRow(number, number, {"x": value}) for number, value in enumerate(values)], None)["x"]
    assert field.type + "?" * field.null == kind


def test_a_field_that_is_not_in_every_object_may_be_null() -> None:
    fields = infer_fields([FileRow(1, 1, {"a": 1, "k": 1.5}), FileRow(2, 2, {"k": 2})], None, "k")
    assert fields["a"].null and fields["k"].type == "str" and not fields["k"].null
