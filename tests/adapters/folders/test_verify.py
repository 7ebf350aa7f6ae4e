"""Verification names what differs: the folder, the file, and the row or line."""

from pathlib import Path

import pytest

from refold.verdict import Finding
from refold_adapters.folders import FolderReplicas
from refold_adapters.folders.render import Renderer

from .world import ORDERS, Died, MortalDisk, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "a")
    made.define(ORDERS)
    for number in range(6):
        made.put("orders", {"id": str(number), "place": f"p{number % 2}", "n": number})
    return made


@pytest.fixture
def replicas(world: World) -> FolderReplicas:
    made = world.replicas()
    world.follow(made)
    assert made.verify() == []
    return made


def summary(findings: list[Finding]) -> list[tuple[str, str | None, str | None, int | None]]:
    return [(finding.kind, finding.folder, finding.file, finding.row) for finding in findings]


def test_an_altered_row_is_named(world: World, replicas: FolderReplicas) -> None:
    path = world.root / "p1/data.csv"
    path.write_text(path.read_text().replace("3,p1,,3", "3,p1,,33"))
    findings = replicas.verify()
    assert summary(findings) == [("folder-altered", "p1", "data.csv", 3)]
    assert "33" in findings[0].detail
    path.write_text(path.read_text().rpartition("5,p1")[0])
    assert summary(replicas.verify())[0][3] == 3
    path.write_text(path.read_text().replace("3,p1,,33", "3,p1,,3"))
    assert summary(replicas.verify()) == [("folder-altered", "p1", "data.csv", 4)]


def test_an_altered_line_is_named(world: World, replicas: FolderReplicas) -> None:
    path = world.root / "p0/events.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    assert summary(replicas.verify()) == [("folder-altered", "p0", "events.jsonl", 2)]


def test_missing_torn_and_stray_files(world: World, replicas: FolderReplicas) -> None:
    (world.root / "p0/data.csv").unlink()
    with open(world.root / "p1/events.jsonl", "ab") as file:
        file.write(b"more")
    (world.root / "copy").mkdir()
    (world.root / "copy/meta.json").write_bytes((world.root / "p0/meta.json").read_bytes())
    (world.root / "copy/data.csv").write_text("mine")
    (world.root / "own").mkdir()
    (world.root / "own/data.csv").write_text("mine")
    (world.root / "own/meta.json").write_text("{}")
    assert summary(replicas.verify()) == [
        ("folder-stray", "copy", "data.csv", None),
        ("folder-stray", "copy", "meta.json", None),
        ("folder-missing", "p0", "data.csv", None),
        ("folder-torn", "p1", "events.jsonl", None),
    ]


def test_a_whole_folder_that_is_gone(world: World, replicas: FolderReplicas) -> None:
    for path in list((world.root / "p0").iterdir()):
        path.unlink()
    (world.root / "p0").rmdir()
    assert {(finding.kind, finding.folder) for finding in replicas.verify()} == {("folder-missing", "p0")}


def test_a_torn_tail_is_cut_by_the_next_write(world: World, replicas: FolderReplicas) -> None:
    with open(world.root / "p1/events.jsonl", "ab") as file:
        file.write(b"more")
    world.put("orders", {"id": "1", "place": "p1", "n": 77})
    world.follow(replicas)
    assert replicas.verify() == []


def test_folders_that_wait_to_be_written(world: World, replicas: FolderReplicas) -> None:
    replicas.close()
    world.put("orders", {"id": "1", "place": "p1", "n": 77})
    dying = world.replicas(disk=MortalDisk(world.root, 1))
    with pytest.raises(Died):
        world.follow(dying)
    assert "folders-behind" in {finding.kind for finding in dying.verify()}
    dying.close()


def test_events_that_are_in_no_folder_are_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("orders", {"id": "1", "place": "a"})
    replicas = world.replicas()
    world.follow(replicas)
    world.put("orders", {"id": "1", "n": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Renderer, "_news", lambda self, folders, run: {folder.id: [] for folder in folders})
        world.follow(replicas)
    (finding,) = replicas.verify()
    assert finding.kind == "folders-incomplete" and "the log" in finding.detail
    replicas.close()


def test_an_archive_inside_another_is_left_alone(world: World, replicas: FolderReplicas) -> None:
    inner = World(world.root / "inner")
    inner.define(ORDERS)
    inner.put("orders", {"id": "1", "place": "x"})
    inside = inner.replicas()
    inner.follow(inside)
    assert inside.verify() == [] and replicas.verify() == []
    inside.close()
    replicas.close()


def test_pieces_find_together_what_one_pass_finds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold_adapters.folders.verify.PIECE", 1)
    for number in range(5):
        world.put("orders", {"id": f"more{number}", "place": f"q{number}"})
    replicas = world.replicas()
    world.follow(replicas)
    assert len(replicas.pieces()) >= 8
    assert [replicas.verify_piece(name) for name in replicas.pieces()] == [[]] * len(replicas.pieces())
    (world.root / "p1/data.csv").write_text("nothing")
    (world.root / "q0/events.jsonl").unlink()
    for path in (world.root / "q1").iterdir():
        path.unlink()
    (world.root / "q1").rmdir()
    (world.root / "stray").mkdir()
    for name in ("meta.json", "events.jsonl"):
        (world.root / "stray" / name).write_bytes((world.root / "q2" / name).read_bytes())
    meta = world.root / "q3/meta.json"
    meta.write_bytes(meta.read_bytes().replace(b'"seq": ', b'"seq": 9'))
    found = [finding for name in replicas.pieces() for finding in replicas.verify_piece(name)]
    assert sorted(map(repr, found)) == sorted(map(repr, replicas.verify()))
    assert {finding.kind for finding in found} == {"folder-altered", "folder-missing", "folder-stray", "log-cut"}
