"""The users' own files: taken along once, left to the parents when unchanged, and back where they were."""

from __future__ import annotations

import asyncio
import os
import zipfile
from pathlib import Path

import pytest

from refold_adapters import backup as store
from refold_adapters.backup import Document, Known

from .world import SECRET, World

pytestmark = pytest.mark.anyio


def put(world: World, path: str, data: bytes) -> None:
    """Writes a document, as nobody did before this second."""
    file = world.archive / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    put.clock += 1_000_000_000  # type: ignore[attr-defined]
    os.utime(file, ns=(put.clock, put.clock))  # type: ignore[attr-defined]


put.clock = 1_700_000_000_000_000_000  # type: ignore[attr-defined]


def listed(world: World, known: Known, secret: store.Secret | None = None) -> list[Document]:
    with store.BackupFile(world.path(known), lambda: secret) as found:
        return list(store.documents_of(found))


def documents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Those below a root, by path, with their time of change."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.suffix in {".pdf", ".txt"} and path.is_file()
    }


async def begun(world: World) -> None:
    await world.write(0, 10)
    put(world, "p1/Order.pdf", b"%PDF" * 1000)
    put(world, "p1/deep/Ümlaut.pdf", b"x")
    put(world, "p2/empty.txt", b"")
    put(world, "p1.txt", b"beside")


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "encrypted"])
async def test_documents_come_back_from_a_chain(world: World, secret: store.Secret | None) -> None:
    await begun(world)
    first = await world.create(documents=True, secret=secret)
    put(world, "p1/Order.pdf", b"%PDF changed")
    put(world, "p3/new.pdf", b"new")
    (world.archive / "p2/empty.txt").unlink()
    second = await world.create(documents=True, incremental=True, secret=secret)
    third = await world.create(documents=True, incremental=True, secret=secret)
    assert [known.documents for known in (first, second, third)] == [4, 4, 4]
    held = {document.path: document.backup for document in await asyncio.to_thread(listed, world, third, secret)}
    assert held == {
        "p1/Order.pdf": second.id,
        "p1/deep/Ümlaut.pdf": first.id,
        "p1.txt": first.id,
        "p3/new.pdf": second.id,
    }
    report = await world.restore(third, secret=secret)
    assert (report.ok, report.skipped) == (True, [])
    assert documents(world.root / "b") == documents(world.archive)
    assert (await world.verify(secret)).findings == []
    assert (await world.restore(first, "c", secret)).ok
    assert set(documents(world.root / "c")) == {"p1/Order.pdf", "p1/deep/Ümlaut.pdf", "p2/empty.txt", "p1.txt"}


async def test_what_is_refolds_own_stays_out_and_what_is_not_stays_in(world: World) -> None:
    await begun(world)
    put(world, "mine/data.csv", b"1,2")
    put(world, "mine/changelog.db", b"not a log")
    known = await world.create(documents=True)
    with zipfile.ZipFile(world.path(known)) as found:
        names = {name.removeprefix("documents/") for name in found.namelist() if name.startswith("documents/")}
    expected = {"p1/Order.pdf", "p1/deep/Ümlaut.pdf", "p2/empty.txt", "p1.txt", "mine/data.csv", "mine/changelog.db"}
    assert names == expected
    assert (await world.create()).documents is None


async def test_what_cannot_be_taken_is_said(world: World, tmp_path: Path) -> None:
    await begun(world)
    (tmp_path / "secret.txt").write_text("outside")
    (world.archive / "p1/link.txt").symlink_to(tmp_path / "secret.txt")
    (world.archive / "linked").symlink_to(tmp_path)
    os.mkfifo(world.archive / "p1/pipe.txt")
    put(world, "p1/back\\slash.txt", b"x")
    known = await world.create(documents=True)
    assert known.documents == 4
    assert world.notes and all(
        any(name in note for note in world.notes) for name in ("link.txt", "linked", "pipe.txt", "back\\")
    )
    assert b"outside" not in b"".join(data for data, _ in documents(world.root / "a").values() if data != b"outside")


async def test_a_document_that_a_parent_has_lost_is_a_finding(world: World) -> None:
    await begun(world)
    first = await world.create(documents=True)
    second = await world.create(documents=True, incremental=True)
    world.path(first).unlink()
    assert [finding.kind for finding in (await world.verify()).findings] == ["backup-parent"]
    with pytest.raises(store.ParentMissing):
        await world.restore(second)
