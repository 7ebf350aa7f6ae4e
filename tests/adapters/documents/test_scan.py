"""One look at the documents of an archive: what it tells, what it reads, what it remembers, what it writes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import refold
from refold import Collection, Engine, Field
from refold.errors import CollectionUnknown, DefinitionRefused, StorageFailed
from refold_adapters.documents import (
    DocumentsAway,
    DocumentsUndeclared,
    ScanReport,
    cache,
    clear_missing,
    notes,
    record,
    scan,
    verify_documents,
)
from refold_adapters.documents.paths import Below
from refold_adapters.documents.scanning import scanning
from refold_adapters.wording import Wording

from .world import OLD, ORDERS, digest, fill, home, told, values, write

pytestmark = pytest.mark.anyio
KEYS = tuple("abcdef")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[Engine]:
    async with refold.open(root) as engine:
        await fill(engine, root, KEYS)
        await engine.settled()
        yield engine


async def recorded(engine: Engine, root: Path, *collections: str) -> ScanReport:
    async with scanning(engine, root, collections) as look:
        await record(look, engine, Wording("ann", "checked"))
        return await asyncio.to_thread(look.conclude)


async def cleared(engine: Engine, root: Path, **options: Any) -> Any:
    async with scanning(engine, root, ["orders"]) as look:
        return await clear_missing(look, engine, Wording("ann", "gone"), **options)


async def test_what_is_as_records_say_is_not_told_and_read_once(engine: Engine, root: Path) -> None:
    first = await scan(engine, root)
    assert (first.ok, first.documents, first.files, first.read, first.bytes) == (True, 6, 6, 6, 48)
    again = await scan(engine, root)
    assert (again.ok, again.documents, again.read) == (True, 6, 0)
    assert (await scan(engine, root, full=True)).read == 6


async def test_every_kind_is_told(engine: Engine, root: Path) -> None:
    await engine.patch("orders", "a", {"sha256": None})
    write(root, home("b"), b"other")
    (root / home("c")).unlink()
    (root / "elsewhere").mkdir()
    (root / home("d")).rename(root / "elsewhere/d.pdf")
    await engine.patch("orders", "e", {"sha256": "0123"})
    await engine.patch("orders", "f", {"path": "../f.pdf"})
    write(root, "a/deep/stray.txt", b"stray")
    write(root, ".hidden/x", b"")
    write(root, "notes.txt", b"beside the databases")
    (root / "a/link").symlink_to("/etc/passwd")
    os.mkfifo(root / "a/fifo")
    report = await scan(engine, root)
    assert told(report) == {
        ("new", home("a"), "a"),
        ("changed", home("b"), "b"),
        ("missing", home("c"), "c"),
        ("moved", home("d"), "d"),
        ("hash", home("e"), "e"),
        ("outside", "../f.pdf", "f"),
        ("orphaned", home("f"), None),
        ("orphaned", "a/deep/stray.txt", None),
        ("orphaned", "a/link", None),
        ("orphaned", "a/fifo", None),
    }
    assert [one.places for one in report.findings if one.kind == "document-moved"] == [("elsewhere/d.pdf",)]


async def test_what_is_found_is_recorded_as_events_on_demand(engine: Engine, root: Path) -> None:
    await engine.patch("orders", "a", {"sha256": None})
    changed = write(root, home("b"), b"other")
    (root / home("c")).unlink()
    (root / "x").mkdir()
    (root / home("d")).rename(root / "x/d.pdf")
    before = engine.position
    report = await recorded(engine, root)
    assert (report.recorded, told(report)) == (3, {("missing", home("c"), "c")})
    assert await values(engine, "a") == (home("a"), digest(b"a" * 8))
    assert await values(engine, "b") == (home("b"), changed)
    assert await values(engine, "d") == ("x/d.pdf", digest(b"d" * 8))
    events = [event async for event in engine.events(after=before)]
    assert {(event.key, event.actor, event.reason) for event in events} == {(key, "ann", "checked") for key in "abd"}
    assert (await recorded(engine, root)).recorded == 0
    assert (await engine.verify()).ok


async def test_a_move_that_may_be_another_is_left_to_a_person(engine: Engine, root: Path) -> None:
    write(root, "x/one", b"a" * 8)
    write(root, "x/two", b"a" * 8)
    await engine.patch("orders", "c", {"sha256": digest(b"b" * 8)})
    (root / home("c")).unlink()
    (root / home("a")).unlink()
    (root / home("b")).rename(root / "x/b")
    report = await recorded(engine, root)
    assert (report.recorded, report.counts) == (0, {"document-moved": 3})
    assert await values(engine, "a") == (home("a"), digest(b"a" * 8))


async def test_bytes_that_others_point_to_have_not_moved_there(engine: Engine, root: Path) -> None:
    write(root, home("b"), b"a" * 8)
    await engine.patch("orders", "b", {"sha256": digest(b"a" * 8)})
    (root / home("a")).unlink()
    (found,) = (await scan(engine, root)).findings
    assert (found.kind, found.key) == ("document-missing", "a")
    assert "others point" in found.detail


async def test_somebody_who_was_faster_is_not_written_over(engine: Engine, root: Path) -> None:
    write(root, home("a"), b"other")
    write(root, home("b"), b"other")
    async with scanning(engine, root) as look:
        await engine.patch("orders", "a", {"sha256": digest(b"mine")})
        await engine.patch("orders", "b", {"path": None})
        await record(look, engine, Wording("ann"))
        report = await asyncio.to_thread(look.conclude)
    assert report.counts == {"document-unrecorded": 2}
    assert await values(engine, "a") == (home("a"), digest(b"mine"))


async def test_a_collection_is_looked_at_alone(engine: Engine, root: Path) -> None:
    await engine.define(msgspec.structs.replace(ORDERS, name="others"))
    await engine.put("others", {"no": "x", "path": "a/x.pdf"})
    (root / home("a")).unlink()
    write(root, "a/stray", b"")
    assert told(await scan(engine, root, ["others"])) == {("missing", "a/x.pdf", "x")}
    assert told(await scan(engine, root, ["orders"])) == {("missing", home("a"), "a")}


async def test_a_path_without_a_hash_is_only_looked_for(engine: Engine, root: Path) -> None:
    await engine.define(msgspec.structs.replace(ORDERS, documents={"path": ""}))
    write(root, home("a"), b"other")
    (root / home("b")).unlink()
    report = await scan(engine, root)
    assert (told(report), report.read) == ({("missing", home("b"), "b")}, 0)


async def test_names_that_are_no_text_are_told_and_not_recorded(engine: Engine, root: Path) -> None:
    (root / "x").mkdir()
    os.rename(root / home("a"), os.fsencode(root) + b"/x/m\xfcll.pdf")
    report = await recorded(engine, root)
    assert (report.recorded, told(report)) == (0, {("moved", home("a"), "a")})
    (found,) = report.findings
    assert found.places == ("x/m\\xfcll.pdf",)
    msgspec.json.encode(report)


async def test_without_a_declaration_nothing_is_looked_at(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "b") as engine:
        with pytest.raises(DocumentsUndeclared):
            await scan(engine, tmp_path / "b")
        with pytest.raises(CollectionUnknown):
            await scan(engine, tmp_path / "b", ["orders"])


@pytest.mark.parametrize("documents", [{"no": "path", "path": "sha256"}, {"size": ""}, {"path": "nothing"}])
async def test_a_declaration_that_makes_no_sense_is_refused(engine: Engine, documents: dict[str, str]) -> None:
    fields = {**ORDERS.fields, "size": Field("int", null=True)}
    with pytest.raises(DefinitionRefused):
        await engine.define(msgspec.structs.replace(ORDERS, fields=fields, documents=documents))


async def test_what_a_definition_declares_reaches_every_replica(engine: Engine, tmp_path: Path) -> None:
    async with refold.open(tmp_path / "b", replica="b") as other:
        await other.sync(engine)
        assert other.schemas["orders"].collection.documents == {"path": "sha256"}
        assert list(await other.define(ORDERS)) == []


class TestCache:
    async def test_entries_of_documents_that_are_gone_are_dropped(self, engine: Engine, root: Path) -> None:
        await scan(engine, root)
        (root / home("a")).unlink()
        await scan(engine, root, ["orders"])
        assert remembered(root) == {home(key) for key in "bcdef"}

    async def test_it_has_a_bound(self, engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "LIMIT", 4)
        assert (await scan(engine, root)).ok
        assert remembered(root) == {home(key) for key in "abcd"}
        assert (await scan(engine, root)).read == 2
        write(root, home("a"), b"a" * 8, OLD + 1)
        assert (await scan(engine, root)).read == 3
        assert (await scan(engine, root)).read == 2

    @pytest.mark.parametrize("data", [None, b"", b"no database" * 1000])
    async def test_it_may_be_lost_or_damaged(self, engine: Engine, root: Path, data: bytes | None) -> None:
        await scan(engine, root)
        for path in root.glob("documents.db*"):
            path.unlink()
        if data is not None:
            (root / "documents.db").write_bytes(data)
        assert (await scan(engine, root)).read == 6
        assert (await scan(engine, root)).read == 0

    async def test_of_another_version_it_is_left_alone(self, engine: Engine, root: Path) -> None:
        connection = sqlite3.connect(root / "documents.db")
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        report = await scan(engine, root)
        assert (report.read, len(report.notes)) == (6, 1)

    async def test_what_was_changed_a_moment_ago_is_read_again(self, engine: Engine, root: Path) -> None:
        (root / home("a")).write_bytes(b"a" * 8)
        assert [(await scan(engine, root)).read for _ in range(2)] == [6, 1]

    async def test_a_clock_that_is_ahead_of_the_file_system_proves_nothing(self, engine: Engine, root: Path) -> None:
        (root / home("a")).write_bytes(b"a" * 8)
        assert [(await scan(engine, root, clock=lambda: 4_000_000_000_000)).read for _ in range(2)] == [6, 1]

    async def test_a_clock_that_is_behind_proves_nothing(self, engine: Engine, root: Path) -> None:
        assert [(await scan(engine, root, clock=lambda: OLD * 1000)).read for _ in range(2)] == [6, 6]

    async def test_pages_are_looked_at_one_after_the_other(
        self, engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(notes, "PAGE", 2)
        for key in "abcd":
            (root / home(key)).unlink()
        write(root, "x/1", b"a" * 8)
        write(root, "x/2", b"stray")
        report = await scan(engine, root)
        assert report.counts == {"document-missing": 3, "document-moved": 1, "document-orphaned": 1}
        assert len(told(report)) == 5


def remembered(root: Path) -> set[str]:
    connection = sqlite3.connect(f"file:{root}/documents.db?mode=ro", uri=True)
    found = {os.fsdecode(path) for (path,) in connection.execute("SELECT path FROM documents")}
    connection.close()
    return found


class TestVerify:
    async def test_rot_is_told_from_change(self, engine: Engine, root: Path) -> None:
        await scan(engine, root)
        (root / home("a")).write_bytes(b"rotten..")
        os.utime(root / home("a"), (OLD, OLD))
        write(root, home("b"), b"changed.", OLD + 1)
        assert told(await scan(engine, root)) == {("changed", home("b"), "b")}
        findings, documents = await verify_documents(engine, root)
        assert documents == 6
        assert {(one.kind, one.key, one.file) for one in findings} == {
            ("document-rot", "a", home("a")),
            ("document-changed", "b", home("b")),
        }
        assert told(await scan(engine, root)) == {("rot", home("a"), "a"), ("changed", home("b"), "b")}
        assert (await recorded(engine, root)).counts == {"document-rot": 1}
        write(root, home("a"), b"a" * 8)
        assert (await verify_documents(engine, root))[0] == []
        assert (await scan(engine, root)).ok

    async def test_orphans_and_what_is_new_harm_nothing(self, engine: Engine, root: Path) -> None:
        write(root, "a/stray", b"")
        await engine.patch("orders", "a", {"sha256": None})
        assert (await verify_documents(engine, root))[0] == []


class TestPrune:
    async def test_references_are_cleared_when_asked_for(self, engine: Engine, root: Path) -> None:
        (root / home("a")).unlink()
        (root / home("b")).rename(root / "a/b.pdf")
        before = engine.position
        report = await cleared(engine, root, write=False)
        assert (report.missing, report.cleared, [one.key for one in report.findings]) == (2, 1, ["a"])
        assert engine.position == before
        report = await cleared(engine, root, write=True)
        assert (report.ok, report.cleared) == (True, 1)
        assert await values(engine, "a") == (None, None)
        assert await values(engine, "b") == (home("b"), digest(b"b" * 8))
        (event,) = [event async for event in engine.events(after=before)]
        assert (event.key, event.actor, event.reason) == ("a", "ann", "gone")
        assert (await cleared(engine, root, write=True)).cleared == 0

    async def test_a_rule_that_wants_a_path_is_kept(self, engine: Engine, root: Path) -> None:
        fields = {"no": Field("str"), "path": Field("str", required=True), "sha256": Field("str")}
        await engine.define(Collection(name="strict", key="no", fields=fields, documents={"path": "sha256"}))
        await engine.put("strict", {"no": "1", "path": "gone", "sha256": ""})
        for writing in (False, True):
            async with scanning(engine, root, ["strict"]) as look:
                report = await clear_missing(look, engine, Wording(), write=writing, force=True)
            assert (report.ok, report.cleared, len(report.refused)) == (False, 0, 1)
            assert "is required" in report.refused[0].detail

    async def test_a_share_that_is_away_clears_nothing(self, engine: Engine, root: Path) -> None:
        for key in "abcd":
            (root / home(key)).unlink()
        before = engine.position
        assert "more than half" in (await scan(engine, root)).notes[0]
        assert (await cleared(engine, root, write=False)).cleared == 4
        with pytest.raises(DocumentsAway):
            await cleared(engine, root, write=True)
        assert engine.position == before
        assert (await cleared(engine, root, write=True, force=True)).cleared == 4

    async def test_a_share_that_goes_away_in_the_middle_clears_nothing(self, engine: Engine, root: Path) -> None:
        (root / home("a")).unlink()
        before = engine.position
        async with scanning(engine, root, ["orders"]) as look:
            (root / "mounted").mkdir()
            look.root = root / "mounted"
            with pytest.raises(DocumentsAway):
                await clear_missing(look, engine, Wording(), write=True)
            look.root = root / "nothing"
            with pytest.raises(DocumentsAway):
                await clear_missing(look, engine, Wording(), write=True)
        assert engine.position == before

    async def test_a_file_that_came_back_is_not_cleared(self, engine: Engine, root: Path) -> None:
        (root / home("a")).unlink()
        async with scanning(engine, root, ["orders"]) as look:
            write(root, home("a"), b"a" * 8)
            report = await clear_missing(look, engine, Wording(), write=True)
        assert report.cleared == 0
        assert await values(engine, "a") == (home("a"), digest(b"a" * 8))

    async def test_what_cannot_be_looked_at_is_not_cleared(
        self, engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stale(self: Below, path: str) -> Any:
            raise StorageFailed(path, "looking", "stale file handle")

        (root / home("a")).unlink()
        async with scanning(engine, root, ["orders"]) as look:
            monkeypatch.setattr(Below, "look", stale)
            with pytest.raises(StorageFailed):
                await clear_missing(look, engine, Wording(), write=True)
        assert await values(engine, "a") == (home("a"), digest(b"a" * 8))


async def test_a_look_that_is_cancelled_lets_go_of_everything(engine: Engine, root: Path) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(what: str, done: int) -> None:
        loop.call_soon_threadsafe(begun.set)

    looking = asyncio.create_task(scan(engine, root, progress=tell))
    await begun.wait()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert (await scan(engine, root)).ok
