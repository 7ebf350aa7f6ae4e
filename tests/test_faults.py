"""Disks that fail: what is told to the writer, what is kept, and that the archive goes on once the cause is mended.

The process that meets the fault is a real one, on a small file system that is really full or read-only, or with system
calls that `strace` lets fail. What it was told is compared with what a fresh engine finds afterwards.
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import refold
from refold.errors import Locked, LogCorrupt, ProjectionFailed, StorageFailed, StorePoisoned
from refold_adapters.sqlite_log import SqliteLog

from .crash.faulty import Told, write
from .crash.look import folders, look, tables
from .crash.work import THINGS

pytestmark = pytest.mark.anyio

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts at a directory until the test is over."""
    mounted: list[Path] = []

    def at(place: Path, *options: str) -> None:
        subprocess.run(["mount", *options, str(place)], check=True)
        if "remount" not in str(options):
            mounted.append(place)

    yield at
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def judge(root: Path, told: Told, elsewhere: Path) -> None:
    """A fresh engine finds all that was acknowledged, nothing that was not attempted, and everything in order."""
    found = look(root, elsewhere)
    assert found.complaints == []
    there = {int(key) for key in found.tables["things"]}
    assert told.acknowledged <= there <= set(range(len(told.writes) or 1))


def begun(root: Path, *, folders: bool = True) -> Path:
    """An archive with one record in it."""
    assert write(root, count=1, folders=folders).left is None
    return root


