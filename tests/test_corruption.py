"""What `verify` says of an archive that somebody or something altered while nobody had it open: it names the place."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import refold
from refold.errors import LogCorrupt
from refold.verdict import Finding

from .crash.work import PARTS, THINGS
from .flips import flips

pytestmark = pytest.mark.anyio

WRITES = 12


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    """A closed archive: two definitions and twelve writes, so positions 3 to 14."""
    root = tmp_path / "archive"
    async with refold.open(root, replica="office") as engine:
        await engine.define(THINGS)
        await engine.define(PARTS)
        for n in range(WRITES):
            await engine.put("things", {"id": f"t{n}", "place": f"p{n % 3}", "note": f"note {n}", "n": n})
    return root


def alter(path: Path, sql: str, *parameters: Any) -> None:
    """Changes a database as any program could."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql, parameters)
    connection.close()


async def verified(root: Path) -> list[Finding]:
    """What a reader's verification finds."""
    async with refold.open(root, readonly=True) as engine:
        return (await engine.verify()).findings


def flip(body: bytes, text: bytes) -> bytes:
    """The body with the lowest bit of this text's last byte flipped."""
    at = body.index(text) + len(text) - 1
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


async def test_nothing_is_found_where_nothing_was_done(archive: Path) -> None:
    assert await verified(archive) == []


async def test_a_flipped_bit_in_an_event(archive: Path) -> None:
    connection = sqlite3.connect(archive / "changelog.db")
    (body,) = connection.execute("SELECT body FROM events WHERE position = 7").fetchone()
    connection.close()
    alter(archive / "changelog.db", "UPDATE events SET body = ? WHERE position = 7", flip(body, b"note 4"))
    found = (await verified(archive))[0]
    assert (found.kind, found.replica, found.seq, found.position) == ("log-rot", "office", 7, 7)
    assert "not the one that seq 8 of its replica follows" in found.detail


async def test_a_flipped_bit_in_the_frame_of_an_event(archive: Path) -> None:
    connection = sqlite3.connect(archive / "changelog.db")
    (body,) = connection.execute("SELECT body FROM events WHERE position = 7").fetchone()
    connection.close()
    alter(archive / "changelog.db", "UPDATE events SET body = ? WHERE position = 7", bytes([body[0] ^ 0x40]) + body[1:])
    found = (await verified(archive))[0]
    assert (found.kind, found.replica, found.seq, found.position) == ("log-rot", "office", 7, 7)


async def test_the_last_events_cut_off(archive: Path) -> None:
    alter(archive / "changelog.db", "DELETE FROM events WHERE position > 12")
    found = (await verified(archive))[0]
    assert (found.kind, found.replica, found.seq) == ("log-cut", "office", 13)
    assert "seq 14" in found.detail and "ends at 12" in found.detail


async def test_an_event_taken_out_of_the_middle(archive: Path) -> None:
    alter(archive / "changelog.db", "DELETE FROM events WHERE position = 7")
    found = await verified(archive)
    assert {("log-position", 8), ("log-chain", 8)} <= {(finding.kind, finding.position) for finding in found}


async def test_two_events_swapped(archive: Path) -> None:
    for one, other in ((7, -1), (8, 7), (-1, 8)):
        alter(archive / "changelog.db", "UPDATE events SET position = ? WHERE position = ?", other, one)
    found = await verified(archive)
    assert (found[0].kind, found[0].position, found[0].seq) == ("log-chain", 7, 8)


async def test_a_cut_wal_brings_an_earlier_log_which_is_named(tmp_path: Path) -> None:
    root, copy = tmp_path / "archive", tmp_path / "copy"
    async with refold.open(root, replica="office") as engine:
        await engine.define(THINGS)
        for n in range(WRITES):
            await engine.put("things", {"id": f"t{n}", "place": f"p{n % 3}", "n": n})
        await engine.settled()
        shutil.copytree(root, copy)
    with (copy / "changelog.db-wal").open("r+b") as file:
        file.truncate((copy / "changelog.db-wal").stat().st_size * 2 // 3)
    found = (await verified(copy))[0]
    assert (found.kind, found.replica) == ("log-cut", "office")
    assert found.seq is not None and 1 < found.seq < WRITES + 1


async def test_an_older_copy_of_the_log_put_back(archive: Path, tmp_path: Path) -> None:
    shutil.copy(archive / "changelog.db", tmp_path / "older.db")
    async with refold.open(archive) as engine:
        await engine.put("things", {"id": "late", "place": "p1", "n": 99})
    shutil.copy(tmp_path / "older.db", archive / "changelog.db")
    found = (await verified(archive))[0]
    assert (found.kind, found.replica, found.seq) == ("log-cut", "office", WRITES + 3)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("UPDATE things SET n = 1000 WHERE id = 't4'", "table-altered"),
        ("DELETE FROM things WHERE id = 't4'", "table-missing"),
        ("UPDATE things SET id = 't44' WHERE id = 't4'", "table-stray"),
    ],
)
async def test_a_row_of_a_table(sql: str, kind: str, archive: Path) -> None:
    alter(archive / "tables.db", sql)
    found = {finding.kind: finding for finding in await verified(archive)}
    assert kind in found
    key = "t44" if kind == "table-stray" else "t4"
    assert (found[kind].file, found[kind].collection, found[kind].key) == ("tables.db", "things", key)


