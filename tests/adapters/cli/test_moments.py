"""An archive as it was, as the command line shows it: --at, diff, blame, tag."""

import json
from pathlib import Path

import pytest

from .support import Refold

DEFINITION = """\
[collections.parts]
key = "no"
folder = "{no}"
[collections.parts.fields]
no = "str"
name = "str?"
price = "decimal?"
"""


@pytest.fixture
def parts(refold: Refold, tmp_path: Path) -> Refold:
    """A part that was made, changed, and deleted, on three days; another that is there since the second."""
    (tmp_path / "parts.toml").write_text(DEFINITION, encoding="utf-8")
    refold("init", "--collections", "parts.toml", "--replica", "office", "--time", "2026-01-01")
    refold("put", "parts", "no=1", "name=Bolt", "price=1.50", "--time", "2026-01-02", "--actor", "ann")
    refold("patch", "parts", "1", "price=1.75", "--time", "2026-01-03", "--actor", "bob", "--reason", "new list")
    refold("put", "parts", "no=2", "name=Nut", "--time", "2026-01-03T01:00Z", "--actor", "bob")
    refold("delete", "parts", "1", "--time", "2026-01-04", "--actor", "eve")
    return refold


def test_a_record_is_shown_as_it_was(parts: Refold) -> None:
    for moment, price in (
        ("2026-01-02", "1.50"),
        ("2026-01-03T01:00+01:00", "1.75"),
        ("@2", "1.50"),
        ("office:3", "1.75"),
    ):
        assert parts("get", "parts", "1", "--field", "price", "--at", moment).out == f"{price}\n"
    assert parts("get", "parts", "1", "--at", "@end", "--json").json["deleted"]
    done = parts("get", "parts", "2", "--at", "@2", "--json")
    assert (done.code, done.error["code"]) == (1, "record-unknown")


def test_a_list_is_of_then(parts: Refold) -> None:
    assert parts("ls", "parts", "--at", "2026-01-03").out == "no\tname\tprice\n1\tBolt\t1.75\n"
    assert parts("ls", "parts", "--at", "@4", "--where", "price=", "--json").lines[0]["key"] == "2"
    assert len(parts("ls", "parts", "--at", "@4", "-n", "1", "--json").lines) == 1
    assert parts("ls", "--at", "@1", "--json").json == {"collections": {"parts": 0}}
    assert parts("ls", "--at", "@4").out == "collection\trecords\nparts\t2\n"
    assert parts("ls", "parts", "--at", "@4", "--order", "name").code == 2


def test_records_are_exported_as_they_were(parts: Refold, tmp_path: Path) -> None:
    done = parts("export", "parts", "--format", "csv", "--at", "@4")
    assert done.out == "no,name,price\n1,Bolt,1.75\n2,Nut,\n"
    assert parts("export", "--at", "@4").code == 2
    (tmp_path / "more.toml").write_text(DEFINITION + 'note = "str?"\n', encoding="utf-8")
    parts("define", "more.toml")
    assert parts("export", "parts", "--format", "csv", "--at", "@4").out == done.out


def test_a_diff_reads_like_one(parts: Refold) -> None:
    done = parts("diff", "2026-01-02", "2026-01-03T12:00Z")
    assert done.out == "changed parts 1\n  - price: 1.50\n  + price: 1.75\ncreated parts 2\n  + no: 2\n  + name: Nut\n"
    assert done.err == "1 created, 1 changed, 0 deleted\n"
    assert parts("diff", "@1", "@4", "parts", "2", "--json").lines == [
        {"kind": "created", "collection": "parts", "key": "2",
         "fields": {name: {"old": None, "new": new} for name, new in (("no", "2"), ("name", "Nut"), ("price", None))}}
    ]  # fmt: skip
    assert parts("diff", "@4", "@end", "-q").out.splitlines()[0] == "deleted parts 1"
    assert parts("diff", "@end", "@5", "--json").out == ""
    assert parts("diff", "@end", "@9", "--json").error["code"] == "position-unknown"
    assert parts("diff", "@1", "@5", "others", "--json").error["code"] == "collection-unknown"
    assert parts("diff", "@1").code == 2


