"""What `scripts/faults` found, each for itself: the smallest disk or input that showed it."""

import asyncio
import os
import sqlite3
import zlib
from pathlib import Path

import msgspec
import pytest

import refold
from refold.errors import DefinitionRefused, Locked, SettingsInvalid, StorageFailed
from refold.frames import FrameRefused, from_frame
from refold.schema import from_toml
from refold_adapters import durable
from refold_adapters.archive import remove_database, restored_beside
from refold_adapters.folders.content import read_meta
from refold_adapters.lock import Lock
from refold_adapters.recovery import building, restore
from refold_adapters.settings import FILE, load_settings
from refold_adapters.sqlite_log import SqliteLog

from .crash.work import THINGS

pytestmark = pytest.mark.anyio


async def with_wal(root: Path) -> None:
    """An archive whose last event is in the WAL alone, as one whose writer died."""
    async with refold.open(root, replica="office") as engine:
        await engine.define(THINGS)
        await engine.put("things", {"id": "a", "place": "here", "n": 1})
        await engine.settled()
    async with refold.open(root) as engine:
        await engine.put("things", {"id": "b", "place": "here", "n": 2})
        await engine.settled()
        wal = (root / "changelog.db-wal").read_bytes()
        whole = (root / "changelog.db").read_bytes()
    (root / "changelog.db").write_bytes(whole)
    (root / "changelog.db-wal").write_bytes(wal)


async def test_a_restore_in_place_that_stops_half_way_leaves_the_log_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_wal(tmp_path)
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == "changelog.db":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageFailed):
        await restore(tmp_path, None, origin="folders")
    async with refold.open(tmp_path) as engine:
        assert engine.position == 3
        assert await engine.get("things", "b") is not None


async def test_a_log_that_cannot_be_settled_gives_up_its_name_before_its_wal(tmp_path: Path) -> None:
    await with_wal(tmp_path)
    (tmp_path / "changelog.db").write_bytes(b"no database at all" * 300)
    report = await restore(tmp_path, None, origin="folders")
    assert report.ok and report.kept is not None
    assert Path(report.kept).read_bytes().startswith(b"no database")
    async with refold.open(tmp_path) as engine:
        assert await engine.get("things", "b") is not None


def test_a_database_that_cannot_be_deleted_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(StorageFailed, match="deleting the database"):
        remove_database(tmp_path / "x.db")


async def test_what_could_not_be_cleared_does_not_hide_why_a_restore_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_wal(tmp_path / "archive")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    def stuck(place: Path) -> None:
        if place.exists():
            raise OSError(30, "Read-only file system")

    (tmp_path / "archive" / FILE).write_text("[archive]\n")
    monkeypatch.setattr(building, "copy_file", full)
    monkeypatch.setattr(building, "discard", stuck)
    with pytest.raises(StorageFailed, match="No space left") as caught:
        await restore(tmp_path / "archive", tmp_path / "new")
    assert any("Read-only" in note for note in caught.value.__notes__)


async def test_what_a_killed_restore_in_place_left_is_removed(tmp_path: Path) -> None:
    await with_wal(tmp_path)
    left = restored_beside(tmp_path / "changelog.db")
    for path in (left, left.with_name(f"{left.name}-wal")):
        path.write_bytes(b"half")
    async with refold.open(tmp_path):
        assert [path.name for path in tmp_path.iterdir() if ".restore." in path.name] == []


def test_every_directory_that_is_made_is_named_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_directory", synced.append)
    durable.make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    durable.make_directory(tmp_path / "a" / "b")
    assert len(synced) == 2


@pytest.mark.parametrize("text", [b'{"x":' * 3000, b'{"schema_version":"2.0","x":' + b"[" * 3000, b"\xff"])
def test_a_meta_json_that_is_none(text: bytes) -> None:
    assert read_meta(text) is None


@pytest.mark.parametrize("text", [b'{"pid":1,"host":"\xff","since":"x"}', b"[" * 3000, b""])
def test_a_lock_whose_file_says_nothing(text: bytes, tmp_path: Path) -> None:
    holder = Lock(tmp_path / "lock")
    holder.acquire(0)
    (tmp_path / "lock").write_bytes(text)
    with pytest.raises(Locked) as caught:
        Lock(tmp_path / "lock").acquire(0)
    assert caught.value.host == "unknown"
    holder.release()


@pytest.mark.parametrize("text", ["x = " + "[" * 3000, "[archive]\nchangelog = 'a\\u0000.db'".replace("'", '"')])
def test_settings_that_cannot_be(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SettingsInvalid):
        load_settings(tmp_path)


@pytest.mark.parametrize("name", ["a" * 60 + ".db", ".hidden.db", "a/b.db", ".db", "log"])
def test_names_of_databases_that_cannot_be(name: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(f'[archive]\nchangelog = "{name}"\n')
    with pytest.raises(SettingsInvalid, match="plain file name"):
        load_settings(tmp_path)


def test_definitions_with_numbers_of_thousands_of_digits() -> None:
    with pytest.raises(DefinitionRefused):
        from_toml("[collections.things]\nfolder = " + "9" * 5000)


def test_a_refusal_whose_fields_are_no_json() -> None:
    payload = msgspec.msgpack.encode([5, "code", "message", {"name": [{b"bytes": 1}]}])
    header = b"rfs\x01" + len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big")
    with pytest.raises(FrameRefused):
        from_frame(header + payload)


def test_definitions_that_are_nested_too_deeply() -> None:
    with pytest.raises(DefinitionRefused):
        from_toml("x = " + "[" * 3000)


def test_a_newest_event_with_keys_that_are_no_text(tmp_path: Path) -> None:
    asyncio.run(with_wal(tmp_path))
    connection = sqlite3.connect(tmp_path / "changelog.db")
    (body,) = connection.execute("SELECT body FROM events ORDER BY position DESC LIMIT 1").fetchone()
    fields = msgspec.msgpack.decode(body)
    fields[6] = {"note": {1: 2}}
    with connection:
        connection.execute("UPDATE events SET body = ? WHERE position = 3", (msgspec.msgpack.encode(fields),))
    connection.close()
    log = SqliteLog(tmp_path / "changelog.db", readonly=True)
    assert log.end() == 3
    log.close()


async def test_a_target_below_directories_that_are_not_there(tmp_path: Path) -> None:
    await with_wal(tmp_path / "archive")
    report = await restore(tmp_path / "archive", tmp_path / "deep" / "er" / "new")
    assert report.ok and os.path.isdir(report.path)
