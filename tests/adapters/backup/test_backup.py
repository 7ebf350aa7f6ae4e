"""Backups that are made, listed, verified and brought back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

import refold
from refold.errors import ArchiveExists, ArchiveMissing, InputRefused, LogCorrupt
from refold.moment import AtPosition
from refold_adapters import backup as store
from refold_adapters.backup import BackupUnknown, ParentMissing
from refold_adapters.backup.creating import PIECE_EVENTS
from refold_adapters.backup.manifest import Parent
from refold_adapters.backup.places import HISTORY
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.stopping import Tell

from .world import SECRET, World, digest, tree

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "encrypted"])
async def test_an_archive_comes_back_byte_for_byte_from_a_chain(
    world: World, compression: str, secret: store.Secret | None
) -> None:
    await world.write(0, 30)
    (world.archive / "refold.toml").write_text('[archive]\ntables = "t.db"\n')
    await world.write(30, 40)
    first = await world.create(compression=compression, secret=secret)
    await world.write(40, 60)
    second = await world.create(incremental=True, compression=compression, secret=secret)
    await world.write(60, 70)
    third = await world.create(incremental=True, compression=compression, secret=secret)
    assert [known.kind for known in (first, second, third)] == ["full", "incremental", "incremental"]
    assert (second.parent, third.parent) == (
        Parent(first.id, first.sha256),
        Parent(second.id, second.sha256),
    )
    assert (first.events, second.events, third.events) == (43, 21, 11)
    report = await world.restore(third, secret=secret)
    assert report.ok and report.skipped == []
    assert report.digest == await digest(world.archive) == third.digest
    assert tree(world.root / "b") == tree(world.archive)
    earlier = await world.restore(second, "c", secret)
    assert (earlier.ok, earlier.digest) == (True, second.digest)
    async with refold.open(world.root / "b") as engine:
        assert engine.replica not in ("office", "")
    assert (await world.verify(secret)).findings == []


async def test_any_tool_opens_a_backup(world: World) -> None:
    await world.write(0, 5)
    known = await world.create(description="before the move")
    with zipfile.ZipFile(world.path(known)) as opened:
        assert opened.testzip() is None
        opened.extractall(world.root / "out")
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_DEFLATED}
    checked = subprocess.run(
        ["sha256sum", "-c", "manifest.sha256"], cwd=world.root / "out", capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    manifest = json.loads((world.root / "out/manifest.json").read_text())
    assert manifest["description"] == "before the move"
    for entry in manifest["entries"]:
        assert sha256((world.root / "out" / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]
    lines = (world.root / "out/events/000001.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 8))


async def test_a_backup_can_be_restored_up_to_a_moment_in_it(world: World) -> None:
    await world.write(0, 10)
    await world.create()
    await world.write(10, 20)
    known = await world.create(incremental=True)
    report = await store.restore_backup(world.path(known), world.root / "b", at=AtPosition(12))
    assert (report.ok, report.events) == (True, 12)


async def test_an_incremental_goes_on_only_from_what_the_log_begins_with(world: World) -> None:
    await world.write(0, 10)
    await world.create()
    world.archive.rename(world.root / "old")
    await world.write(0, 12)
    assert (await world.create(incremental=True)).kind == "full"
    again = await world.create(incremental=True)
    assert (again.kind, again.events) == ("incremental", 0)


async def test_a_log_that_lost_its_end_does_not_go_on_from_a_backup_of_it(world: World) -> None:
    await world.write(0, 10)
    first = await world.create()
    await world.write(10, 20)
    await world.create(incremental=True)
    await world.restore(first, "c")
    world.archive.rename(world.root / "old")
    (world.root / "c").rename(world.archive)
    async with refold.open(world.archive) as engine:
        for n in range(30):
            await engine.put("notes", {"id": f"x{n}", "place": "x", "n": n})
    third = await world.create(incremental=True)
    assert third.parent is not None and third.parent.id == first.id


async def test_what_a_chain_needs_is_missed_by_name(world: World) -> None:
    await world.write(0, 10)
    first = await world.create()
    await world.write(10, 20)
    second = await world.create(incremental=True)
    world.path(first).unlink()
    with pytest.raises(ParentMissing) as caught:
        await world.restore(second)
    assert caught.value.parent == first.id
    assert [finding.kind for finding in (await world.verify()).findings] == ["backup-parent"]
    assert (await world.create(incremental=True)).kind == "full"
    assert not (world.root / "b").exists()


async def test_the_history_is_made_anew_from_the_files(world: World) -> None:
    await world.write(0, 10)
    known = [await world.create(), await world.create(incremental=True, description="second")]
    assert await world.history() == store.History(known)
    for damage in (b"", b"{", b'{"format":1,"backups":[]}', None):
        path = world.directory / HISTORY
        path.write_bytes(damage) if damage is not None else path.unlink()
        found = await world.history()
        assert (found.backups, found.stale) == (known, True)
    await asyncio.to_thread(store.write_history, world.directory, known)
    assert not (await world.history()).stale
    world.path(known[1]).unlink()
    assert await world.history() == store.History(known[:1], stale=True)


async def test_names_that_people_say(world: World) -> None:
    await world.write(0, 3)
    known = [await world.create(), await world.create(incremental=True)]
    history = await world.history()
    assert store.find(history, "latest", world.directory) == known[1]
    assert store.find(history, known[0].id[:6], world.directory) == known[0]
    assert store.find(history, known[0].file, world.directory) == known[0]
    for name in ("", "zzzz", known[0].id[:3]):
        with pytest.raises(BackupUnknown):
            store.find(history, name, world.directory)


async def test_the_newest_is_the_last_in_its_chain_though_a_clock_was_set_back(world: World) -> None:
    await world.write(0, 3)
    await world.create()
    world.now -= 3_600_000
    later = await world.create(incremental=True)
    assert store.newest(await world.history()) == later


def _damage(path: Path) -> None:
    log = SqliteLog(path)
    log._connection.execute("UPDATE events SET body = (SELECT body FROM events WHERE position = 3) WHERE position = 5")
    log.close()


async def test_a_damaged_log_is_not_backed_up(world: World) -> None:
    await world.write(0, 10)
    await asyncio.to_thread(_damage, world.archive / "changelog.db")
    with pytest.raises(LogCorrupt):
        await world.create()
    assert [path.name for path in world.directory.iterdir()] == ["backups.lock"]


async def test_places_that_cannot_be(world: World) -> None:
    with pytest.raises(ArchiveMissing):
        await world.create()
    await world.write(0, 2)
    with pytest.raises(InputRefused):
        await World(world.root, world.now, directory=world.archive / "backups").create()
    known = await world.create()
    with pytest.raises(ArchiveExists):
        await world.restore(known, "a")


async def test_tables_that_are_gone_or_of_another_log_do_not_hinder(world: World) -> None:
    await world.write(0, 10)
    (world.archive / "tables.db").unlink()
    known = await world.create()
    assert (known.events, known.digest) == (12, None)
    report = await world.restore(known)
    assert report.ok


async def test_a_backup_runs_beside_a_writer_and_holds_what_was_acknowledged_before(world: World) -> None:
    await world.write(0, 10)
    async with refold.open(world.archive) as engine:
        written = 0
        running = True

        async def keep_writing() -> None:
            nonlocal written
            while running:
                await engine.put("notes", {"id": f"w{written}", "place": "w", "n": written})
                written += 1

        writer = asyncio.create_task(keep_writing())
        backups: list[store.Known] = []
        for _ in range(4):
            before = engine.position
            known = await world.create(incremental=bool(backups))
            assert known.position is not None and known.position >= before and known.digest is not None
            backups.append(known)
        running = False
        await writer
    assert [known.kind for known in backups] == ["full", *["incremental"] * 3]
    report = await world.restore(backups[-1])
    assert (report.ok, report.digest) == (True, backups[-1].digest)


async def test_events_are_cut_into_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.creating, "PIECE_EVENTS", 2000)
    assert PIECE_EVENTS % 1000 == 0
    await world.write(0, 4500)
    known = await world.create()
    with zipfile.ZipFile(world.path(known)) as opened:
        names = [name for name in opened.namelist() if name.startswith("events/")]
    assert names == [f"events/00000{n}.jsonl" for n in (1, 2, 3)]
    assert (await world.restore(known)).digest == known.digest


async def test_a_backup_that_is_cancelled_leaves_nothing(world: World) -> None:
    await world.write(0, 3000)
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(what: str, done: int) -> None:
        loop.call_soon_threadsafe(seen.set)

    def work(told: Tell) -> None:
        while True:
            store.create(world.archive, world.directory, store.Order(), now=world.now, salt=bytes(16), tell=told)

    task = asyncio.create_task(store.in_thread(work, tell))
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [path for path in world.directory.iterdir() if path.name.endswith(".partial")]
    if (await world.history()).backups:
        assert (await world.verify()).ok


def test_no_module_is_imported_that_an_extra_brings() -> None:
    code = "import sys, refold_adapters.backup; print([m for m in ('cryptography', 'backports') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout == "[]\n"
