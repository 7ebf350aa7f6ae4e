"""A log comes back from its folders body for body, and damage is named by folder and line."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.errors import ArchiveExists, EventForked, EventsMissing
from refold.events import Event, Kind, canonical
from refold.replay import events_after
from refold.verdict import Finding
from refold_adapters.folders import FoundEvent, LineRefused, from_line, read_events, rebuild_log, to_line
from refold_adapters.folders.blocks import BLOCK, BlockHash, tail_start
from refold_adapters.sqlite_log import SqliteLog

from .world import ORDERS, PARTS, World

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.builds(
    Event,
    TEXT,
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.sampled_from(Kind),
    TEXT,
    TEXT,
    st.dictionaries(TEXT, VALUES, max_size=4),
    st.dictionaries(TEXT, st.integers(1, 2**63 - 1), max_size=3),
    TEXT,
    st.integers(1, 99),
    st.integers(1, 2**63 - 1),
    st.none() | TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
    st.binary(min_size=32, max_size=32),
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "a")
    made.define(ORDERS)
    made.define(PARTS)
    for number in range(6):
        made.put("orders", {"id": str(number), "place": f"p{number % 3}"}, made.lab if number % 2 else made.office)
    made.meet()
    made.put("orders", {"id": "1", "place": "p2", "note": "moved"})
    made.delete("orders", "2", made.lab)
    replicas = made.replicas()
    made.follow(replicas)
    replicas.close()
    return made


@given(EVENTS)
def test_a_line_gives_back_the_event(event: Event) -> None:
    line = to_line(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert canonical(from_line(line)) == canonical(event)


def test_a_line_that_was_changed_is_refused(world: World) -> None:
    line = to_line(events_after(world.log, 2, 1)[0])
    for bad in (line.replace(b'"p0"', b'"p9"'), line[:-9], b"", b"[]", line.replace(b'"counter":', b'"counter":65536')):
        with pytest.raises(LineRefused):
            from_line(bad)


@given(st.lists(st.integers(0, 3 * BLOCK // 2), max_size=5))
def test_a_block_hash_goes_on_where_it_stood(sizes: list[int]) -> None:
    whole, stepwise, text = BlockHash(), BlockHash(), b""
    for number, size in enumerate(sizes):
        piece = bytes([number]) * size
        text += piece
        tail = text[tail_start(len(text) - size) : len(text) - size]
        stepwise = BlockHash(stepwise.upper, tail, stepwise.size)
        stepwise.update(piece)
    whole.update(text)
    assert (stepwise.digest(), stepwise.size, stepwise.upper) == (whole.digest(), whole.size, whole.upper)


def fill(world: World, path: Path) -> list[bytes]:
    log = SqliteLog(path, owner="new")
    try:
        rebuild_log(world.root, log)
        return [body for _, body in log.bodies(0, 1000)]
    finally:
        log.close()


def test_the_log_comes_back_body_for_body(world: World, tmp_path: Path) -> None:
    ordered = sorted(events_after(world.log, 0, 1000), key=lambda event: (event.time, event.replica, event.seq))
    assert fill(world, tmp_path / "new.db") == [canonical(event) for event in ordered]
    again = World(tmp_path / "a")
    assert {body for _, body in again.log.bodies(0, 1000)} == set(fill(world, tmp_path / "other.db"))


def test_a_log_that_holds_something_is_left_alone(world: World) -> None:
    with pytest.raises(ArchiveExists):
        rebuild_log(world.root, world.log)


def test_a_link_is_not_followed(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (world.root / "p0").rename(outside)
    (world.root / "p0").symlink_to(outside)
    assert not any(isinstance(item, FoundEvent) and item.folder == "p0" for item in read_events(world.root))


def test_a_torn_tail_is_passed_over(world: World, tmp_path: Path) -> None:
    with open(world.root / "p0/events.jsonl", "ab") as file:
        file.write(b'{"time":"2023')
    findings = [item for item in read_events(world.root) if isinstance(item, Finding)]
    assert [(finding.kind, finding.folder) for finding in findings] == [("folder-torn", "p0")]
    assert len(fill(world, tmp_path / "new.db")) == world.log.end()


def test_a_damaged_line_is_named(world: World, tmp_path: Path) -> None:
    path = world.root / "p2/events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"actor":""', b'"actor":"x"')
    path.write_bytes(b"".join(lines))
    with pytest.raises(LineRefused) as refused:
        fill(world, tmp_path / "new.db")
    assert (refused.value.folder, refused.value.line) == ("p2", 2)


def test_a_missing_folder_is_missing_events(world: World, tmp_path: Path) -> None:
    for name in os.listdir(world.root / "p0"):
        (world.root / "p0" / name).unlink()
    with pytest.raises(EventsMissing):
        fill(world, tmp_path / "new.db")


def test_a_cut_end_is_missing_events(world: World, tmp_path: Path) -> None:
    last = max(events_after(world.log, 0, 1000), key=lambda event: (event.time, event.replica, event.seq))
    path = next(path for path in world.root.rglob("events.jsonl") if last.hash.hex().encode() in path.read_bytes())
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(EventsMissing) as missing:
        fill(world, tmp_path / "new.db")
    assert missing.value.missing == [f"{last.replica}:{last.seq}"]


def test_another_event_at_the_same_dot_is_a_fork(world: World, tmp_path: Path) -> None:
    event = events_after(world.log, 2, 1)[0]
    (world.root / "copy").mkdir()
    other = msgspec.structs.replace(event, actor="somebody else")
    (world.root / "copy/events.jsonl").write_bytes(to_line(other))
    with pytest.raises(EventForked):
        fill(world, tmp_path / "new.db")
