"""The commands one by one: what they answer, in both shapes, and how they refuse."""

import io
import json
from pathlib import Path

import pytest

from refold_adapters.lock import Lock

from .support import Refold

COLLECTIONS = """\
[collections.orders]
key = "order_no"
folder = "{date:%Y}/{order_no}"
[collections.orders.fields]
order_no = { type = "str", pattern = "^\\\\d{6}$" }
customer = "str"
date = { type = "date", required = true }
total = "float?"
paid = "bool?"
tags = "json?"
"""


@pytest.fixture
def orders(refold: Refold, tmp_path: Path) -> Refold:
    (tmp_path / "orders.toml").write_text(COLLECTIONS, encoding="utf-8")
    done = refold("init", "--collections", "orders.toml", "--replica", "office", "--time", "2024-07-29")
    assert (done.code, done.err) == (0, "")
    return refold


def test_init_makes_an_archive_once(refold: Refold, tmp_path: Path) -> None:
    done = refold("init", "--replica", "office", "--json")
    assert done.json == {"path": "a", "replica": "office", "collections": []}
    assert {"changelog.db", "tables.db", "refold.toml"} <= {path.name for path in (tmp_path / "a").iterdir()}
    assert refold("init", "--json").error["code"] == "exists"


def test_init_with_a_bad_definition_makes_nothing(refold: Refold, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[collections.x]\nkey = 1\n", encoding="utf-8")
    assert refold("init", "--collections", "bad.toml", "--json").error["code"] == "definition-refused"
    assert not (tmp_path / "a").exists()


def test_define_says_what_it_changed(orders: Refold, tmp_path: Path) -> None:
    assert orders("define", "orders.toml").out == "nothing changed\n"
    (tmp_path / "orders.toml").write_text(COLLECTIONS + 'note = "str?"\n', encoding="utf-8")
    (event,) = orders("define", "orders.toml", "--json").json["events"]
    assert event["data"] == {"field:note": {"type": "str", "null": True, "order": 6}}
    (tmp_path / "orders.toml").write_text(COLLECTIONS.replace("float?", "int?"), encoding="utf-8")
    assert orders("define", "orders.toml", "--json").error["code"] == "definition-refused"


def test_put_patch_and_delete_read_values_by_the_type_of_the_field(orders: Refold) -> None:
    assert orders("put", "orders", "order_no=076329", "customer=Süd", "date=2024-07-29", "total=12.5", "paid=true",
                  'tags:=["a", 1]').out == "created orders 076329\n"  # fmt: skip
    assert orders("get", "orders", "076329", "--json").json == {
        "collection": "orders",
        "key": "076329",
        "values": {
            "order_no": "076329", "customer": "Süd", "date": "2024-07-29", "total": 12.5, "paid": True,
            "tags": ["a", 1],
        },
        "version": "office:2",
        "folder": "2024/076329",
        "deleted": False,
    }  # fmt: skip
    done = orders("patch", "orders", "076329", "total=", "--actor", "ann", "--reason", "refund", "--json")
    event = done.json["event"]
    assert (event["data"], event["actor"], event["reason"]) == ({"total": None}, "ann", "refund")
    assert orders("patch", "orders", "076329", "total=", "--json").json == {"event": None}
    assert orders("delete", "orders", "076329").out == "deleted orders 076329\n"
    gone = orders("get", "orders", "076329", "--json").json
    assert (gone["deleted"], gone["values"]["customer"]) == (True, "Süd")


def test_put_takes_a_json_object_as_argument_and_from_stdin(orders: Refold, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"order_no": "076330", "customer": "=1+1", "date": "2024-07-30"})
    assert orders("put", "orders", text, "--json").json["event"]["kind"] == "create"
    monkeypatch.setattr("sys.stdin", io.StringIO(text.replace("=1", "2")))
    assert orders("put", "orders", "-", "--json").json["event"]["data"] == {"customer": "2+1"}


