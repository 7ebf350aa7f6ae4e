"""What is done while the disk fails: each operation of refold is one entry of `CASES`.

Every case begins with the same place: an archive whose writer died (its log and tables have a WAL), another that has
events of its own, a share, and a file of records. It says what it attempts and what was acknowledged; the judge holds
it to that.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

import refold
from refold.engine import Engine
from refold_adapters.backup import Order, Policy, create, prune, read_history, restore_backup
from refold_adapters.hand_edits import adopt_edits
from refold_adapters.importing import Plan, import_file
from refold_adapters.recovery import recover, restore
from refold_adapters.wording import Wording
from tests.crash.work import PARTS, THINGS

from .shim import Shim

NOW = 4_000_000_000_000
"""When backups are made, in Unix milliseconds: after all that is in them."""

MOVED = "things/base-1"
"""The record that moves from one folder to another."""

PLACES = ["north", "south/one", "south/two", "west"]


class Report:
    """What a process says: one line an attempt or acknowledgement, in the kernel's hands and in the trace at once."""

    def __init__(self, path: Path, shim: Shim | None = None) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._shim = shim

    def attempt(self, *names: str) -> None:
        for name in names:
            self.say(f"? {name}")

    def done(self, *names: str) -> None:
        for name in names:
            self.say(f"! {name}")

    def say(self, line: str) -> None:
        os.write(self._descriptor, line.encode() + b"\n")
        if self._shim is not None:
            self._shim.mark(line)


def thing(key: str, place: str = "north", n: int = 1) -> dict[str, str | int]:
    return {"id": key, "place": place, "n": n}


async def _fill(engine: Engine, name: str) -> None:
    for n in range(9):
        await engine.put("things", thing(f"{name}-{n}", PLACES[n % 4], n))
    await engine.put("parts", {"no": ord(name[0]), "place": "north", "n": 1})


async def _prepare(place: Path) -> None:
    (place / "share").mkdir()
    rows = "".join(f"row-{n},{PLACES[n % 4]},{n}\n" for n in range(30))
    (place / "records.csv").write_text(f"id,place,n\n{rows}")
    async with refold.open(place / "archive", replica="office") as engine:
        await engine.define(THINGS)
        await engine.define(PARTS)
        await _fill(engine, "base")
        async with refold.open(place / "other", replica="depot") as other:
            await other.sync(engine)
            await _fill(other, "other")
            await other.sync(f"dir://{place / 'share'}")
        await engine.settled()
    async with refold.open(place / "archive") as engine:
        await engine.put("things", thing("late", "south/one"))
        await engine.settled()
        await asyncio.to_thread(shutil.copytree, place / "archive", place / "left", ignore=_lasting)
    await asyncio.to_thread(_backup, place, "kept", incremental=False)
    for number in range(4):
        await asyncio.to_thread(_backup, place, "many", incremental=bool(number % 2), number=number)
    await asyncio.to_thread(shutil.rmtree, place / "archive")
    (place / "left").rename(place / "archive")


def _lasting(_place: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith("-shm")]


def prepare(place: Path) -> None:
    """Makes what every case begins with."""
    place.mkdir()
    asyncio.run(_prepare(place))


async def _put(place: Path, report: Report) -> None:
    async with refold.open(place / "archive") as engine:
        for n in range(3):
            report.attempt(f"things/new-{n}")
            await engine.put("things", thing(f"new-{n}", f"fresh/{n}" if n else "north"))
            report.done(f"things/new-{n}")
        names = [f"things/group-{n}" for n in range(4)]
        report.attempt(*names)
        async with engine.batch() as batch:
            for name in names:
                batch.put("things", thing(name.partition("/")[2], "west"))
        report.done(*names)
        await engine.settled()
        report.attempt("moved")
        await engine.patch("things", MOVED.partition("/")[2], {"place": "west"}, meta={"op": "moved"})
        report.done("moved")
        report.attempt("gone")
        record = await engine.get("things", "base-2")
        if record is not None and not record.deleted:
            await engine.delete("things", "base-2", meta={"op": "gone"})
        report.done("gone")
    async with refold.open(place / "archive") as engine:
        report.attempt("things/last")
        await engine.put("things", thing("last"))
        report.done("things/last")


async def _create(place: Path, report: Report) -> None:
    async with refold.open(place / "made" / "archive") as engine:
        await engine.define(THINGS)
        for n in range(3):
            report.attempt(f"things/new-{n}")
            await engine.put("things", thing(f"new-{n}"))
            report.done(f"things/new-{n}")


async def _import(place: Path, report: Report) -> None:
    names = [f"things/row-{n}" for n in range(30)]
    async with refold.open(place / "archive") as engine:
        report.attempt(*names)
        await import_file(engine, "things", Plan(path=place / "records.csv", batch=10), Wording())
        report.done(*names)


def _syncing(peer: Callable[[Path], str], quiet: float = 0) -> Callable[[Path, Report], Coroutine[Any, Any, None]]:
    async def act(place: Path, report: Report) -> None:
        async with refold.open(place / "archive", quiet=quiet) as engine:
            report.attempt("sync")
            await engine.sync(peer(place))
            report.done("sync")

    return act


