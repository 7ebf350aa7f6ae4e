"""Imports of good, bad and odd files, through the command."""

import json
from pathlib import Path
from typing import Any

import pytest

from .support import AIRPORTS, Refold


def report(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = result.json
    return {name: found[name] for name in ("read", "created", "updated", "deleted", "unchanged")}


def test_a_collection_is_inferred_and_nothing_is_lost(airports: Refold) -> None:
    values = airports("get", "airports", "076329", "--json").json["values"]
    assert values == {
        "icao": "076329",
        "name": 'O\'Hare, "Field"',
        "country": "US",
        "subd": "Illinois",
        "elevation": None,
        "opened": None,
    }
    assert airports("get", "airports", "EDDM", "--json").json["folder"] == "DE/Bavaria"
    defined = airports("log", "--limit", "1", "--json").lines[0]
    types = {name.removeprefix("field:"): spec["type"] for name, spec in defined["data"].items() if "field:" in name}
    assert types == {
        "icao": "str", "name": "str", "country": "str", "subd": "str", "elevation": "int", "opened": "date",
    }  # fmt: skip


def test_the_same_file_again_writes_nothing(airports: Refold) -> None:
    before = airports("digest", "--json").json
    again = airports("import", "airports", "airports.csv", "--json")
    assert again.code == 0
    assert again.json == {
        "read": 3, "created": 0, "updated": 0, "deleted": 0, "unchanged": 3, "failed": [], "unlisted": 0,
    }  # fmt: skip
    assert airports("digest", "--json").json == before


def test_a_changed_row_writes_only_the_changed_field_and_missing_rows_are_deleted_when_asked(
    airports: Refold, tmp_path: Path
) -> None:
    rows = AIRPORTS.replace("364", "365").splitlines(keepends=True)
    (tmp_path / "next.csv").write_text("".join(rows[:2]), encoding="utf-8")
    assert report(airports("import", "airports", "next.csv", "--json")) == {
        "read": 1, "created": 0, "updated": 1, "deleted": 0, "unchanged": 0,
    }  # fmt: skip
    assert airports("log", "airports", "EDDF", "--json").lines[-1]["data"] == {"elevation": 365}
    assert report(airports("import", "airports", "next.csv", "--delete-missing", "--json"))["deleted"] == 2
    assert airports("ls", "--json").json == {"collections": {"airports": 1}}


@pytest.mark.parametrize(
    ("row", "field", "code", "says"),
    [
        ("EDDL,Düsseldorf,DE,NRW,high,", "elevation", "value-refused", "a whole number is expected (got 'high')"),
        ("EDDL,Düsseldorf,DE,NRW,99999999999999999999,", "elevation", "value-refused", "64 bits"),
        ("EDDL,Düsseldorf,DE,NRW,147,2024-02-30", "opened", "value-refused", "YYYY-MM-DD"),
        ("EDDL,Düsseldorf,DE,NRW,147", None, "bad-row", "5 cells, and the header has 6"),
        ("EDDL,Düsseldorf,DE,NRW,147,,", None, "bad-row", "7 cells, and the header has 6"),
        (",Düsseldorf,DE,NRW,147,", "icao", "value-refused", "key"),
        ('EDDL,D"dorf,DE,NRW,147,', None, "bad-row", "a quote inside a cell"),
        ("EDDF,Twice,DE,NRW,147,", "icao", "duplicate-key", "stands in row 2 already"),
    ],
)
def test_a_bad_row_says_what_is_wrong_and_harms_no_other(
    airports: Refold, tmp_path: Path, row: str, field: str | None, code: str, says: str
) -> None:
    (tmp_path / "next.csv").write_text(f"{AIRPORTS}{row}\nEDDB,Berlin,DE,Brandenburg,157,\n", encoding="utf-8")
    done = airports("import", "airports", "next.csv", "--json")
    assert done.code == 3
    (failed,) = done.json["failed"]
    assert (failed["row"], failed["field"], failed["code"]) == (5, field, code)
    assert says in failed["message"]
    assert report(done) == {"read": 5, "created": 1, "updated": 0, "deleted": 0, "unchanged": 3}
    people = airports("import", "airports", "next.csv")
    assert (people.code, people.out) == (3, "5 read, 0 created, 0 updated, 0 deleted, 4 unchanged, 1 failed\n")
    assert people.err.startswith("row 5: ")


def test_people_are_shown_the_first_bad_rows_and_where_they_start(airports: Refold, tmp_path: Path) -> None:
    rows = "".join(f'K{number},"a\nb",high\n' for number in range(30))
    (tmp_path / "next.csv").write_text(f"icao,name,elevation\n{rows}", encoding="utf-8")
    said = airports("import", "airports", "next.csv").err.splitlines()
    assert len(said) == 21 and said[-1] == "and 10 more rows; -v shows them"
    assert said[1].startswith("row 3: ") and said[1].endswith("(line 4)")
    assert len(airports("import", "airports", "next.csv", "-v").err.splitlines()) == 30
    assert len(airports("import", "airports", "next.csv", "--json").json["failed"]) == 30


def test_an_inferred_text_field_needs_no_value(airports: Refold) -> None:
    assert airports("put", "airports", "icao=EDDB", "--json").json["event"]["data"] == {
        "icao": "EDDB", "name": "", "country": "", "subd": "", "elevation": None, "opened": None,
    }  # fmt: skip


def test_rows_the_engine_refuses_are_found_within_their_batch(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "strict.toml").write_text(
        '[collections.codes]\nkey = "code"\nfields = { code = "int", name = "str", kind = "str" }\n', encoding="utf-8"
    )
    assert airports("define", "strict.toml").code == 0
    rows = [{"code": 1, "name": "a", "kind": "k"}, {"code": 2, "name": "b"}, {"code": 3, "name": "c", "kind": "k"}]
    (tmp_path / "codes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = airports("import", "codes", "codes.jsonl", "--json")
    assert (done.code, report(done)["created"]) == (3, 2)
    (failed,) = done.json["failed"]
    assert (failed["row"], failed["field"], failed["code"]) == (2, "kind", "value-refused")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("icao,name,icao\n", "column 'icao' stands twice"),
        ("icao,,name\n", "column 2 of 3 has no name"),
        ("name,country\nx,y\n", "no column 'icao', the key of airports"),
        ("icao,lid\nEDDF,x\n", "airports has no field lid"),
        ("", "it is empty"),
        ('"icao\nEDDF\n', "never closed"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(airports: Refold, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
    done = airports("import", "airports", "bad.csv", "--json")
    assert done.code == 1
    assert (done.error["code"], done.error["path"]) == ("input-refused", "bad.csv")
    assert says in done.error["message"]


def test_new_columns_are_defined_when_asked(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "next.csv").write_text("icao,lid,runways\nEDDF,FRA,4\n", encoding="utf-8")
    done = airports("import", "airports", "next.csv", "--add-fields", "--json")
    assert report(done)["updated"] == 1
    assert airports("get", "airports", "EDDF", "--json").json["values"]["runways"] == 4
    other = airports("get", "airports", "EDDM", "--json").json["values"]
    assert (other["lid"], other["runways"]) == ("", None)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_change_nothing(airports: Refold, tmp_path: Path, end: str, mark: str) -> None:
    (tmp_path / "next.csv").write_bytes((mark + AIRPORTS.replace("\n", end)).encode())
    assert report(airports("import", "airports", "next.csv", "--json"))["unchanged"] == 3


def test_other_encodings_are_named_and_can_be_stated(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(AIRPORTS.encode("latin-1"))
    done = airports("import", "airports", "latin.csv", "--json")
    (failed,) = done.json["failed"]
    assert (done.code, failed["row"], failed["field"], failed["code"]) == (3, 3, "name", "bad-encoding")
    assert "byte 0xFC is not utf-8" in failed["message"] and "--encoding" in failed["message"]
    assert report(airports("import", "airports", "latin.csv", "--encoding", "latin-1", "--json"))["unchanged"] == 3
    (tmp_path / "wide.csv").write_bytes(AIRPORTS.encode("utf-16"))
    assert "utf-16" in airports("import", "airports", "wide.csv", "--json").error["message"]
    assert report(airports("import", "airports", "wide.csv", "--encoding", "utf-16", "--json"))["unchanged"] == 3
    assert airports("import", "airports", "wide.csv", "--encoding", "base64").code == 2


def test_cells_are_carried_exactly(airports: Refold, tmp_path: Path) -> None:
    name = 'line\r\nbreak, "quotes", =1+1, ' + "x" * 20_000_000
    cell = '"' + name.replace('"', '""') + '"'
    (tmp_path / "next.csv").write_bytes(f"icao,name,country,subd\nEDDF,{cell},DE,Hesse\n".encode())
    assert report(airports("import", "airports", "next.csv", "--json"))["updated"] == 1
    assert airports("get", "airports", "EDDF", "--json").json["values"]["name"] == name


def test_nothing_is_deleted_when_a_key_could_not_be_read(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "next.csv").write_text("icao,name\nEDDF,x,y\n", encoding="utf-8")
    done = airports("import", "airports", "next.csv", "--delete-missing", "--json")
    assert done.code == 3
    assert [failed["code"] for failed in done.json["failed"]] == ["bad-row", "delete-skipped"]
    assert done.json["deleted"] == 0
    (tmp_path / "next.csv").write_text("icao,elevation\nEDDF,high\nEDDM,1487\n", encoding="utf-8")
    done = airports("import", "airports", "next.csv", "--delete-missing", "--json")
    assert (done.json["deleted"], len(done.json["failed"])) == (1, 1)
    assert airports("get", "airports", "EDDF", "--json").json["deleted"] is False


JSON_ROWS: list[dict[str, Any]] = [
    {"icao": "EDDF", "name": ']},{ \\ " é', "country": "DE", "subd": "", "elevation": 364, "opened": "1936-07-08"},
    {"icao": "EDDL", "name": "Düsseldorf", "country": "DE", "subd": "NRW", "elevation": None, "opened": None},
]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_like_json_lines(airports: Refold, tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(JSON_ROWS, indent=indent), encoding="utf-8")
    assert report(airports("import", "airports", "rows.json", "--json")) == {
        "read": 2, "created": 1, "updated": 1, "deleted": 0, "unchanged": 0,
    }  # fmt: skip
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in JSON_ROWS)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    assert report(airports("import", "airports", "rows.jsonl", "--json"))["unchanged"] == 2


@pytest.mark.parametrize(
    ("line", "field", "code", "says"),
    [
        ('{"icao": "X", "elevation": NaN}', None, "bad-row", "NaN is no number"),
        ('{"icao": "X", "elevation": "12"}', "elevation", "value-refused", "a whole number is expected, not str"),
        ('{"icao": "X", "elevation": 9223372036854775808}', "elevation", "value-refused", "64 bits"),
        ('{"icao": "X", "name": "\\ud800"}', "name", "value-refused", "lone surrogate"),
        ('{"icao": "X", "lid": 1}', "lid", "field-unknown", "airports has no field 'lid'"),
        ('{"icao": "X", "icao": "Y"}', None, "bad-row", "stands twice"),
        ('{"name": "X"}', "icao", "value-refused", "the key is required"),
        ("[1]", None, "bad-row", "a JSON object is expected"),
        ('{"icao": ', None, "bad-row", ""),
        ("[" * 100_000 + "]" * 100_000, None, "bad-row", "nested too deeply"),
    ],
)
def test_a_bad_json_row_harms_no_other(
    airports: Refold, tmp_path: Path, line: str, field: str | None, code: str, says: str
) -> None:
    good = json.dumps(JSON_ROWS[1])
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{good}\n", encoding="utf-8")
    done = airports("import", "airports", "rows.jsonl", "--json")
    (failed,) = done.json["failed"]
    assert (done.code, failed["row"], failed["field"], failed["code"]) == (3, 1, field, code)
    assert says in failed["message"]
    assert report(done)["created"] == 1


@pytest.mark.parametrize("text", ['[{"icao": "X"}', '{"icao": "X"}, 1]', '[{"icao": "X"}] []', '[{"icao": "X"}}'])
def test_a_broken_array_is_refused(airports: Refold, tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    assert airports("import", "airports", "rows.json", "--format", "json", "--json").error["code"] == "input-refused"


def test_an_undefined_collection_needs_a_key(refold: Refold, tmp_path: Path) -> None:
    (tmp_path / "airports.csv").write_text(AIRPORTS, encoding="utf-8")
    refold("init")
    done = refold("import", "airports", "airports.csv", "--json")
    assert done.code == 2 and "--key FIELD" in done.error["message"]
    done = refold("import", "airports", "airports.csv", "--key", "lid", "--json")
    assert done.code == 1 and "no column 'lid'" in done.error["message"]
    done = refold("import", "airports", "nowhere.csv", "--key", "icao", "--json")
    assert (done.code, done.error["code"], done.error["path"]) == (1, "input-refused", "nowhere.csv")


def test_options_that_contradict_the_definition_are_refused(airports: Refold) -> None:
    done = airports("import", "airports", "airports.csv", "--key", "name", "--json")
    assert "--key 'icao', not 'name'" in done.error["message"]


def test_small_batches_give_the_same_state(airports: Refold) -> None:
    airports("init", root="b")
    plan = ("--key", "icao", "--folder", "{country}/{subd}", "--batch-size", "1")
    assert airports("import", "airports", "airports.csv", *plan, root="b").code == 0
    assert airports("digest", root="b").out != ""
    listed = airports("ls", "airports").out
    assert airports("ls", "airports", root="b").out == listed


def test_what_export_writes_import_takes_unchanged(airports: Refold, tmp_path: Path) -> None:
    airports("put", "airports", "icao==1+1", "name='=x", "country=", "subd= ", "elevation=", "opened=")
    for kind in ("csv", "jsonl", "json"):
        assert airports("export", "airports", "--format", kind, "-o", f"out.{kind}").code == 0
        assert report(airports("import", "airports", f"out.{kind}", "--delete-missing", "--json")) == {
            "read": 4, "created": 0, "updated": 0, "deleted": 0, "unchanged": 4,
        }  # fmt: skip
        printed = airports("export", "airports", "--format", kind, "-q")
        assert printed.out == (tmp_path / f"out.{kind}").read_text(encoding="utf-8")
    assert airports("export", "airports", "--format", "csv", "--neutralise", "-o", "safe.csv").code == 0
    assert "'=1+1" in (tmp_path / "safe.csv").read_text(encoding="utf-8")
    assert report(airports("import", "airports", "safe.csv", "--neutralised", "--json"))["unchanged"] == 4
