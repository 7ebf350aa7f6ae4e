"""No value leads a template out of the archive, and what a template means is the same on every machine."""

import datetime
import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.names import decode_name, encode_name
from refold.template import FOLDER_LIMIT, FolderTooLong, NotADate, Template, TemplateError

short = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["..", ".", "", "/", "/etc/passwd", "../..", "a\\..\\b", "C:\\", "CON", "a/../b", "\x00", "data.csv"]
)
values_of_any_type = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | short
)


@pytest.mark.parametrize(
    ("template", "values", "folder"),
    [
        ("", {}, ""),
        ("{country}/{subd}", {"country": "US", "subd": "Alaska"}, "US/Alaska"),
        ("{country}/{subd}", {"country": "TZ", "subd": "Zanzibar-Urban/West"}, "TZ/Zanzibar-Urban%2FWest"),
        ("{date:%Y}/{order_no}", {"date": "2024-07-29", "order_no": "076329"}, "2024/076329"),
        ("{at:%Y-%m-%d}/{at:%H}", {"at": "2024-07-29T10:05:06Z"}, "2024-07-29/10"),
        ("{at:%Y-%m-%d}/{at:%H}", {"at": "2024-07-29T00:30:00+02:00"}, "2024-07-28/22"),
        ("{date:%G-W%V}", {"date": "2024-12-30"}, "2025-W01"),
        ("{date:%j}", {"date": "2024-12-31"}, "366"),
        ("{date:%Y}", {"date": "0099-01-01"}, "0099"),
        ("{date:100%% %d}", {"date": "2024-01-02"}, "100%25 02"),
        ("{date:%Y}", {"date": datetime.date(2024, 1, 2)}, "2024"),
        ("{date:%Y}", {"date": None}, "%-"),
        ("{date:%Y}", {}, "%-"),
        ("{a}", {"a": None}, "%-"),
        ("x{a}y", {"a": None}, "xy"),
        ("{a}{b}", {}, "%"),
        ("{a}", {"a": ""}, "%"),
        ("{a}/{b}", {"a": "..", "b": "."}, "%2E%2E/%2E"),
        ("{a}.{b}", {"a": "", "b": ""}, "%2E"),
        ("{a}{b}", {"a": "CO", "b": "N"}, "%43ON"),
        ("{a}-{b}", {"a": "x", "b": 7}, "x-7"),
        ("{a}", {"a": True}, "true"),
        ("{a}", {"a": 12.5}, "12.5"),
        ("{a}", {"a": -3}, "-3"),
        ("{a}", {"a": decimal.Decimal("1.50")}, "1.50"),
        ("orders/{{{a}}}", {"a": 1}, "orders/{1}"),
        ("a:b/.c", {}, "a%3Ab/%2Ec"),
        ("{path:parent}", {"path": "2024/076329/a.pdf"}, "2024/076329"),
        ("{path:parent}", {"path": "a.pdf"}, ""),
        ("docs/{path:parent}/x", {"path": "a.pdf"}, "docs/x"),
        ("{path:parent}", {"path": "/etc/passwd"}, "%/etc"),
        ("{path:parent}", {"path": "../../x"}, "%2E%2E/%2E%2E"),
        ("{path:parent}", {"path": "a\\b\\c"}, ""),
        ("{path:parent}", {"path": "a\\b/c"}, "a%5Cb"),
        ("{path:parent}", {"path": None}, "%-"),
        ("{order no}", {"order no": "1"}, "1"),
    ],
)
def test_examples(template: str, values: dict[str, object], folder: str) -> None:
    assert Template.parse(template).folder(values) == folder


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("/a", 0),
        ("a/", 2),
        ("a//b", 2),
        ("/", 0),
        ("..", 0),
        ("a/../b", 2),
        ("a/.", 2),
        ("{a", 0),
        ("a}", 1),
        ("x/{}", 2),
        ("{ a}", 0),
        ("{a:}", 0),
        ("{a:x}", 0),
        ("{a:%b}", 0),
        ("{a:%}", 0),
        ("{a:%Y/%m}", 0),
        ("{a/b}", 0),
        ("x{a:parent}", 0),
        ("{a:parent}x", 0),
        ("{a:parent}{b:parent}", 10),
        ("{:parent}", 0),
        ("{a:%Y:parent}", 0),
        ("a/\ud800", 2),
    ],
)
def test_a_template_that_is_refused_says_where(text: str, position: int) -> None:
    with pytest.raises(TemplateError) as refused:
        Template.parse(text)
    assert (refused.value.text, refused.value.position) == (text, position)
    assert str(refused.value)


def test_fields_are_named_once_in_order() -> None:
    assert Template.parse("{b}/{a:%Y}/{b}-{c}/{d:parent}").fields == ("b", "a", "c", "d")


def test_templates_are_values() -> None:
    assert Template.parse("{a}/b") == Template.parse("{a}/b") != Template.parse("{a}/c")
    assert len({Template.parse("{a}"), Template.parse("{a}")}) == 1


@pytest.mark.parametrize("value", ["soon", "2024-13-01", "2024-02-30", 7, True, "20240729", "2024-W31-1", ""])
def test_what_is_no_date_is_refused(value: object) -> None:
    with pytest.raises(NotADate) as refused:
        Template.parse("{date:%Y}").folder({"date": value})
    assert (refused.value.field, refused.value.value) == ("date", value)


def test_a_path_has_a_limit() -> None:
    template = Template.parse("{a}/{b}")
    with pytest.raises(FolderTooLong) as refused:
        template.folder({"a": "ü" * 490, "b": "x" * 30})
    assert refused.value.limit == FOLDER_LIMIT < refused.value.length
    with pytest.raises(FolderTooLong):
        template.folder({"a": "x" * 20_000_000})
    assert len(template.folder({"a": "x" * 480, "b": "x" * 480})) <= FOLDER_LIMIT


@given(values_of_any_type, values_of_any_type)
def test_no_value_leaves_the_archive(a: object, b: object) -> None:
    folder = Template.parse("{a}/x{b}/{b:parent}").folder({"a": a, "b": b})
    for component in folder.split("/"):
        assert component not in {"", ".", ".."}
        assert "\\" not in component
        assert ":" not in component
        assert "\x00" not in component


@given(short | st.none(), short | st.none())
def test_values_come_back_from_a_folder(a: str | None, b: str | None) -> None:
    first, second = Template.parse("{a}/{b}").folder({"a": a, "b": b}).split("/")
    assert (decode_name(first), decode_name(second)) == (a, b)


@given(st.lists(short, min_size=1, max_size=5))
def test_a_parent_is_its_components_encoded(parts: list[str]) -> None:
    path = "/".join(parts)
    folder = Template.parse("{path:parent}").folder({"path": path})
    assert folder == "/".join(encode_name(part) for part in path.split("/")[:-1])


@given(st.datetimes(min_value=datetime.datetime(1000, 1, 1)))
def test_dates_are_formatted_as_the_c_library_does(at: datetime.datetime) -> None:
    pattern = "%Y %y %m %d %H %M %S %j %G %V %u"
    assert Template.parse(f"{{at:{pattern}}}").folder({"at": at.isoformat() + "Z"}) == at.strftime(pattern)
