"""Archives of which only parts are left, and what recover makes of them, as an operator sees it."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .support import Refold, bytes_of


@pytest.fixture
def shared(airports: Refold, tmp_path: Path) -> Refold:
    """The archive `a` with nine events, of which a directory `share` and a second archive `b` have the first six."""
    airports("patch", "airports", "EDDF", "elevation=365")
    airports("patch", "airports", "EDDM", "subd=Oberbayern")
    (tmp_path / "share").mkdir()
    assert airports("sync", f"dir://{tmp_path}/share").code == 0
    assert airports("restore", "-o", "b", "--replica", "branch").code == 0
    airports("patch", "airports", "EDDF", "elevation=366")
    airports("patch", "airports", "EDDF", "elevation=367")
    airports("delete", "airports", "076329")
    return airports


def drop(log: Path, *seqs: int) -> None:
    """Removes rows from a log, as SQLite itself would."""
    with closing(sqlite3.connect(log)) as connection, connection:
        for seq in seqs:
            connection.execute("DELETE FROM events WHERE seq = ?", (seq,))


def records_of(root: Path) -> dict[str, bytes]:
    """The files of all folders but the root, whose history tells of the restore."""
    return {path: data for path, data in bytes_of(root).items() if "/" in path}


def test_recover_says_where(airports: Refold) -> None:
    for arguments in ((), ("a",), ("-o", "new")):
        assert airports("recover", *arguments).code == 2
    done = airports("recover", "gone", "-o", "new", "--json")
    assert (done.code, done.error["code"]) == (1, "source-refused")
    done = airports("recover", "a", "-o", "new", "--prefer", "b", "--json")
    assert (done.code, done.error["code"]) == (1, "source-refused")
    done = airports("recover", "a", "-o", "a", "--json")
    assert (done.code, done.error["code"]) == (1, "exists")


def test_a_whole_archive_comes_back_as_it_is(shared: Refold, tmp_path: Path) -> None:
    done = shared("recover", "a", "-o", "new", "--json")
    assert (done.code, done.json["whole"], done.json["events"], done.json["missing"]) == (0, True, 9, [])
    assert done.json["digest"] == shared("digest").out.strip()
    assert records_of(tmp_path / "new") == records_of(tmp_path / "a")
    assert shared("verify", root="new").code == 0
    (note,) = [line["data"] for line in shared("log", "--json", root="new").lines if line["kind"] == "restore"]
    (told,) = note.values()
    assert told["sources"] == [{"source": "archive a", "events": 9, "used": 9}]
    assert str(tmp_path) not in json.dumps(note)


@pytest.mark.parametrize("seq", range(1, 10))
def test_any_event_lost_from_the_log_alone_is_named_and_filled_from_the_folders(
    shared: Refold, tmp_path: Path, seq: int
) -> None:
    drop(tmp_path / "a/changelog.db", seq)
    (tmp_path / "log").mkdir()
    shutil.copy(tmp_path / "a/changelog.db", tmp_path / "log")
    shutil.copy(tmp_path / "a/tables.db", tmp_path / "log")
    done = shared("recover", "log", "-o", "new", "--json")
    assert (done.code, done.json["missing"], done.json["published"]) == (4, [f"office:{seq}"], False)
    assert not (tmp_path / "new").exists()
    assert done.json["left_out"] == 9 - seq
    done = shared("recover", "log", "a/DE", "a/US", "a/events.jsonl", "-o", "new", "--json")
    assert (done.code, done.json["events"], done.json["missing"]) == (0, 9, [])
    assert records_of(tmp_path / "new") == records_of(tmp_path / "a")


def test_partly_recovered_and_later_completed(shared: Refold, tmp_path: Path) -> None:
    digest = shared("digest").out.strip()
    (tmp_path / "log").mkdir()
    shutil.copy(tmp_path / "a/changelog.db", tmp_path / "log")
    drop(tmp_path / "log/changelog.db", 6)
    stopped = shared("recover", "log", "-o", "part")
    assert stopped.code == 4
    assert "missing: 1 events: office:6" in stopped.err and "--partial" in stopped.err
    done = shared("recover", "log", "-o", "part", "--partial", "--json")
    assert (done.code, done.json["events"], done.json["left_out"]) == (3, 5, 3)
    assert done.json["touched"] == ["airports 076329", "airports EDDF"]
    lines = (tmp_path / "part/left-out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [7, 8, 9]
    assert shared("verify", root="part").code == 0
    done = shared("recover", "part", "share", "-o", "whole", "--json")
    assert (done.code, done.json["whole"], done.json["vector"]["office"]) == (0, True, 9)
    assert records_of(tmp_path / "whole") == records_of(tmp_path / "a")
    assert not (tmp_path / "whole/left-out.jsonl").exists()
    assert digest != shared("digest", root="whole").out.strip()  # by the two events that tell of the recoveries


def test_a_replica_and_a_share_give_back_what_they_have(shared: Refold, tmp_path: Path) -> None:
    shared("patch", "airports", "EDDM", "elevation=1", root="b")
    shutil.rmtree(tmp_path / "a")
    done = shared("recover", f"dir://{tmp_path}/share", "b", "-o", "new", "--json")
    assert (done.code, done.json["vector"]) == (0, {"branch": 2, "office": 6})
    assert [(each["kind"], each["events"], each["alone"]) for each in done.json["sources"]] == [
        ("share", 6, 0),
        ("archive", 8, 2),
    ]


def test_a_log_that_sqlite_cannot_open_is_read_all_the_same(shared: Refold, tmp_path: Path) -> None:
    log = tmp_path / "a/changelog.db"
    data = bytearray(log.read_bytes())
    data[:90] = bytes(90)
    (tmp_path / "torn.db").write_bytes(data)
    done = shared("recover", "torn.db", "-o", "new", "--json")
    assert (done.code, done.json["events"]) == (0, 9)
    assert done.json["sources"][0]["findings"][0]["kind"] == "log-rot"
    assert done.json["digest"] == shared("digest").out.strip()


def test_two_who_wrote_under_one_id_are_not_mixed(shared: Refold, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    shared("patch", "airports", "EDDF", "elevation=1")
    shared("patch", "airports", "EDDF", "elevation=2", root="copy")
    shared("patch", "airports", "EDDF", "elevation=3", root="copy")
    for options in ((), ("--partial",)):
        done = shared("recover", "a", "copy", "-o", "new", *options)
        assert done.code == 4
        assert "office:10 was written in different ways" in done.err and "--prefer" in done.err
        assert not (tmp_path / "new").exists()
    done = shared("recover", "a", "copy", "-o", "new", "--prefer", "copy", "--json")
    assert (done.code, done.json["events"], done.json["missing"]) == (0, 11, [])
    assert shared("get", "airports", "EDDF", "--field", "elevation", root="new").out == "3\n"
    (line,) = (tmp_path / "new/left-out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["sources"] == ["archive a"]


def test_a_second_recovery_of_the_result_changes_nothing(shared: Refold, tmp_path: Path) -> None:
    first = shared("recover", "a", "share", "b", "-o", "new", "--json").json
    second = shared("recover", "new", "-o", "again", "--json").json
    assert (second["digest"], second["whole"]) == (first["digest_after"], True)
    assert second["vector"] == {**first["vector"], first["replica"]: 1}
    third = shared("recover", "new", "a", "share", "b", "--dry-run", "--json").json
    assert (third["vector"], third["whole"], third["published"]) == (second["vector"], True, False)


def test_a_receipt_proves_the_archive_until_something_is_not_as_it_says(shared: Refold, tmp_path: Path) -> None:
    made = shared("recover", "a", "-o", "new", "--json").json
    path = tmp_path / "new" / made["receipt"]
    receipt = json.loads(path.read_bytes())
    assert (receipt["hash"], receipt["digest"], receipt["events"]) == (made["receipt_hash"], made["digest"], 9)
    (source,) = receipt["sources"]
    assert (source["source"], source["ranges"]) == ("archive a", ["office:1-9"])
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    for root in ("new", "a"):
        done = shared("restore", "--against", str(path), "--json", root=root)
        assert (done.code, done.json["ok"], done.json["digest"]) == (0, True, made["digest"])
    shared("patch", "airports", "EDDM", "elevation=1", root="new")
    assert shared("restore", "--against", str(path), root="new").code == 0
    done = shared("restore", "--against", str(path), "--json", root="b")
    assert (done.code, done.json["findings"][0]["kind"]) == (4, "receipt-missing")
    drop(tmp_path / "a/changelog.db", 4)
    done = shared("restore", "--against", str(path), "--json", root="a")
    assert (done.code, done.json["findings"][0]["kind"]) == (4, "receipt-unproved")


def test_a_receipt_that_was_altered_proves_nothing(shared: Refold, tmp_path: Path) -> None:
    shared("restore", "-o", "new")
    path = tmp_path / "new/refold-receipt.json"
    data = path.read_bytes()
    for altered in (data.replace(b'"events":9', b'"events":8'), data[:-1], b"", b"{}", data + b" "):
        path.write_bytes(altered)
        done = shared("restore", "--against", str(path), "--json", root="new")
        assert (done.code, done.error["code"]) == (4, "receipt-refused")
    assert shared("restore", "--against", "nowhere.json", root="new").code == 4


def test_nothing_is_made_that_is_not_what_the_receipt_says(shared: Refold, tmp_path: Path) -> None:
    shared("restore", "-o", "new")
    receipt = str(tmp_path / "new/refold-receipt.json")
    done = shared("recover", "share", "-o", "other", "--against", receipt, "--json")
    assert (done.code, done.json["published"]) == (4, False)
    assert not (tmp_path / "other").exists()
    assert shared("recover", "a", "-o", "other", "--against", receipt).code == 0
    assert shared("restore", "-o", "third", "--against", receipt).code == 0
    assert shared("restore", "--in-place", "--against", receipt).code == 2
    assert shared("restore", "--against", receipt, "--replica", "x").code == 2


def test_a_backup_is_a_source_however_damaged(shared: Refold, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    assert shared("backup", "create", "--dir", "safe").code == 0
    (file,) = (path for path in (tmp_path / "safe").iterdir() if path.name.endswith(".zip"))
    shared("patch", "airports", "EDDM", "elevation=1")
    assert shared("recover", "safe", "--dry-run", "--json").json["vector"] == {"office": 9}
    assert shared("recover", str(file), "-o", "new", "--json").json["digest"] is not None
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    done = shared("recover", "safe", "a", "--dry-run", "--json")
    assert (done.code, done.json["vector"]) == (0, {"office": 10})
    assert done.json["sources"][0]["findings"][0]["kind"] == "backup-damaged"


def test_folders_without_history_are_told(shared: Refold, tmp_path: Path) -> None:
    old = tmp_path / "a/2024/076001"
    old.mkdir(parents=True)
    (old / "data.csv").write_text("no\n1\n", encoding="utf-8")
    (old / "meta.json").write_text('{"schema_version": "1.0"}', encoding="utf-8")
    done = shared("recover", "a", "--dry-run", "--json")
    assert done.code == 0
    (finding,) = done.json["sources"][0]["findings"]
    assert (finding["kind"], finding["folder"]) == ("folder-without-history", "2024/076001")
    assert shared("recover", "a/2024", "--dry-run", "--json").error["code"] == "source-refused"
