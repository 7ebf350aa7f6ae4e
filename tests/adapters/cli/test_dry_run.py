"""What a restore would do, and that saying so writes nothing."""

import shutil
from pathlib import Path

import pytest

from .support import Refold


def everything(root: Path) -> dict[str, bytes]:
    """Every file but what SQLite keeps for those who read, which comes and goes with them."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock"))
    }


@pytest.fixture
def edited(airports: Refold) -> Refold:
    airports("tag", "before")
    airports("patch", "airports", "EDDF", "elevation=365")
    airports("delete", "airports", "EDDM")
    airports("put", "airports", "icao=LOWW", "name=Wien", "country=AT", "subd=Vienna")
    return airports


def test_a_restore_at_a_moment_is_told_before(edited: Refold, tmp_path: Path) -> None:
    before = everything(tmp_path)
    done = edited("restore", "-o", "new", "--at", "before", "--dry-run", "--json")
    found = done.json
    assert (done.code, found["dry_run"], found["events"], found["vector"]) == (0, True, 4, {"office": 4})
    assert [found[name] for name in ("created", "changed", "deleted", "defined")] == [1, 1, 1, 0]
    assert found["path"] == str(tmp_path / "new") and found["skipped"] == []
    assert "note: position 3 stands inside a group" in edited("restore", "-o", "new", "--at", "@3", "--dry-run").err
    assert everything(tmp_path) == before
    restored = edited("restore", "-o", "new", "--at", "before", "--json").json
    assert (restored["events"], restored["vector"]) == (found["events"], found["vector"])


def test_a_dry_run_refuses_what_a_restore_refuses(edited: Refold, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/mine").write_text("", encoding="utf-8")
    assert edited("restore", "-o", "new", "--dry-run", "--json").error["code"] == "exists"
    assert edited("restore", "-o", "b", "--at", "@99", "--dry-run", "--json").error["code"] == "position-unknown"
    assert edited("restore", "-o", "b", "--dry-run", "--json", root="none").error["code"] == "no-archive"
    assert edited("restore", "--folders", "--dry-run").code == 2
    assert not (tmp_path / "b").exists()


def test_in_place_the_folders_that_would_be_rewritten_are_named(edited: Refold, tmp_path: Path) -> None:
    (tmp_path / "a/DE/Hesse/data.csv").write_text("altered", encoding="utf-8")
    before = everything(tmp_path)
    done = edited("restore", "--in-place", "--dry-run", "--json")
    assert done.code == 0
    assert done.json["folders"] == ["DE/Hesse"]
    assert [done.json[name] for name in ("created", "changed", "deleted")] == [0, 0, 0]
    text = edited("restore", "--in-place", "--dry-run").out
    assert "other files in\tDE/Hesse\n" in text and text.endswith("written\tnothing\n")
    assert everything(tmp_path) == before


def test_from_the_folders_what_they_lack_is_told(edited: Refold, tmp_path: Path) -> None:
    done = edited("restore", "--from", "folders", "--in-place", "--dry-run", "--json")
    assert (done.code, done.json["events"], done.json["lacking"]) == (0, 8, [])
    assert done.json["created"] is None
    shutil.rmtree(tmp_path / "a/AT")
    before = everything(tmp_path)
    done = edited("restore", "--from", "folders", "-o", "new", "--dry-run", "--json")
    assert (done.json["events"], done.json["lacking"]) == (7, ["office:8-8"])
    assert everything(tmp_path) == before
    for path in (tmp_path / "a").glob("*.db*"):
        path.unlink()
    assert edited("restore", "--from", "folders", "--in-place", "--dry-run", "--json").json["events"] == 7
