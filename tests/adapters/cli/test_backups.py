"""The commands for backups."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from .support import Refold

MINUTE = "2027-01-01T12:{:02}:00Z"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine's own."""
    monkeypatch.delenv("REFOLD_PASSPHRASE", raising=False)
    monkeypatch.delenv("REFOLD_BACKUPS", raising=False)


def test_a_backup_is_made_listed_shown_verified_and_restored(airports: Refold, tmp_path: Path) -> None:
    first = airports("backup", "create", "--description", "first", "--json").json
    assert (first["kind"], first["events"], first["notes"]) == ("full", 4, [])
    assert Path(first["path"]).parent == tmp_path / "a.backups"
    airports("put", "airports", "icao=LFPG", "name=Paris", "country=FR")
    second = airports("backup", "create", "--incremental", "--json").json
    assert (second["kind"], second["events"], second["parent"]["id"]) == ("incremental", 1, first["id"])
    listed = airports("backup", "list", "--json").json
    assert [found["id"] for found in listed["backups"]] == [first["id"], second["id"]]
    assert airports("backup", "list").out.splitlines()[1].endswith("\tfirst")
    shown = airports("backup", "show", "latest", "--json").json
    assert (shown["id"], shown["position"], shown["digest"]) == (
        second["id"],
        5,
        airports("digest", "--json").json["digest"],
    )
    assert f"id\t{first['id']}" in airports("backup", "show", first["id"][:8]).out
    verified = airports("backup", "verify", "--json")
    assert (verified.code, verified.json) == (
        0,
        {"ok": True, "backups": 2, "events": 5, "bytes": first["size"] + second["size"], "findings": []},
    )
    done = airports("backup", "restore", "latest", "-o", "b", "--json")
    assert (done.code, done.json["events"], done.json["digest"]) == (0, 5, shown["digest"])
    older = airports("backup", "restore", first["path"], "-o", "c", "--json", root="nowhere")
    assert (older.code, older.json["events"]) == (0, 4)
    cut = airports("backup", "restore", "latest", "-o", "d", "--at", "@4", "--json")
    assert (cut.code, cut.json["events"], cut.json["at"]) == (0, 4, "position 4")


def test_damage_is_found_and_refused(airports: Refold) -> None:
    made = airports("backup", "create", "--json").json
    path = Path(made["path"])
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    found = airports("backup", "verify", "--json")
    assert (found.code, [finding["kind"] for finding in found.json["findings"]]) == (
        4,
        ["backup-altered", "backup-damaged"],
    )
    refused = airports("backup", "restore", "latest", "-o", "b", "--json")
    assert (refused.code, refused.error["code"]) == (1, "backup-refused")
    assert not Path("b").exists() and not Path(".b.partial").exists()
    path.write_bytes(bytes(data[:-30]))
    listed = airports("backup", "list", "--json")
    assert (listed.code, [found["file"] for found in listed.json["unusable"]]) == (4, [made["file"]])
    assert airports("backup", "verify").code == 4
    path.unlink()
    assert airports("backup", "verify", "--json").error["code"] == "backup-unknown"