def edit(root: Path) -> None:
    path = root / "p1/here/data.csv"
    path.write_bytes(path.read_bytes().replace(b"note 4", b"note X"))


def edit_meta(root: Path) -> None:
    path = root / "p1/here/meta.json"
    path.write_bytes(path.read_bytes().replace(b"things", b"thingz"))


def edit_history(root: Path) -> None:
    path = root / "p1/here/events.jsonl"
    path.write_bytes(path.read_bytes().replace(b"note 4", b"note X"))


@pytest.mark.parametrize(
    ("damage", "kind", "file"),
    [
        (edit, "folder-altered", "data.csv"),
        (edit_meta, "folder-altered", "meta.json"),
        (edit_history, "folder-altered", "events.jsonl"),
        (lambda root: (root / "p1/here/data.csv").unlink(), "folder-missing", "data.csv"),
        (lambda root: (root / "p1/here/events.jsonl").unlink(), "folder-missing", "events.jsonl"),
    ],
)
async def test_a_file_of_a_folder(damage: Callable[[Path], None], kind: str, file: str, archive: Path) -> None:
    damage(archive)
    found = await verified(archive)
    assert [(finding.kind, finding.folder, finding.file) for finding in found] == [(kind, "p1/here", file)]
    if damage is edit:
        assert found[0].row == 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-100],
        lambda data: data[: len(data) - 4120],
        lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
        lambda data: data + data[32 : 32 + 2000],
    ],
    ids=["cut in a frame", "cut behind a frame", "bit of the last frame", "a frame begun"],
)
async def test_a_commit_that_never_ended_is_told_and_passed_over(
    spoil: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, copy = tmp_path / "archive", tmp_path / "copy"
    async with refold.open(root, replica="office", folders=False) as engine:
        await engine.define(THINGS)
        for n in range(WRITES):
            await engine.put("things", {"id": f"t{n}", "place": "p", "note": "x" * 9000, "n": n})
        shutil.copytree(root, copy)
    (copy / "changelog.db.lock").write_text("")
    wal = copy / "changelog.db-wal"
    wal.write_bytes(spoil(wal.read_bytes()))
    kinds = {finding.kind for finding in await verified(copy)}
    assert "log-torn" in kinds and kinds <= {"log-torn", "log-cut"}
    with caplog.at_level("WARNING", "refold.archive"):
        async with refold.open(copy, folders=False) as engine:
            assert engine.position >= WRITES
    assert "bytes of a commit that never ended are passed over" in caplog.text
    assert await verified(copy) == []


async def test_any_bit_of_a_log_is_found_or_harmless(archive: Path, tmp_path: Path) -> None:
    """A sample of what `scripts/flips` does for every bit and every cut."""
    outcomes = await asyncio.to_thread(lambda: list(flips(archive, tmp_path / "copy", step=997)))
    assert [outcome for outcome in outcomes if not outcome.sound] == []
    assert any(outcome.found == "log-rot" for outcome in outcomes) and any(not outcome.found for outcome in outcomes)


async def test_a_log_that_does_not_decode_stops_a_writer_with_its_position(archive: Path) -> None:
    alter(archive / "changelog.db", "UPDATE events SET body = x'00' WHERE position = 14")
    with pytest.raises(LogCorrupt) as caught:
        async with refold.open(archive):
            pass
    assert caught.value.position == WRITES + 2


async def test_a_damaged_log_is_not_taken_for_truth_when_the_tables_are_gone(archive: Path) -> None:
    alter(archive / "changelog.db", "UPDATE events SET body = x'00' WHERE position = 7")
    (archive / "tables.db").unlink()
    with pytest.raises(LogCorrupt) as caught:
        async with refold.open(archive):
            pass
    assert caught.value.position == 7