async def _rebuild(place: Path, report: Report) -> None:
    async with refold.open(place / "archive") as engine:
        await engine.rebuild()
        report.attempt("things/after")
        await engine.put("things", thing("after"))
        report.done("things/after")


async def _read(place: Path, report: Report) -> None:
    async with refold.open(place / "archive", readonly=True) as reader:
        report.say(f"= {[record.key async for record in reader.find('things')]}")
        report.say(f"= {[event.position async for event in reader.events()]}")
        report.say(f"= {(await reader.verify()).findings}")


def _restoring(target: str | None, origin: str) -> Callable[[Path, Report], Coroutine[Any, Any, None]]:
    async def act(place: Path, report: Report) -> None:
        report.attempt("restore")
        done = await restore(place / "archive", None if target is None else place / target, origin=origin)
        if done.ok:
            report.done("restore")
        for finding in done.findings:
            report.say(f"f {finding.kind}: {finding.detail}")

    return act


def _backup(place: Path, name: str, *, incremental: bool, number: int = 0) -> None:
    order = Order(incremental=incremental)
    now = NOW + (number or incremental)
    create(place / "archive", place / name, order, now=now, salt=bytes(16), tell=lambda what, done: None)


async def _back_up(place: Path, report: Report) -> None:
    for incremental in (False, True):
        report.attempt("backup")
        await asyncio.to_thread(_backup, place, "backups", incremental=incremental)
        report.done("backup")


async def _restore_backup(place: Path, report: Report) -> None:
    report.attempt("restore")
    history = await asyncio.to_thread(read_history, place / "kept", lambda: None)
    done = await restore_backup(place / "kept" / history.backups[0].file, place / "restored")
    if done.ok:
        report.done("restore")


async def _prune(place: Path, report: Report) -> None:
    report.attempt("prune")
    policy = Policy(last=1)
    await asyncio.to_thread(
        prune, place / "many", policy, dry_run=False, now=NOW, secret=lambda: None, tell=lambda what, done: None
    )
    report.done("prune")


EDITED = {
    "north/here/data.things.csv": ("base-0,north,,0", "base-0,north,,77"),
    "west/here/data.csv": ("", "by-hand,west,,5\n"),
}
"""What somebody edits: a cell of one file, and a row more in another."""


def edit(archive: Path) -> None:
    """Edits two data files by hand."""
    for name, (old, new) in EDITED.items():
        text = (archive / name).read_text()
        changed = text.replace(old, new) if old else text + new
        if changed == text:
            raise AssertionError(f"nothing to edit in {name}: {text}")
        (archive / name).write_text(changed)


async def _adopt_edits(place: Path, report: Report) -> None:
    async with refold.open(place / "archive") as engine:
        report.attempt("things/by-hand")
        await adopt_edits(engine, actor="ann")
        report.done("things/by-hand")


async def _recover(place: Path, report: Report) -> None:
    report.attempt("restore")
    done = await recover([str(place / "archive"), str(place / "share")], place / "restored")
    if done.published:
        report.done("restore")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """An operation: what it does, the archives that it may change, and the one that it makes.

    `makes` is there whole or not at all, unless `grows`. `refusals` are codes with which an archive may refuse to be
    opened until the operation is done again. `copies` says that what is made has the events of the archive, `loses`
    that the log is gone before, `same` that events keep their positions, `speaks` that it acknowledges something,
    `shares` that it writes to the share, `backs` that it makes backups, `prunes` that it removes some, `edits` that
    files were edited by hand before.
    """

    name: str
    act: Callable[[Path, Report], Coroutine[Any, Any, None]]
    archives: tuple[str, ...] = ("archive",)
    makes: str = ""
    grows: bool = False
    copies: bool = False
    loses: bool = False
    refusals: frozenset[str] = frozenset()
    same: bool = True
    speaks: bool = True
    shares: bool = False
    backs: bool = False
    prunes: bool = False
    edits: bool = False


CASES = {
    case.name: case
    for case in (
        Case(name="put", act=_put),
        Case(name="create", act=_create, archives=(), makes="made/archive", grows=True),
        Case(name="import", act=_import),
        Case(name="sync", act=_syncing(lambda place: str(place / "other")), archives=("archive", "other")),
        Case(name="share", act=_syncing(lambda place: f"dir://{place / 'share'}", quiet=60), shares=True),
        Case(name="rebuild", act=_rebuild),
        Case(name="read", act=_read, speaks=False),
        Case(name="restore", act=_restoring("restored", "log"), makes="restored", copies=True),
        Case(name="restore-folders", act=_restoring("restored", "folders"), makes="restored", copies=True),
        Case(name="restore-backup", act=_restore_backup, makes="restored", copies=True),
        Case(name="recover", act=_recover, makes="restored", copies=True),
        Case(name="backup", act=_back_up, backs=True),
        Case(name="prune", act=_prune, prunes=True),
        Case(name="edits", act=_adopt_edits, edits=True),
        Case(name="in-place", act=_restoring(None, "log")),
        Case(
            name="in-place-folders",
            act=_restoring(None, "folders"),
            same=False,
            refusals=frozenset({"log-corrupt"}),
        ),
        Case(
            name="lost-log",
            act=_restoring(None, "folders"),
            same=False,
            loses=True,
            refusals=frozenset({"log-corrupt"}),
        ),
    )
}