def test_a_passphrase_is_asked_for_and_the_wrong_one_refused(
    airports: Refold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phrase").write_text("correct horse\n")
    (tmp_path / "key").write_bytes(os.urandom(32))
    made = airports("backup", "create", "--passphrase-file", "phrase", "--json").json
    assert made["encrypted"] and made["file"].endswith(".zip.encrypted")
    assert b"events/000001" not in Path(made["path"]).read_bytes()
    for options, code in (
        ((), "passphrase-needed"),
        (("--key-file", "key"), "passphrase-needed"),
        (("--passphrase-file", "key"), "settings-invalid"),
    ):
        refused = airports("backup", "restore", "latest", "-o", "b", "--json", *options)
        assert (refused.code, refused.error["code"]) == (1, code), options
    unseen = airports("backup", "verify", "--json")
    assert (unseen.code, [finding["kind"] for finding in unseen.json["findings"]]) == (4, ["backup-unverified"])
    monkeypatch.setenv("REFOLD_PASSPHRASE", "battery staple")
    wrong = airports("backup", "restore", "latest", "-o", "b", "--json")
    assert (wrong.code, wrong.error["code"]) == (1, "passphrase-wrong")
    monkeypatch.setenv("REFOLD_PASSPHRASE", "correct horse")
    assert airports("backup", "verify").code == 0
    assert airports("backup", "restore", "latest", "-o", "b").code == 0
    sealed = airports("backup", "create", "--incremental", "--json").json
    assert (sealed["kind"], sealed["encrypted"]) == ("incremental", True)


def test_backups_are_pruned_by_rules(airports: Refold) -> None:
    for minute in range(3):
        assert airports("backup", "create", "--time", MINUTE.format(minute)).code == 0
    assert airports("backup", "prune").code == 2
    would = airports("backup", "prune", "--keep-daily", "7", "--dry-run", "--json").json
    assert (len(would["removed"]), list(would["keep"].values()), would["dry_run"]) == (2, [["daily"]], True)
    assert len(airports("backup", "list", "--json").json["backups"]) == 3
    done = airports("backup", "prune", "--keep-last", "1", "--json").json
    assert [found["created"] for found in done["removed"]] == ["2027-01-01T12:01:00.000Z", "2027-01-01T12:00:00.000Z"]
    assert [found["created"] for found in airports("backup", "list", "--json").json["backups"]] == [
        "2027-01-01T12:02:00.000Z"
    ]
    assert airports("backup", "verify").code == 0


def test_where_backups_are(airports: Refold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/refold.toml").write_text('[cli]\nbackups = "../set"\n')
    assert Path(airports("backup", "create", "--json").json["path"]).resolve().parent == tmp_path / "set"
    monkeypatch.setenv("REFOLD_BACKUPS", str(tmp_path / "told"))
    assert Path(airports("backup", "create", "--json").json["path"]).parent == tmp_path / "told"
    assert Path(airports("backup", "create", "-d", "said", "--json").json["path"]).parent == Path("said")
    inside = airports("backup", "create", "-d", "a/inside", "--json")
    assert (inside.code, inside.error["code"]) == (1, "input-refused")
    assert airports("backup", "create", root="nowhere").code == 10
    empty = airports("backup", "list", "-d", "nowhere", "--json")
    assert (empty.code, empty.json["backups"]) == (0, [])


def test_a_drill_says_in_one_line_how_it_went_and_leaves_nothing(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    known = airports("backup", "create", "--json").json
    done = airports("drill", "--scratch", "scratch")
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert done.out.startswith(f"drill ok: backup {known['file']}: 4 events, 3 records restored in ")
    airports("put", "airports", "icao=EDDF", "name=Rhein-Main")
    found = airports("drill", "--scratch", "scratch", "--records", "all", "--json").json
    assert (found["ok"], found["newer"], found["compared"], found["changed"]) == (True, 1, 2, 1)
    for origin in ("log", "folders"):
        found = airports("drill", "--from", origin, "--scratch", "scratch", "--json").json
        assert (found["ok"], found["live"], found["compared"], found["events"]) == (True, True, 3, 5)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_drill_finds_a_living_archive_that_is_another_than_what_comes_back(airports: Refold, tmp_path: Path) -> None:
    airports("backup", "create")
    done = sqlite3.connect(tmp_path / "a/tables.db")
    (other,) = done.execute("SELECT position FROM _refold_records WHERE key = 'EDDM'").fetchone()
    done.execute("UPDATE _refold_records SET position = ? WHERE key = 'EDDF'", (other,))
    done.execute("UPDATE _refold_checkpoint SET digest = ?", (f"{1:064x}",))
    done.commit()
    done.close()
    found = airports("drill", "--json")
    assert (found.code, [finding["kind"] for finding in found.json["findings"]]) == (
        4,
        ["digest-differs", "record-differs"],
    )
    airports("put", "airports", "icao=LFPG", "name=Paris", "country=FR")
    airports("backup", "restore", "latest", "-o", "b")
    (tmp_path / "a").rename(tmp_path / "gone")
    alone = airports("drill", "--json", "-d", "a.backups")
    assert (alone.code, alone.json["live"]) == (0, False)
    (tmp_path / "b").rename(tmp_path / "a")
    assert airports("drill", "-d", "a.backups").code == 0
    assert airports("drill", "-d", "nowhere", "--json").error["code"] == "backup-unknown"


def test_a_drill_finds_a_living_log_that_has_lost_its_end(airports: Refold, tmp_path: Path) -> None:
    first = airports("backup", "create", "--json").json
    airports("put", "airports", "icao=LFPG", "name=Paris", "country=FR")
    airports("backup", "create", "--incremental")
    airports("backup", "restore", first["id"], "-o", "b")
    (tmp_path / "a").rename(tmp_path / "gone")
    (tmp_path / "b").rename(tmp_path / "a")
    found = airports("drill", "--json")
    assert (found.code, [finding["kind"] for finding in found.json["findings"]]) == (4, ["log-cut"])