@pytest.mark.parametrize(
    ("values", "code", "error"),
    [
        (["order_no=1", "customer=x", "date=2024-07-29"], 1, "value-refused"),
        (["order_no=076329", "customer=x", "date=29.7.2024"], 1, "value-refused"),
        (["order_no=076329", "customer=x"], 1, "value-refused"),
        (["order_no=076329", "client=x"], 1, "field-unknown"),
        (["customer=x", "date=2024-07-29"], 1, "value-refused"),
        (["order_no"], 2, "usage"),
        (["order_no=1", "order_no=2"], 2, "usage"),
        (["total:=NaN"], 2, "usage"),
        (["{"], 2, "usage"),
        (['{"a": 1, "a": 2}'], 2, "usage"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(orders: Refold, values: list[str], code: int, error: str) -> None:
    done = orders("put", "orders", *values, "--json")
    assert (done.code, done.error["code"]) == (code, error)
    assert orders("status", "--json").json["position"] == 1


def test_a_stale_version_and_a_repeated_request(orders: Refold) -> None:
    put = ("put", "orders", "order_no=076329", "customer=x", "date=2024-07-29", "--request-id", "r1", "--json")
    assert orders(*put).json == orders(*put).json
    orders("patch", "orders", "076329", "total=1")
    done = orders("patch", "orders", "076329", "total=2", "--if-version", "office:2", "--json")
    assert (done.code, done.error["code"], done.error["current"]) == (1, "version-mismatch", "office:3")


def test_get_shows_one_field(orders: Refold) -> None:
    orders("put", "orders", "order_no=076329", "customer=a\tb", "date=2024-07-29", "total=12.5")
    assert orders("get", "orders", "076329", "--field", "total").out == "12.5\n"
    assert orders("get", "orders", "076329", "--field", "customer").out == "a\tb\n"
    assert orders("get", "orders", "076329", "--field", "date", "--json").out == '"2024-07-29"\n'
    assert orders("get", "orders", "076329", "--field", "x", "--json").error["code"] == "field-unknown"
    assert "customer\ta\\tb\n" in orders("get", "orders", "076329").out
    assert orders("get", "orders", "076330", "--json").error["code"] == "record-unknown"
    assert orders("get", "parts", "1", "--json").error["code"] == "collection-unknown"


def test_ls_selects_orders_and_limits(airports: Refold) -> None:
    lines = airports("ls", "airports", "--where", "country=DE", "--order", "-elevation", "--json").lines
    assert [line["key"] for line in lines] == ["EDDM", "EDDF"]
    assert [line["key"] for line in airports("ls", "airports", "--limit", "1", "--json").lines] == ["076329"]
    assert [line["key"] for line in airports("ls", "airports", "--where", "elevation=", "--json").lines] == ["076329"]
    plain = airports("ls", "airports", "--where", "elevation=364").out
    assert plain == (
        "icao\tname\tcountry\tsubd\televation\topened\nEDDF\tFrankfurt am Main\tDE\tHesse\t364\t1936-07-08\n"
    )
    assert airports("ls").out == "collection\trecords\nairports\t3\n"
    assert airports("ls", "airports", "--where", "lid=x", "--json").error["code"] == "field-unknown"
    assert airports("ls", "airports", "--order", "lid", "--json").error["code"] == "field-unknown"
    assert airports("ls", "--limit", "1").code == 2


def test_the_log_is_json_lines_with_the_documented_keys(airports: Refold) -> None:
    airports("patch", "airports", "EDDF", "elevation=365", "--actor", "bob", "--reason", "survey")
    lines = airports("log", "--json").lines
    assert [line["position"] for line in lines] == [1, 2, 3, 4, 5]
    last = lines[-1]
    assert set(last) == {
        "position", "replica", "seq", "time", "kind", "collection", "key", "data", "context", "actor", "reason", "hash",
    }  # fmt: skip
    assert (last["context"], last["actor"], last["reason"]) == ({"office": 2}, "bob", "survey")
    assert last["time"].endswith("Z") and len(last["hash"]) == 64
    assert [line["kind"] for line in airports("log", "airports", "EDDF", "--json").lines] == ["create", "update"]
    assert [line["position"] for line in airports("log", "airports", "--reverse", "-n", "2", "--json").lines] == [5, 4]
    assert [line["position"] for line in airports("log", "--actor", "bob", "--json").lines] == [5]
    assert [line["position"] for line in airports("log", "--after", "3", "--json").lines] == [4, 5]
    plain = airports("log", "airports", "EDDF", "--reverse", "-n", "1").out.rstrip("\n").split("\t")
    assert plain[2:] == ["update", "airports", "EDDF", "elevation=365", "bob", "survey"]
    assert airports("log", "parts", "--json").error["code"] == "collection-unknown"


def test_back_dated_history_is_written_in_order_and_found_by_time(orders: Refold) -> None:
    put = ("put", "orders", "order_no=076329", "customer=x", "date=2024-07-29")
    assert orders(*put, "--time", "2024-08-01T12:00:00+02:00").code == 0
    late = orders("patch", "orders", "076329", "total=1", "--time", "2024-07-31", "--json")
    assert (late.code, late.error["code"]) == (1, "clock-behind")
    assert orders("delete", "orders", "076329", "--time", "2024-08-02").code == 0
    times = [line["time"] for line in orders("log", "--json").lines]
    assert times == ["2024-07-29T00:00:00.000Z", "2024-08-01T10:00:00.000Z", "2024-08-02T00:00:00.000Z"]
    since = orders("log", "--since", "2024-08-01T10:00:00Z", "--until", "2024-08-01T10:00:00Z", "--json").lines
    assert [line["time"] for line in since] == times[1:2]
    assert orders("log", "--since", "yesterday").code == 2


def test_status_and_digest_have_the_documented_keys(airports: Refold) -> None:
    status = airports("status", "--json").json
    assert status["position"] == 4 and status["vector"] == {"office": 4} and status["collections"] == {"airports": 3}
    assert [(one["name"], one["position"], one["state"]) for one in status["projections"]] == [
        ("tables", 4, "current"),
        ("folders", 4, "current"),
    ]
    digest = airports("digest", "--json").json
    assert set(digest) == {"digest", "position", "vector", "heads"}
    assert airports("digest").out == digest["digest"] + "\n"


def test_verify_is_quiet_about_nothing_and_names_what_is_wrong(airports: Refold, tmp_path: Path) -> None:
    good = airports("verify", "--json")
    assert (good.code, good.json["ok"], good.json["findings"]) == (0, True, [])
    data = tmp_path / "a/DE/Hesse/data.csv"
    data.write_bytes(data.read_bytes().replace(b"364", b"365"))
    bad = airports("verify", "--json")
    assert (bad.code, bad.json["ok"]) == (4, False)
    (finding,) = bad.json["findings"]
    assert (finding["kind"], finding["folder"], finding["file"]) == ("folder-altered", "DE/Hesse", "data.csv")
    people = airports("verify")
    assert people.code == 4 and people.out.startswith("folder-altered: ")


def test_verify_names_a_damaged_log(airports: Refold, tmp_path: Path) -> None:
    log = tmp_path / "a/changelog.db"
    log.write_bytes(log.read_bytes().replace("München".encode(), b"Munchen "))
    done = airports("verify", "--json")
    assert done.code == 4
    assert any(finding["kind"].startswith("log-") for finding in done.json["findings"])
    log.write_bytes(b"x" * 8192)
    done = airports("verify", "--json")
    assert (done.code, done.json["findings"][0]["kind"], done.json["verdict"]) == (4, "log-rot", "rot")


def test_export_brings_the_folders_up_to_date(refold: Refold, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/refold.toml").write_text("[archive]\nfolders = false\n", encoding="utf-8")
    (tmp_path / "airports.csv").write_text("icao,country\nEDDF,DE\n", encoding="utf-8")
    refold("init")
    refold("import", "airports", "airports.csv", "--key", "icao", "--folder", "{country}")
    assert not (tmp_path / "a/DE").exists()
    (tmp_path / "a/refold.toml").unlink()
    done = refold("export", "--json").json
    assert [(one["name"], one["state"]) for one in done["projections"]] == [
        ("tables", "current"),
        ("folders", "current"),
    ]
    assert (tmp_path / "a/DE/data.csv").exists()


@pytest.mark.parametrize(
    "arguments",
    [("export", "airports"), ("export", "--format", "csv"), ("export", "-o", "x"), ("ls", "a", "--where", "x")],
)
def test_export_and_ls_say_what_is_missing(airports: Refold, arguments: tuple[str, ...]) -> None:
    done = airports(*arguments)
    assert done.code in {1, 2} and done.err.startswith("error: ")


def test_readers_bring_back_tables_that_are_gone(airports: Refold, tmp_path: Path) -> None:
    before = airports("digest").out
    for path in (tmp_path / "a").glob("tables.db*"):
        path.unlink()
    assert airports("digest").out == before


@pytest.mark.parametrize(
    "command",
    [
        ("get", "a", "b"), ("ls",), ("log",), ("status",), ("verify",), ("digest",), ("export",), ("define", "x.toml"),
        ("put", "a", "b=c"), ("patch", "a", "b", "c=d"), ("delete", "a", "b"), ("import", "a", "b.csv"),
        ("restore", "--in-place"), ("restore", "-o", "new"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_archive_is_exit_code_10(refold: Refold, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = refold(*command, "--json")
    assert (done.code, done.error["code"], done.error["path"]) == (10, "no-archive", "a")
    people = refold(*command)
    assert people.err.startswith("error: no archive at a\nhint: ") and people.out == ""
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_are_exit_code_2_in_both_shapes(refold: Refold) -> None:
    assert refold("import").code == 2
    done = refold("nonsense", "--json")
    assert (done.code, done.error["code"]) == (2, "usage")
    assert refold("log", "--json", "--since", "x").error["code"] == "usage"


def test_json_is_taken_before_the_command_too(airports: Refold) -> None:
    assert airports("--json", "digest").json == airports("digest", "--json").json


def test_an_option_beats_the_environment_beats_the_settings(
    orders: Refold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def actor(*arguments: str) -> str:
        orders("patch", "orders", "076329", "total=1", *arguments)
        event = orders("patch", "orders", "076329", "total=2", *arguments, "--json").json["event"]
        return str(event["actor"])

    monkeypatch.setenv("LOGNAME", "logged-in")
    orders("put", "orders", "order_no=076329", "customer=x", "date=2024-07-29")
    assert actor() == "logged-in"
    (tmp_path / "a/refold.toml").write_text('[cli]\nactor = "settings"\n', encoding="utf-8")
    assert actor() == "settings"
    monkeypatch.setenv("REFOLD_ACTOR", "environment")
    assert actor() == "environment"
    assert actor("--actor", "option") == "option"
    (tmp_path / "a/refold.toml").write_text("[cli]\nactress = 1\n", encoding="utf-8")
    assert orders("import", "orders", "x.csv", "--json").error["code"] == "settings-invalid"


def test_quiet_says_nothing(airports: Refold) -> None:
    for command in (("put", "airports", "icao=X", "name=", "country=", "subd="), ("verify",), ("export",)):
        assert airports(*command, "-q") == (0, "", "")


def test_tables_that_a_power_cut_set_back_are_caught_up_before_they_are_read(airports: Refold, tmp_path: Path) -> None:
    tables = tmp_path / "a" / "tables.db"
    earlier = tables.read_bytes()
    assert airports("patch", "airports", "EDDF", "elevation=1").code == 0
    now = airports("digest").out
    for path in tables.parent.glob("tables.db*"):
        path.unlink()
    tables.write_bytes(earlier)
    assert airports("get", "airports", "EDDF", "--field", "elevation").out == "1\n"
    assert airports("digest").out == now


def test_tables_behind_a_log_that_another_process_writes_are_said_to_be(airports: Refold, tmp_path: Path) -> None:
    tables = tmp_path / "a" / "tables.db"
    earlier = tables.read_bytes()
    assert airports("patch", "airports", "EDDF", "elevation=1").code == 0
    for path in tables.parent.glob("tables.db*"):
        path.unlink()
    tables.write_bytes(earlier)
    lock = Lock(tmp_path / "a" / "changelog.db.lock")
    lock.acquire(0)
    try:
        states = {each["name"]: each["state"] for each in airports("status", "--json").json["projections"]}
    finally:
        lock.release()
    assert states["tables"] == "behind"


@pytest.mark.parametrize("name", ["changelog.db", "tables.db", "folders.db", "refold.toml", "DE/Hesse/data.csv"])
def test_an_export_replaces_no_file_of_the_archive(airports: Refold, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a" / name
    before = path.read_bytes()
    assert airports("export", "airports", "--format", "csv", "-o", str(path)).code == 2
    assert path.read_bytes() == before
    assert airports("export", "airports", "--format", "csv", "-o", str(path.with_name("airports.csv"))).code == 0


def test_verify_says_when_folders_cannot_be_compared(airports: Refold, tmp_path: Path) -> None:
    for path in (tmp_path / "a").glob("folders.db*"):
        path.unlink()
    done = airports("verify", "--json")
    assert (done.code, [finding["file"] for finding in done.json["findings"]]) == (4, ["folders.db"])
    assert airports("export").code == 0
    assert airports("verify").code == 0


def test_what_was_deleted_is_listed_and_kinds_are_told_apart(airports: Refold) -> None:
    assert airports("delete", "airports", "EDDM", "--actor", "ann", "--reason", "closed").code == 0
    (line,) = airports("deletions", "airports", "--json").out.splitlines()
    told = json.loads(line)
    assert (told["key"], told["actor"], told["reason"], told["standing"]) == ("EDDM", "ann", "closed", True)
    (row,) = airports("deletions").out.splitlines()
    assert row.split("\t")[3:] == ["EDDM", "deleted", "ann", "closed"]
    assert airports("deletions", "--actor", "bob").out == "" and airports("deletions", "nothing").code == 1
    kinds = [
        json.loads(line)["kind"]
        for line in airports("log", "--kind", "delete", "--kind", "define", "--json").out.splitlines()
    ]
    assert kinds == ["define", "delete"]


def test_a_summary_of_no_conflicts_says_so(airports: Refold) -> None:
    told = json.loads(airports("conflicts", "--summary", "--json").out)["conflicts"]
    assert told == {"all": {"open": 0, "settled": 0, "replaced": 0, "resolved": 0, "total": 0, "automatic": None}}
    assert airports("conflicts", "--summary").code == 0
    assert airports("conflicts", "--summary", "--status", "open").code == 2