@needs_strace
@pytest.mark.parametrize("when", [1, 3, 7, 9])
def test_a_sync_of_the_log_that_fails(when: int, tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    told = write(root, inject=[f"fdatasync:error=EIO:when={when}"])
    failed = next(n for n, code in enumerate(told.writes) if code is not None)
    assert told.writes[failed] == "storage-failed"
    assert set(told.writes[failed + 1 :]) <= {"store-poisoned"}
    judge(root, told, tmp_path / "elsewhere")


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("when", [1, 8, 20, 27, 34, 48, 60])
def test_a_write_of_a_database_that_fails(when: int, error: str, tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    told = write(root, inject=[f"pwrite64:error={error}:when={when}+"])
    assert told.left == "storage-failed" or {"storage-failed", "projection-failed"} & set(told.writes)
    assert set(told.writes) <= {None, "storage-failed", "store-poisoned", "projection-failed"}
    judge(root, told, tmp_path / "elsewhere")


@needs_strace
@pytest.mark.parametrize(
    "rule",
    [
        *(f"syncfs:error=EIO:when={when}" for when in (1, 2)),
        "syncfs:error=ENOSPC:when=1+",
        *(f"renameat:error={error}:when=1" for error in ("EIO", "ENOSPC", "EROFS")),
        "renameat:error=EIO:when=1+",
        "mkdirat:error=ENOSPC:when=1",
    ],
)
def test_folders_that_fail_stop_alone_and_are_repaired(rule: str, tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    told = write(root, folders=True, inject=[rule])
    assert told.writes == [None] * 12
    assert (told.settled, told.left) == ("projection-failed", "projection-failed")
    assert told.states == {"tables": "current", "folders": "failed"}
    judge(root, told, tmp_path / "elsewhere")


@needs_root
def test_a_disk_that_fills_up(mount: Mount, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount(small, "-t", "tmpfs", "-o", "size=6m", "refold-test")
    root = begun(small / "archive")
    codes: set[str | None] = set()
    for free in (0, 8, 64, 200, 400, 800, 1600):
        room = shutil.disk_usage(small).free - free * 1024
        (small / "ballast").write_bytes(b"x" * room)
        told = write(root, count=12, size=40_000 + free, folders=True)
        assert len(told.acknowledged) < 12 or told.left is not None, (free, told)
        codes |= {*told.writes, told.left, told.settled}
        (small / "ballast").unlink()
        judge(root, told, tmp_path / "elsewhere")
        assert write(root, count=1, folders=True).left is None
        shutil.rmtree(root)
        begun(root)
    assert codes >= {None, "storage-failed", "projection-failed"}
    assert codes <= {None, "storage-failed", "store-poisoned", "projection-failed"}


@needs_root
def test_a_folder_that_is_read_only(mount: Mount, tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    place = root / "p0"
    mount(place, "--bind", str(place))
    mount(place, "-o", "remount,ro,bind")
    told = write(root, folders=True)
    assert told.writes == [None] * 12
    assert (told.states["folders"], told.left) == ("failed", "projection-failed")
    mount(place, "-o", "remount,rw,bind")
    judge(root, told, tmp_path / "elsewhere")


@needs_root
async def test_an_archive_that_is_read_only(mount: Mount, tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    mount(root, "--bind", str(root))
    mount(root, "-o", "remount,ro,bind")
    with pytest.raises(StorageFailed):
        async with refold.open(root):
            pass


@pytest.mark.parametrize("names", [["changelog.db"], ["changelog.db-wal"], ["changelog.db", "changelog.db-wal"]])
async def test_a_log_that_is_deleted_while_it_is_open_is_noticed_at_the_next_commit(
    names: list[str], tmp_path: Path
) -> None:
    async with refold.open(tmp_path) as engine:
        await engine.define(THINGS)
        await engine.put("things", {"id": "a", "place": "here", "n": 1})
        await engine.settled()
        for name in names:
            (tmp_path / name).unlink()
        with pytest.raises(StorageFailed, match="removed or replaced"):
            await engine.put("things", {"id": "b", "place": "here", "n": 2})
        with pytest.raises(StorePoisoned):
            await engine.put("things", {"id": "c", "place": "here", "n": 3})
        record = await engine.get("things", "a")
        assert record is not None


async def test_no_new_log_is_begun_where_one_was_lost(tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    (root / "changelog.db").unlink()
    for left in ("tables.db", "folders.db", ""):
        with pytest.raises(LogCorrupt, match="is not there"):
            async with refold.open(root):
                pass
        if left:
            (root / left).unlink()
    assert folders(root)["things"]["0"][0] == "p0/here"


@pytest.mark.parametrize(
    "names", [["tables.db"], ["tables.db-wal"], ["tables.db", "tables.db-wal", "tables.db-shm"], ["folders.db"], ["p0"]]
)
async def test_what_is_derived_can_be_deleted_while_it_is_open(names: list[str], tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    async with refold.open(root) as engine:
        await engine.settled()
        for name in names:
            shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink(missing_ok=True)
        for n in range(1, 4):
            await engine.put("things", {"id": str(n), "place": f"p{n % 3}", "n": n})
            record = await engine.get("things", str(n))
            assert record is not None and record.values["n"] == n
    found = await asyncio.to_thread(look, root, tmp_path / "elsewhere")
    assert found.complaints == []
    assert sorted(found.tables["things"]) == ["0", "1", "2", "3"]


async def test_leaving_says_that_the_folders_failed(tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    (root / "p1").write_text("a file where a folder has to be")
    with pytest.raises(ProjectionFailed) as caught:
        async with refold.open(root) as engine:
            await engine.put("things", {"id": "1", "place": "p1", "n": 1})
    assert caught.value.name == "folders"
    assert "p1" in caught.value.reason
    (root / "p1").unlink()
    assert (await asyncio.to_thread(look, root, tmp_path / "elsewhere")).complaints == []


async def test_a_second_writer_is_told_who_holds_the_lock_and_a_reader_reads_on(tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    async with refold.open(root) as engine:
        told = write(root)
        assert (told.writes, told.left) == ([], Locked.code)
        await engine.put("things", {"id": "1", "place": "p1", "n": 1})
        async with refold.open(root, readonly=True) as reader:
            assert reader.position == engine.position
            await engine.put("things", {"id": "2", "place": "p1", "n": 1})
            await engine.rebuild()
            await engine.put("things", {"id": "3", "place": "p1", "n": 1})
            assert [record.key async for record in reader.find("things")] == ["0", "1", "2", "3"]
            await engine.settled()
            assert (await reader.verify()).ok


async def test_a_database_that_is_damaged_is_made_anew_from_the_log(tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    before = tables(root)
    for name in ("tables.db", "folders.db"):
        size = (root / name).stat().st_size
        (root / name).write_bytes(os.urandom(size))
    async with refold.open(root) as engine:
        await engine.settled()
    assert (await asyncio.to_thread(look, root, tmp_path / "elsewhere")).complaints == []
    assert tables(root) == before
    connection = sqlite3.connect(root / "tables.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_a_log_whose_creator_died_before_it_had_an_owner(tmp_path: Path) -> None:
    await asyncio.to_thread(lambda: SqliteLog(tmp_path / "changelog.db").close())
    async with refold.open(tmp_path, replica="office") as engine:
        assert engine.replica == "office"


async def test_what_a_killed_rebuild_or_verification_left_is_removed(tmp_path: Path) -> None:
    root = begun(tmp_path / "archive")
    for name in ("tables.rebuild.db", "tables.rebuild.db-wal", "tables.verify.db", "tables.verify.db-shm"):
        (root / name).write_bytes(b"half")
    async with refold.open(root) as engine:
        assert (await engine.verify()).ok
        await engine.rebuild()
    assert [path.name for path in root.iterdir() if ".rebuild." in path.name or ".verify." in path.name] == []


def test_a_loop_that_shuts_down_with_an_archive_open_ends(tmp_path: Path) -> None:
    async def hold(opened: asyncio.Event) -> None:
        async with refold.open(tmp_path, quiet=3600) as engine:
            await engine.define(THINGS)
            opened.set()
            await asyncio.Event().wait()

    async def leave() -> None:
        opened = asyncio.Event()
        tasks.append(asyncio.create_task(hold(opened)))
        await opened.wait()

    tasks: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=asyncio.run, args=(leave(),), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert tasks[0].cancelled()
