"""Files that people edited by hand become events, or stay put aside; nothing of them is ever written over."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .support import Refold, bytes_of

BAVARIA = "a/DE/Bavaria/data.csv"
ROW = "EDDM,München,DE,Bavaria,1487,1992-05-17"


@pytest.fixture
def edit(airports: Refold, tmp_path: Path) -> Callable[..., Path]:
    """Replaces text in a file of a folder."""

    def change(old: str, new: str, name: str = BAVARIA) -> Path:
        path = tmp_path / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return change


def values(refold: Refold, key: str) -> dict[str, object]:
    found: dict[str, object] = refold("get", "airports", key, "--json").json["values"]
    return found


def test_a_changed_cell_becomes_an_event(airports: Refold, edit: Callable[..., Path], tmp_path: Path) -> None:
    edit("1487", "1500")
    shown = airports("adopt-edits", "--dry-run", "--json").json
    assert shown["changes"][0] == {
        "folder": "DE/Bavaria", "file": "data.csv", "row": 2, "operation": "update", "collection": "airports",
        "key": "EDDM", "values": {"elevation": 1500},
    }  # fmt: skip
    assert values(airports, "EDDM")["elevation"] == 1487
    done = airports("adopt-edits", "--json", "--actor", "eva", "--reason", "survey")
    assert (done.code, done.json["updated"], done.json["events"], done.json["kept"]) == (0, 1, 1, [])
    last = airports("log", "airports", "EDDM", "--json").lines[-1]
    assert (last["data"], last["actor"], last["reason"]) == ({"elevation": 1500}, "eva", "survey")
    assert airports("verify").code == 0
    assert not list((tmp_path / "a").rglob("*.edited-*"))
    assert airports("adopt-edits", "--json").json["files"] == 0


def test_rows_are_added_and_taken_away(airports: Refold, edit: Callable[..., Path]) -> None:
    edit(ROW, "EDMA,Augsburg,DE,Bavaria,1516,")
    done = airports("adopt-edits", "DE/Bavaria", "--json")
    assert (done.code, done.json["created"], done.json["deleted"]) == (0, 1, 1)
    assert values(airports, "EDMA")["name"] == "Augsburg"
    assert airports("get", "airports", "EDDM", "--json").json["deleted"] is True
    assert airports("verify").code == 0


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()),
        lambda text: "\n".join(",".join(reversed(line.split(","))) for line in text.splitlines()) + "\n",
        lambda text: "\n".join(",".join(line.split(",")[:3]) for line in text.splitlines()) + "\n",
    ],
    ids=["bom-and-crlf", "all-quoted", "columns-reversed", "columns-left-out"],
)
def test_another_spelling_is_no_edit(airports: Refold, tmp_path: Path, spell: Callable[[str], str]) -> None:
    before = bytes_of(tmp_path / "a")
    path = tmp_path / BAVARIA
    path.write_text(spell(path.read_text(encoding="utf-8")), encoding="utf-8", newline="")
    done = airports("adopt-edits", "--json")
    assert (done.code, done.json["files"], done.json["events"], done.json["refused"]) == (0, 1, 0, [])
    assert bytes_of(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("old", "new", "code", "row"),
    [
        ("1487", "high", "value-refused", 2),
        (ROW, ROW + "\n" + ROW, "duplicate-key", 3),
        ("EDDM", "EDDX", "key-changed", 2),
        (ROW, ROW + "\nLOWW,Wien,AT,Vienna,600,", "other-folder", 3),
        (ROW, ROW + '\nEDMA,"Augs', "bad-row", 3),
        (ROW, ROW + "\n076329,x,DE,Bavaria,1,", "record-elsewhere", 3),
        ("icao,", "code,", "input-refused", None),
        (ROW, ROW + "\na,b", "bad-row", 3),
    ],
)
def test_rows_that_cannot_be_taken_are_named_and_kept(
    airports: Refold, edit: Callable[..., Path], tmp_path: Path, old: str, new: str, code: str, row: int | None
) -> None:
    before = bytes_of(tmp_path / "a")
    edited = edit(old, new).read_bytes()
    done = airports("adopt-edits", "--json")
    assert (done.code, [(found["code"], found["row"]) for found in done.json["refused"]]) == (3, [(code, row)])
    assert done.json["events"] == 0
    (kept,) = (tmp_path / "a" / name for name in done.json["kept"])
    assert kept.read_bytes() == edited and kept.name.startswith("data.csv.edited-")
    assert {name: data for name, data in bytes_of(tmp_path / "a").items() if ".edited-" not in name} == before
    assert airports("verify").code == 0
    assert airports("status", "--json").json["edits"]["count"] == 1


def test_an_edit_is_not_written_over_and_meets_what_was_written_meanwhile(
    airports: Refold, edit: Callable[..., Path], tmp_path: Path
) -> None:
    edited = edit("1487", "1500").read_bytes()
    assert airports("status", "--json").json["edits"]["listed"][0]["file"] == "data.csv"
    assert airports("put", "airports", "icao=EDDM", "name=Munich", "elevation=1490").code == 0
    (aside,) = (tmp_path / "a/DE/Bavaria").glob("data.csv.edited-*")
    assert aside.read_bytes() == edited
    assert "Munich" in (tmp_path / BAVARIA).read_text(encoding="utf-8")
    assert airports("verify").code == 0
    done = airports("adopt-edits", "--json")
    assert (done.code, done.json["updated"], done.json["conflicts"]) == (0, 1, 1)
    (conflict,) = airports("conflicts", "--json").lines
    assert {side["value"] for side in conflict["sides"]["elevation"]} == {1490, 1500}
    assert values(airports, "EDDM")["name"] == "Munich"
    assert not list((tmp_path / "a").rglob("*.edited-*"))


def test_a_removed_folder_leaves_its_edit(airports: Refold, edit: Callable[..., Path], tmp_path: Path) -> None:
    edited = edit("1487", "1500").read_bytes()
    assert airports("patch", "airports", "EDDM", "subd=Hesse").code == 0
    (aside,) = (tmp_path / "a/DE/Bavaria").glob("data.csv.edited-*")
    assert aside.read_bytes() == edited
    assert not (tmp_path / BAVARIA).exists()


def test_a_restore_of_the_folders_keeps_edits_aside(
    airports: Refold, edit: Callable[..., Path], tmp_path: Path
) -> None:
    before = bytes_of(tmp_path / "a")
    edited = edit("1487", "1500").read_bytes()
    assert airports("restore", "--folders").code == 0
    (aside,) = (tmp_path / "a/DE/Bavaria").glob("data.csv.edited-*")
    assert aside.read_bytes() == edited
    assert {name: data for name, data in bytes_of(tmp_path / "a").items() if ".edited-" not in name} == before
    shutil.rmtree(tmp_path / "a/DE")
    assert airports("rebuild", "folders", "--json").json["ok"] is True
    assert bytes_of(tmp_path / "a") == before
