"""Archives that lost something, and what a restore brings back."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from .support import AIRPORTS, Refold, bytes_of


def edit(refold: Refold) -> None:
    """An edit, a move to another folder, a delete, and a few that were written together."""
    assert refold("patch", "airports", "EDDF", "elevation=365", "--reason", "survey").code == 0
    assert refold("patch", "airports", "EDDM", "subd=Oberbayern").code == 0
    assert refold("delete", "airports", "076329").code == 0


def history(refold: Refold, root: str = "a") -> list[object]:
    """All events but those that record a restore."""
    lines = refold("log", "--json", root=root).lines
    return [{**line, "position": 0} for line in lines if line["kind"] != "restore"]


def records_of(root: Path) -> dict[str, bytes]:
    """The files of all folders but the root, whose history tells of the restore."""
    return {path: data for path, data in bytes_of(root).items() if "/" in path}


def test_restore_says_where(airports: Refold) -> None:
    for arguments in ((), ("-o", "new", "--in-place"), ("--in-place", "--at", "@2"), ("-o", "new", "--at", "24-1"),
                      ("-o", "new", "--at", "@x"), ("--in-place", "--replica", "x")):  # fmt: skip
        assert airports("restore", *arguments).code == 2


@pytest.mark.parametrize("damage", ["deleted", "overwritten", "half"])
def test_everything_but_the_log_comes_back_byte_for_byte(airports: Refold, tmp_path: Path, damage: str) -> None:
    edit(airports)
    root = tmp_path / "a"
    folders, digest = bytes_of(root), airports("digest", "--json").json
    for path in sorted(root.iterdir()):
        if path.name.startswith(("tables.db", "folders.db")):
            if damage == "deleted":
                path.unlink()
            elif damage == "half" or not path.name.endswith(".db"):
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            else:
                path.write_bytes(b"no database" * 1000)
        elif path.is_dir():
            shutil.rmtree(path)
    done = airports("restore", "--in-place", "--json")
    assert (done.code, done.json["ok"], done.json["records"], done.json["replica"]) == (0, True, 2, "office")
    assert bytes_of(root) == folders
    assert airports("digest", "--json").json == digest
    assert airports("verify").code == 0


def test_a_copy_is_equal_and_writes_under_an_id_of_its_own(airports: Refold, tmp_path: Path) -> None:
    edit(airports)
    done = airports("restore", "-o", "new", "--json")
    assert (done.code, done.json["events"], done.json["kept"]) == (0, 7, None)
    assert done.json["digest"] == airports("digest").out.strip()
    assert done.json["digest_after"] == airports("digest", root="new").out.strip() != done.json["digest"]
    assert records_of(tmp_path / "new") == records_of(tmp_path / "a")
    assert history(airports, "new") == history(airports)
    vector = airports("status", "--json", root="new").json["vector"]
    assert vector == {"office": 7, done.json["replica"]: 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "airports.csv", "new"]


def test_the_copy_tells_what_it_was_made_of(airports: Refold) -> None:
    edit(airports)
    report = airports("restore", "-o", "new", "--replica", "copy", "--json").json
    (note,) = [line for line in airports("log", "--json", root="new").lines if line["kind"] == "restore"]
    told = {"origin": "log", "events": 7, "vector": {"office": 7}, "digest": report["digest"]}
    assert (note["replica"], note["seq"], note["data"]) == ("copy", 1, {"copy": told})
    airports("restore", "-o", "again", "--replica", "twice", "--at", "@7", root="new")
    notes = [line["data"] for line in airports("log", "--json", root="again").lines if line["kind"] == "restore"]
    assert notes == [{"twice": {**told, "at": "position 7"}}]


def test_a_place_that_is_taken_is_refused(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/mine").write_text("", encoding="utf-8")
    done = airports("restore", "-o", "new", "--json")
    assert (done.code, done.error["code"]) == (1, "exists")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]
    (tmp_path / "new/mine").unlink()
    assert airports("restore", "-o", "new").code == 0


def test_the_log_comes_back_from_the_folders_alone(airports: Refold, tmp_path: Path) -> None:
    edit(airports)
    root = tmp_path / "a"
    folders, events = records_of(root), history(airports)
    digest = airports("digest").out.strip()
    for path in root.glob("*.db*"):
        path.unlink()
    done = airports("restore", "--from", "folders", "--in-place", "--json")
    assert (done.code, done.json["ok"], done.json["digest"], done.json["kept"]) == (0, True, digest, None)
    assert records_of(root) == folders
    assert history(airports) == events
    assert done.json["replica"] != "office"


def test_a_damaged_log_is_kept_beside_the_one_rebuilt_from_the_folders(airports: Refold, tmp_path: Path) -> None:
    root = tmp_path / "a"
    digest = airports("digest").out.strip()
    (root / "changelog.db").write_bytes(b"rot" * 5000)
    for number in (1, 2):
        done = airports("restore", "--from", "folders", "--in-place", "--json")
        assert (done.code, done.json["digest"]) == (0, digest)
        digest = done.json["digest_after"]
        suffix = "" if number == 1 else "-2"
        assert done.json["kept"] == f"a/changelog.db.before-restore{suffix}"
    assert (root / "changelog.db.before-restore").read_bytes() == b"rot" * 5000
    with sqlite3.connect(root / "changelog.db.before-restore-2") as kept:
        assert kept.execute("SELECT count(*) FROM events").fetchone() == (5,)  # the first restore's own is one


def test_a_copy_from_the_folders_leaves_the_source_alone(airports: Refold, tmp_path: Path) -> None:
    edit(airports)
    (tmp_path / "a/changelog.db").write_bytes(b"rot" * 5000)
    done = airports("restore", "--from", "folders", "-o", "new", "--json")
    assert (done.code, done.json["events"]) == (0, 7)
    assert (tmp_path / "a/changelog.db").read_bytes() == b"rot" * 5000
    assert records_of(tmp_path / "new") == records_of(tmp_path / "a")
    done = airports("restore", "--from", "folders", "-o", "early", "--at", "@5", "--json")
    assert (done.code, done.json["events"]) == (0, 5)


def test_a_position_inside_a_group_goes_back_to_before_it(airports: Refold) -> None:
    edit(airports)
    done = airports("restore", "-o", "new", "--at", "@3", "--json")
    assert (done.code, done.json["events"], done.json["records"]) == (0, 1, 0)
    assert "position 3 stands inside a group" in done.json["skipped"][0]
    done = airports("restore", "-o", "newer", "--at", "@5", "--json")
    assert (done.json["events"], done.json["skipped"]) == (5, [])
    assert airports("get", "airports", "EDDM", "--json", root="newer").json["folder"] == "DE/Bavaria"
    assert airports("restore", "-o", "x", "--at", "@8", "--json").error["code"] == "position-unknown"


def test_an_archive_as_it_was_at_a_time(refold: Refold, tmp_path: Path) -> None:
    (tmp_path / "airports.csv").write_text(AIRPORTS, encoding="utf-8")
    refold("init", "--time", "2024-01-01")
    refold("import", "airports", "airports.csv", "--key", "icao", "--time", "2024-01-01")
    refold("delete", "airports", "EDDF", "--time", "2024-02-01")
    done = refold("restore", "-o", "new", "--at", "2024-01-31T23:59:59.999Z", "--json")
    assert (done.code, done.json["records"], done.json["events"]) == (0, 3, 4)
    assert refold("restore", "-o", "all", "--at", "2024-02-01", "--json").json["records"] == 2
    early = refold("restore", "-o", "none", "--at", "2023-12-31", "--json")
    assert (early.code, early.error["code"]) == (1, "moment-unknown")
    assert refold("restore", "-o", "none", "--at", "2200-01-01", "--json").error["code"] == "moment-unknown"
    assert refold("restore", "-o", "none", "--at", "never", "--json").error["code"] == "moment-unknown"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "airports.csv", "all", "new"]


def test_folders_without_history_cannot_become_a_log(refold: Refold, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for place in (("--in-place",), ("-o", "new")):
        done = refold("restore", "--from", "folders", *place, "--json")
        assert (done.code, done.error["code"]) == (1, "input-refused")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_rotten_log_is_not_copied(airports: Refold, tmp_path: Path) -> None:
    log = tmp_path / "a/changelog.db"
    log.write_bytes(log.read_bytes().replace("München".encode(), b"Munchen "))
    done = airports("restore", "-o", "new", "--json")
    assert done.code == 1 and done.error["code"] in {"forked", "log-corrupt"}
    assert not (tmp_path / "new").exists() and not (tmp_path / ".new.partial").exists()


def test_the_settings_go_with_the_copy(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "a/refold.toml").write_text('[cli]\nactor = "bob"\n', encoding="utf-8")
    airports("restore", "-o", "new")
    assert (tmp_path / "new/refold.toml").read_text(encoding="utf-8") == '[cli]\nactor = "bob"\n'
