"""A file is an edit when somebody edited it: never when crashes left it, however many, and always otherwise."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.verdict import Finding
from refold_adapters.folders.disk import EDITED, INDEX, PosixDisk
from refold_adapters.folders.edits import Sparing

from .world import ORDERS, PARTS, Died, MortalDisk, World, tree

PLACES = st.sampled_from(["a", "b", "a/b", "A"])
ORDER = st.tuples(st.just("orders"), st.sampled_from("xyz"), PLACES, st.integers(0, 9))
PART = st.tuples(st.just("parts"), st.sampled_from([1, 2]), PLACES, st.integers(0, 9))
DELETION = st.tuples(st.just("delete"), st.sampled_from("xyz"), st.just(""), st.just(0))
WRITES = st.lists(st.one_of(ORDER, PART, DELETION), min_size=1, max_size=5)


class Life(NamedTuple):
    """A process: what it writes, at which operation on the disk it dies, whether the index is lost before, and whether
    somebody edits a file after."""

    writes: list[tuple[str, str | int, str, int]]
    operations: int
    lost: bool
    edited: int | None


def lives(edited: st.SearchStrategy[int | None], lost: st.SearchStrategy[bool]) -> st.SearchStrategy[list[Life]]:
    """Some processes after each other."""
    one = st.builds(Life, WRITES, st.integers(0, 30), lost, edited)
    return st.lists(one, min_size=2, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def hasty() -> Iterator[None]:
    """These crashes are deaths of a process, which take nothing that was written: no need to wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "sync", lambda self: None)
        yield


RARELY = st.sampled_from([False, False, False, True])


def live(world: World, life: Life) -> None:
    """Writes, and brings the folders up to date until death."""
    for kind, key, place, number in life.writes:
        if kind == "orders":
            world.put("orders", {"id": key, "place": place, "n": number})
        elif kind == "parts":
            world.put("parts", {"no": key, "place": place, "price": float(number)})
        elif ("orders", str(key)) in world.office.states:
            world.delete("orders", str(key))
    if life.lost:
        for path in world.root.glob(f"{INDEX}*"):
            path.unlink()
    disk = MortalDisk(world.root, life.operations)
    replicas = world.replicas(disk=disk, batch=2)
    try:
        world.follow(replicas, 3)
    except Died:
        pass
    finally:
        replicas.close()
        disk.close()


def end(world: World) -> list[Finding]:
    """A process that nothing happens to; what it finds."""
    replicas = world.replicas(batch=2)
    world.follow(replicas)
    world.put("orders", {"id": "end", "place": "end"})
    world.follow(replicas)
    findings = replicas.verify()
    replicas.close()
    return findings


def begin(root: Path) -> World:
    world = World(root)
    world.define(ORDERS)
    world.define(PARTS)
    return world


def edit(world: World, choice: int) -> bytes | None:
    """Changes one of the data files as somebody might; what it holds then."""
    files = sorted(path for path in world.root.rglob("*.csv") if path.stat().st_size)
    if not files:
        return None
    path = files[choice % len(files)]
    text = path.read_bytes() + b"mine,%d\n" % choice
    path.write_bytes(text)
    return text


def outlives(story: list[Life]) -> bool:
    """Whether the folders are as if nobody had died, and nothing is put aside."""
    with TemporaryDirectory() as scratch:
        world = begin(Path(scratch, "a"))
        for life in story:
            live(world, life)
        assert end(world) == []
        same = tree(world.root) == world.rebuilt(Path(scratch, "b"))
        world.close()
    return same


@settings(max_examples=25)
@given(lives(st.none(), RARELY))
def test_what_any_number_of_crashes_leave_is_nobodys_edit(story: list[Life]) -> None:
    assert outlives(story)


@settings(max_examples=25)
@given(lives(st.none() | st.integers(0, 9), RARELY))
def test_no_edit_is_lost_between_crashes(story: list[Life]) -> None:
    with TemporaryDirectory() as scratch:
        world = begin(Path(scratch, "a"))
        made: set[bytes] = set()
        for life in story:
            live(world, life)
            if life.edited is not None:
                text = edit(world, life.edited)
                made |= {text} if text is not None else set()
        end(world)
        world.close()
        kept = {path.read_bytes() for path in world.root.rglob(f"*.csv{EDITED}*")}
        whole = {path.read_bytes() for path in world.root.rglob("*.csv")}
        over = [text for text in made if not any(text == one or one.startswith(text) for one in kept | whole)]
        assert over == []


STORY = [
    Life([("orders", "x", "a", 0)], 11, lost=False, edited=None),
    Life([("orders", "x", "a", 1), ("delete", "x", "", 0), ("orders", "x", "a", 0)], 0, lost=False, edited=None),
    Life([("orders", "x", "b", 0)], 5, lost=False, edited=None),
]
"""Deaths between a data file and its meta.json, and then before anything new is told of."""


@pytest.mark.parametrize("planted", [False, True])
def test_without_the_end_of_what_was_begun_crashes_look_like_edits(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted:
        monkeypatch.setattr(Sparing, "settle", lambda self, folders: None)
    assert outlives(STORY) is not planted
