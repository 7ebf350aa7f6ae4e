"""Folders are a function of the event set: whatever the batches, the crashes, and what stood there before."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.errors import ProjectionFailed, StorageFailed
from refold.events import Checkpoint
from refold.names import twin_name
from refold.replay import advance, events_after
from refold.schema import Collection, Field
from refold_adapters.folders import render
from refold_adapters.folders import replicas as module
from refold_adapters.folders.disk import PosixDisk

from .world import ORDERS, PARTS, Died, MortalDisk, World, directories, tree

PLACES = st.sampled_from(
    [
        None,
        "",
        "a",
        "A",
        "ä",
        "a/b",
        "..",
        ".",
        "CON",
        "data.csv",
        "events.jsonl",
        "x" * 300,
        "nul\0",
        "a ",
        "é",
        "e\u0301",
        "=1",
    ]
)
NOTES = st.sampled_from([None, "", "=1+1", "'=x", 'quo"te', "two\nlines", " pad ", "a,b", "\ufeff", "@", "plain"])

TEMPLATES = st.sampled_from(["{place}", "all", "{id}/{place}"])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def step(kind: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """A step of a story: what is done, whether the office does it, and up to three arguments."""
    rest = [*arguments, *[st.none()] * (3 - len(arguments))]
    return st.tuples(st.just(kind), st.booleans(), *rest)


OPERATIONS = st.lists(
    st.one_of(
        step("order", st.sampled_from("xyz"), PLACES, NOTES),
        step("part", st.sampled_from([1, 2, 10, -3]), PLACES, FLOATS),
        step("delete", st.sampled_from("xyz")),
        step("meet"),
        step("follow", st.integers(1, 4)),
        step("move", TEMPLATES),
    ),
    max_size=14,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "a")
    made.define(ORDERS)
    made.define(PARTS)
    return made


def perform(world: World, operation: tuple[object, ...]) -> None:
    kind, office, first, second, third = operation
    writer = world.office if office else world.lab
    match kind:
        case "order":
            world.put("orders", {"id": first, "place": second, "note": third}, writer)
        case "part":
            world.put("parts", {"no": first, "place": second, "price": third}, writer)
        case "delete" if ("orders", str(first)) in writer.states:
            world.delete("orders", str(first), writer)
        case "meet":
            world.meet()
        case "move":
            world.define(msgspec.structs.replace(ORDERS, folder=str(first)))


@given(OPERATIONS, st.integers(1, 5))
def test_any_batching_gives_the_bytes_of_one_rebuild(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[object, ...]], batch: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("folders")
    world = World(tmp_path / "a")
    world.define(ORDERS)
    world.define(PARTS)
    replicas = world.replicas(batch=batch)
    for operation in operations:
        perform(world, operation)
        if operation[0] == "follow":
            world.follow(replicas, int(str(operation[2])))
    world.follow(replicas, 3)
    assert replicas.verify() == []
    replicas.close()
    found = tree(world.root)
    assert found == world.rebuilt(tmp_path / "b")
    assert found == world.rebuilt(tmp_path / "c", step=1)
    assert not any(path.endswith(".refold") for path in found)
    world.close()


def test_what_stands_in_a_folder(world: World) -> None:
    world.put("orders", {"id": "2", "place": "a", "note": ""})
    world.put("orders", {"id": "10", "place": "a", "note": "=1"})
    for number in (10, 9, -1):
        world.put("parts", {"no": number, "place": "a", "price": 0.5})
    replicas = world.replicas()
    world.follow(replicas)
    assert sorted(os.listdir(world.root / "a")) == ["data.csv", "data.parts.csv", "events.jsonl", "meta.json"]
    assert (world.root / "a/data.csv").read_text() == 'id,place,note,n\n10,a,\'=1,\n2,a,"",\n'
    assert (world.root / "a/data.parts.csv").read_text() == "no,place,price\n-1,a,0.5\n9,a,0.5\n10,a,0.5\n"
    meta = msgspec.json.decode((world.root / "a/meta.json").read_bytes())
    assert msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n" == (world.root / "a/meta.json").read_bytes()
    assert meta["vector"] == {"office": {"seq": 7, "hash": world.office.head.hash.hex()}}
    assert (meta["events"]["count"], meta["events"]["size"]) == (5, (world.root / "a/events.jsonl").stat().st_size)
    assert (world.root / "events.jsonl").read_bytes().count(b'"kind":"define"') == 2
    replicas.close()


def test_history_moves_with_the_record_and_the_place_it_left_is_cleared(world: World) -> None:
    replicas = world.replicas()
    world.put("orders", {"id": "1", "place": "a", "note": "first"})
    world.follow(replicas)
    (world.root / "a/scan.pdf").write_bytes(b"%PDF")
    world.put("orders", {"id": "1", "place": "b/c"})
    world.follow(replicas)
    assert sorted(os.listdir(world.root / "a")) == ["scan.pdf"]
    assert (world.root / "b%2Fc/events.jsonl").read_bytes().count(b"\n") == 2
    world.put("orders", {"id": "1", "place": "a"})
    world.follow(replicas)
    assert directories(world.root) == {"a"}
    assert (world.root / "a/scan.pdf").exists()
    replicas.close()


def test_a_deleted_record_keeps_its_history_where_it_last_lived(world: World) -> None:
    replicas = world.replicas()
    world.put("orders", {"id": "1", "place": "a"})
    world.delete("orders", "1")
    world.follow(replicas)
    assert (world.root / "a/data.csv").read_text() == "id,place,note,n\n"
    assert (world.root / "a/events.jsonl").read_bytes().count(b"\n") == 2
    replicas.close()


def test_the_smallest_of_twins_has_the_plain_place(world: World) -> None:
    replicas = world.replicas()
    world.put("orders", {"id": "1", "place": "straße"})
    world.follow(replicas)
    assert directories(world.root) == {"straße"}
    world.put("orders", {"id": "2", "place": "STRASSE"})
    world.follow(replicas)
    assert directories(world.root) == {"STRASSE", twin_name("straße", "straße")}
    world.put("orders", {"id": "2", "place": "b"})
    world.follow(replicas)
    assert directories(world.root) == {"straße", "b"}
    assert replicas.verify() == []
    replicas.close()


def test_an_event_that_sorts_last_is_appended(world: World) -> None:
    replicas = world.replicas()
    world.put("orders", {"id": "1", "place": "a", "n": 1})
    world.follow(replicas)
    before = (world.root / "a/events.jsonl").stat().st_ino
    world.put("orders", {"id": "1", "place": "a", "n": 2})
    world.follow(replicas)
    assert (world.root / "a/events.jsonl").stat().st_ino == before
    world.put("orders", {"id": "2", "place": "a"}, world.lab)
    world.follow(replicas)
    assert (world.root / "a/events.jsonl").stat().st_ino != before
    replicas.close()


def test_nothing_that_is_as_it_should_be_is_written_again(world: World, tmp_path: Path) -> None:
    for number in range(5):
        world.put("orders", {"id": str(number), "place": f"p{number}"})
    replicas = world.replicas()
    world.follow(replicas)
    replicas.close()
    before = {path: path.stat().st_ino for path in world.root.rglob("*.*") if ".db" not in path.name}
    (world.root / "folders.db").unlink()
    (world.root / "p1/data.csv").unlink()
    (world.root / "p2/meta.json").write_text("{}")
    stale = world.root / "stale/deep"
    stale.mkdir(parents=True)
    for name in ("data.csv", "meta.json", "events.jsonl"):
        (stale / name).write_bytes((world.root / "p3" / name).read_bytes())
    (world.root / "stale/letter.pdf").write_bytes(b"%PDF")
    (world.root / "p4/data.csv.refold").write_bytes(b"half")
    disk = MortalDisk(world.root, 1000)
    replicas = world.replicas(disk=disk)
    world.follow(replicas)
    replicas.close()
    assert {path.name for path in (world.root / "stale").iterdir()} == {"letter.pdf"}
    assert {str(path.relative_to(world.root)) for path, inode in before.items() if path.stat().st_ino != inode} <= {
        "p1/data.csv",
        "p2/meta.json",
    }
    (world.root / "stale/letter.pdf").unlink()
    assert tree(world.root) == world.rebuilt(tmp_path / "b")


def test_a_death_at_any_operation_is_repaired_by_the_next_run(tmp_path: Path) -> None:
    life = 0
    while True:
        world = World(tmp_path / f"a{life}")
        world.define(ORDERS)
        world.define(PARTS)
        replicas = world.replicas(batch=2)
        world.put("orders", {"id": "1", "place": "a", "n": 1})
        world.put("orders", {"id": "2", "place": "b"})
        world.put("orders", {"id": "3", "place": "C"})
        world.follow(replicas)
        replicas.close()
        world.put("orders", {"id": "1", "place": "a", "n": 2})
        world.put("orders", {"id": "2", "place": "new"})
        world.put("orders", {"id": "4", "place": "c"}, world.lab)
        world.put("parts", {"no": 1, "place": "a"}, world.lab)
        disk = MortalDisk(world.root, life)
        replicas = world.replicas(disk=disk, batch=2)
        try:
            world.follow(replicas)
            finished = True
        except Died:
            finished = False
        replicas.close()
        world.put("orders", {"id": "2", "place": "newer"})
        world.put("orders", {"id": "1", "place": "a", "n": 1})
        replicas = world.replicas(batch=2)
        world.follow(replicas)
        assert replicas.verify() == []
        replicas.close()
        assert tree(world.root) == world.rebuilt(tmp_path / f"b{life}"), disk.done[-1]
        world.close()
        if finished:
            assert life > 15
            return
        life += 1


@pytest.mark.parametrize("places", [("straße", "STRASSE", "b"), ("STRASSE", "straße", "b"), ("b", "straße", "STRASSE")])
def test_a_death_before_twins_come_or_go_leaves_no_file_at_a_place_they_had(
    tmp_path: Path, places: tuple[str, str, str]
) -> None:
    life = 0
    while True:
        world = World(tmp_path / f"a{life}")
        world.define(ORDERS)
        world.put("orders", {"id": "1", "place": "straße"})
        finished = True
        for number, place in enumerate(places):
            disk = MortalDisk(world.root, life if number < len(places) - 1 else 1000)
            replicas = world.replicas(disk=disk)
            try:
                world.put("orders", {"id": "2", "place": place})
                world.follow(replicas)
            except Died:
                finished = False
            replicas.close()
        replicas = world.replicas()
        assert replicas.verify() == []
        replicas.close()
        assert tree(world.root) == world.rebuilt(tmp_path / f"b{life}"), life
        world.close()
        if finished:
            assert life > 5
            return
        life += 1


def test_a_death_while_a_lost_index_is_made_anew_leaves_no_stray_that_only_new_events_would_sweep(
    tmp_path: Path,
) -> None:
    life = 0
    while True:
        world = World(tmp_path / f"a{life}")
        world.define(ORDERS)
        world.put("orders", {"id": "1", "place": "a"})
        world.put("orders", {"id": "2", "place": "passing"})
        replicas = world.replicas()
        world.follow(replicas)
        replicas.close()
        world.put("orders", {"id": "2", "place": "b"})
        (world.root / "folders.db").unlink()
        disk = MortalDisk(world.root, life)
        replicas = world.replicas(disk=disk)
        try:
            world.follow(replicas)
            finished = True
        except Died:
            finished = False
        replicas.close()
        replicas = world.replicas()
        world.follow(replicas)
        assert replicas.verify() == []
        replicas.close()
        assert tree(world.root) == world.rebuilt(tmp_path / f"b{life}"), disk.done[-1]
        world.close()
        if finished:
            assert life > 5
            return
        life += 1


def test_a_full_disk_is_a_typed_error_and_leaves_the_old_files(world: World, tmp_path: Path) -> None:
    world.put("orders", {"id": "1", "place": "a", "n": 1})
    replicas = world.replicas()
    world.follow(replicas)
    replicas.close()
    before = {path: data for path, data in tree(world.root).items() if not path.endswith("events.jsonl")}
    world.put("orders", {"id": "1", "place": "a", "n": 2})
    full = StorageFailed(str(world.root), "writing", "No space left on device")
    for life in range(5):
        replicas = world.replicas(disk=MortalDisk(world.root, life, full))
        position = replicas.checkpoint().position
        if life < 3:
            with pytest.raises(StorageFailed):
                world.follow(replicas)
            assert replicas.checkpoint().position == position
            assert {path: tree(world.root)[path] for path in before} == before
        replicas.close()
    replicas = world.replicas()
    world.follow(replicas)
    replicas.close()
    assert tree(world.root) == world.rebuilt(tmp_path / "b")


def test_nothing_outside_the_root_is_written(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (world.root / "a").symlink_to(outside)
    world.put("orders", {"id": "1", "place": "a"})
    replicas = world.replicas()
    with pytest.raises(StorageFailed, match="symbolic link"):
        world.follow(replicas)
    assert list(outside.iterdir()) == []
    (world.root / "a").unlink()
    world.follow(replicas)
    assert (world.root / "a/data.csv").is_file()
    replicas.close()


def test_large_folders_have_the_bytes_of_small_ones(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = world.replicas()
    for number in range(12):
        world.put("parts", {"no": number, "place": "big"})
        world.put("orders", {"id": str(number), "place": "big"}, world.lab if number % 3 else world.office)
    small = world.rebuilt(tmp_path / "b")
    monkeypatch.setattr(render, "MANY_EVENTS", 3)
    assert world.rebuilt(tmp_path / "c") == small
    world.follow(replicas, 5)
    assert tree(world.root) == small
    world.put("parts", {"no": 1, "place": "big", "price": 1.5})
    world.follow(replicas)
    world.put("orders", {"id": "0", "place": "small"})
    world.follow(replicas)
    replicas.close()
    assert tree(world.root) == world.rebuilt(tmp_path / "d")


def test_a_changed_definition_reaches_every_folder(world: World, tmp_path: Path) -> None:
    replicas = world.replicas(batch=2)
    for number in range(5):
        world.put("orders", {"id": str(number), "place": f"p{number}"})
    world.follow(replicas)
    wider: Collection = msgspec.structs.replace(ORDERS, folder="all/{id}", neutralise=False)
    world.define(wider)
    world.follow(replicas)
    assert directories(world.root) == {"all", *(f"all/{number}" for number in range(5))}
    replicas.close()
    assert tree(world.root) == world.rebuilt(tmp_path / "b")


def test_fsync_for_each_file_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    world.put("orders", {"id": "1", "place": "a"})
    replicas = world.replicas(disk=PosixDisk(world.root, whole=False))
    world.follow(replicas)
    world.put("orders", {"id": "1", "place": "b"})
    world.follow(replicas)
    replicas.close()
    assert tree(world.root) == world.rebuilt(tmp_path / "b")


def test_tables_that_stand_behind_are_refused(world: World) -> None:
    replicas = world.replicas()
    events = events_after(world.log, 0, 10)
    ahead = msgspec.structs.replace(advance(Checkpoint(), events), position=99)
    with pytest.raises(ProjectionFailed, match="tables stand at 2"):
        replicas.apply(events, ahead)
    replicas.close()


def test_a_field_that_came_later_has_its_default_in_the_folder(world: World) -> None:
    world.put("orders", {"id": "1", "place": "a"})
    fields = {**ORDERS.fields, "kind": Field("str", default="standard")}
    world.define(msgspec.structs.replace(ORDERS, fields=fields, folder="{kind}"))
    replicas = world.replicas()
    world.follow(replicas)
    assert (world.root / "standard/data.csv").read_text() == "id,place,note,n,kind\n1,a,,,standard\n"
    replicas.close()


def test_a_record_that_came_and_changed_in_one_look_ahead_brings_its_whole_history(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("orders", {"id": "9", "place": "b"})
    world.put("orders", {"id": "1", "place": "a"})
    replicas = world.replicas()
    world.follow(replicas)
    monkeypatch.setattr(module, "_PAGE", 1)
    monkeypatch.setattr(module, "_WORTH", 1)
    world.put("orders", {"id": "1", "place": "b"})
    world.put("orders", {"id": "1", "place": "b", "n": 1})
    world.follow(replicas, 1)
    replicas.close()
    assert tree(world.root) == world.rebuilt(tmp_path / "b")


@pytest.mark.parametrize("step", [1, 2, 3, 5])
@pytest.mark.parametrize("worth", [1, 1000])
@pytest.mark.parametrize("moves", ["bbb", "aba", "bab"])
def test_a_run_that_lags_behind_the_tables_loses_no_event_of_its_folders(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, worth: int, moves: str
) -> None:
    monkeypatch.setattr(module, "_WORTH", worth)
    monkeypatch.setattr(module, "_PAGE", 2)
    for number in range(4):
        world.put("orders", {"id": str(number), "place": "a"})
    world.put("orders", {"id": "9", "place": "b"})
    replicas = world.replicas()
    world.follow(replicas)
    for place in moves:
        for number in (0, 1, 2, 3, 0, 2):
            world.put("orders", {"id": str(number), "place": "a", "n": world.log.end()})
        world.put("orders", {"id": "9", "place": place})
    world.follow(replicas, step)
    assert replicas.verify() == []
    replicas.close()
    assert tree(world.root) == world.rebuilt(tmp_path / "b")
