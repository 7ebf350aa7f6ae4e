"""Events in, a new archive out: it grows beside its final name and is renamed once it has been proved.

Whoever brings events says how to fill an empty log with them; the log itself refuses an event that does not follow its
replica's one before, or that had seen what is not there. Everything else is folded from that log and verified. So the
new archive is there whole or not at all, and writes under a replica id of its own: two logs that went on under one id
would fork. Its first event under that id records what it was made of: a log tells of every copy that went on from it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

import refold
from refold.decide import Operation, Request
from refold.errors import ArchiveExists, StorageFailed
from refold.events import RESTORES
from refold.fold import format_digest
from refold.opening import system_clock
from refold.ports import Changelog, Clock
from refold.progress import uninterrupted
from refold_adapters.durable import copy_file, make_directory, sync_directory
from refold_adapters.settings import FILE, load_settings
from refold_adapters.sqlite_log import SqliteLog

from .copying import Tell
from .proving import prove_against
from .receipt import Receipt, write_receipt
from .report import RestoreReport

Fill = Callable[[Changelog], None]
"""Brings events into a new and empty log, in a causal order. Blocking, and run in a thread."""


class Making(msgspec.Struct, frozen=True):
    """What is to be made: where, who writes there, and the archive whose refold.toml goes with it, if any.

    `actor` is who brings it back, and `clock` tells Unix milliseconds, for the event that records it. What is made must
    be what the receipt `against` says.
    """

    target: Path
    replica: str
    settings: Path | None = None
    actor: str = ""
    clock: Clock = system_clock
    against: Receipt | None = None


def beside(target: Path) -> Path:
    """Where an archive grows before it has its name."""
    return target.with_name(f".{target.name}.partial")


def discard(place: Path) -> None:
    """Deletes what an earlier attempt left there."""
    if place.exists():
        shutil.rmtree(place)


def _give_up(place: Path, error: BaseException) -> None:
    """Discards what was begun; where the disk refuses that too, the error that was first says so."""
    try:
        discard(place)
    except OSError as refusal:
        error.add_note(f"{place} could not be removed either ({refusal}); the next attempt does it")


def with_failures(path: str, work: Callable[[], None]) -> None:
    """Runs work, and turns what the operating system raises into `StorageFailed`."""
    try:
        work()
    except OSError as error:
        raise StorageFailed(path, "restoring", str(error)) from error


def is_taken(target: Path) -> bool:
    """Whether something stands where a new archive is to be."""
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


def _prepare(making: Making, fill: Fill) -> None:
    """Makes the place where the new archive grows, with its log in it."""
    target, place = making.target, beside(making.target)
    if is_taken(target):
        raise ArchiveExists(str(target))
    discard(place)
    make_directory(place)
    if making.settings is not None and (making.settings / FILE).is_file():
        copy_file(making.settings / FILE, place / FILE)
    log = SqliteLog(place / load_settings(place).changelog, owner=making.replica)
    try:
        fill(log)
    finally:
        log.close()


def _publish(target: Path) -> None:
    """Gives the finished archive its name."""
    place = beside(target)
    sync_directory(place)
    place.rename(target)
    sync_directory(target.parent)


def measure(root: Path, report: RestoreReport) -> None:
    """Notes in the report how large the result is, which stands by then; or why that cannot be said."""
    try:
        for _, _, names, descriptor in os.fwalk(root):
            report.folders += "meta.json" in names
            report.bytes += sum(os.stat(name, dir_fd=descriptor).st_size for name in names)
    except OSError as error:
        report.skipped = [*report.skipped, f"how large it is could not be looked at: {error}"]


async def bring_up(
    root: Path,
    report: RestoreReport,
    tell: Tell,
    *,
    anew: bool = False,
    record: bool = True,
    actor: str = "",
    clock: Clock = system_clock,
) -> None:
    """Folds tables and folders from the log at `root`, verifies, and notes in the report what state that is.

    Where `record`, the log first gets an event that says what it was made of; the report tells the digest before it,
    which is that of the source, and after it. With `anew`, what is derived is folded again even if it looks sound.
    """
    async with refold.open(root, create=False, actor=actor, clock=clock) as engine:
        if anew:
            await engine.rebuild(tell)
        before = await engine.checkpoint()
        report.replica = engine.replica
        report.events = before.position
        report.digest = format_digest(before.digest or 0)
        report.vector = before.vector
        report.heads = {replica: head.hash.hex() for replica, head in before.heads.items()}
        if record:
            await engine.submit([_note(engine.replica, report, actor)])
        await engine.settled()
        report.findings = [*report.findings, *(await engine.verify(tell)).findings]
        after, status = await engine.checkpoint(), await engine.status()
    report.position = after.position
    report.digest_after = format_digest(after.digest or 0)
    report.records = sum(status.collections.values())


def _note(replica: str, report: RestoreReport, actor: str) -> Request:
    """The request of the event that records what a copy was made of."""
    return Request(Operation.NOTE, *RESTORES, {replica: report.note()}, actor)


async def _nothing_more() -> None:
    return None


async def build(
    making: Making,
    fill: Fill,
    report: RestoreReport,
    tell: Tell,
    prove: Callable[[], Awaitable[None]] = _nothing_more,
) -> Path:
    """Makes an archive of the events that `fill` brings, and verifies it; where it stands.

    `prove` looks further, before it has its name: what it adds to the report's findings keeps it from getting one, as
    what the verification finds does. It is then left under its temporary name. Raises `ArchiveExists`, `StorageFailed`,
    and what `fill` and `prove` raise; nothing is left then.
    """
    target, place = making.target, beside(making.target)
    try:
        await asyncio.to_thread(with_failures, str(target), lambda: _prepare(making, fill))
        await bring_up(place, report, tell, actor=making.actor, clock=making.clock)
        await prove()
        if making.against is not None:
            report.findings = [*report.findings, *await prove_against(place, making.against)]
        if report.ok:
            write = partial(write_receipt, place, report, making.clock())
            await asyncio.to_thread(with_failures, str(target), write)
    except BaseException as error:
        await uninterrupted(asyncio.to_thread(_give_up, place, error))
        raise
    if report.ok:
        await asyncio.to_thread(with_failures, str(target), lambda: _publish(target))
    root = target if report.ok else place
    report.path = str(root)
    return root