def test_a_changed_definition_is_part_of_a_diff(parts: Refold, tmp_path: Path) -> None:
    (tmp_path / "parts.toml").write_text(DEFINITION + 'note = "str?"\n', encoding="utf-8")
    parts("define", "parts.toml")
    (line,) = parts("diff", "@5", "@end", "--json").lines
    assert (line["kind"], line["key"], list(line["fields"])) == ("defined", "", ["field:note"])
    assert parts("diff", "@5", "@end").err == "0 created, 0 changed, 0 deleted, 1 defined\n"


def test_blame_says_who_when_why_and_by_which_event(parts: Refold) -> None:
    rows = [line.split("\t") for line in parts("blame", "parts", "1", "--at", "@3").out.splitlines()]
    assert rows[0] == ["field", "value", "", "actor", "time", "reason", "event", "position"]
    assert rows[3] == ["price", "1.75", "", "bob", "2026-01-03T00:00:00.000Z", "new list", "office:3", "3"]
    assert rows[4][:4] == ["(record)", "there", "", "bob"]
    found = parts("blame", "parts", "1", "--json").json
    assert found["deleted"] and found["presence"][0]["actor"] == "eve"
    assert found["fields"]["name"] == {
        "value": "Bolt",
        "standing": [
            {"value": "Bolt", "holds": True, "dot": "office:2", "position": 2, "time": "2026-01-02T00:00:00.000Z",
             "kind": "create", "actor": "ann", "reason": None}
        ],
    }  # fmt: skip
    assert parts("blame", "parts", "3", "--json").error["code"] == "record-unknown"


def test_blame_shows_what_lost(parts: Refold) -> None:
    parts("restore", "-o", "b", "--replica", "van")
    parts("patch", "parts", "2", "name=Ours")
    parts("patch", "parts", "2", "name=Theirs", root="b")
    assert parts("sync", "b").code == 0
    rows = [line.split("\t")[:3] for line in parts("blame", "parts", "2").out.splitlines()]
    assert ["name", "Theirs", ""] in rows and ["name", "Ours", "lost"] in rows


def test_a_moment_gets_a_name_and_is_found_by_it(parts: Refold) -> None:
    assert parts("tag", "now", "--reason", "stock-taking").out == "tagged now office:5\n"
    assert parts("tag", "then", "--at", "2026-01-02").out == "tagged then office:2\n"
    assert parts("tag", "then", "--at", "@2").out == "nothing changed\n"
    assert parts("tag", "--list").out == parts("tag").out == "name\tvector\nnow\toffice:5\nthen\toffice:2\n"
    assert parts("tag", "--list", "--json").json == {"tags": {"now": {"office": 5}, "then": {"office": 2}}}
    assert parts("get", "parts", "1", "--field", "price", "--at", "then").out == "1.50\n"
    assert parts("diff", "then", "now", "--json").lines[0]["kind"] == "deleted"
    done = parts("restore", "-o", "new", "--at", "then", "--json")
    assert (done.code, done.json["records"]) == (0, 1)
    assert parts("tag", "--delete", "then").out == "took back then\n"
    assert parts("get", "parts", "1", "--at", "then", "--json").error["code"] == "moment-unknown"
    (event,) = [line for line in parts("log", "--json").lines if line["reason"]][1:]
    assert event["kind"] == "tag"


@pytest.mark.parametrize(
    "arguments",
    [("x", "--list"), ("--delete",), ("--at", "@1"), ("x", "--delete", "--at", "@1"), ("--list", "--delete")],
)
def test_a_tag_is_said_one_way(parts: Refold, arguments: tuple[str, ...]) -> None:
    assert parts("tag", *arguments).code == 2


def test_a_tag_has_a_name_that_is_nothing_else(parts: Refold) -> None:
    assert parts("tag", "2026-01-01", "--json").error["code"] == "value-refused"


def test_a_group_that_is_left_out_is_said(airports: Refold) -> None:
    done = airports("ls", "--at", "@3", "--json")
    assert (done.code, done.json) == (0, {"collections": {"airports": 0}})
    assert done.err.startswith("note: position 3 stands inside a group of events")
    assert json.loads(airports("diff", "@3", "@end", "--json").out.splitlines()[0])["kind"] == "created"
