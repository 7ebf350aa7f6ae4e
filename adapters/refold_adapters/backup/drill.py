"""A drill: a restore into a place of its own, held against the living archive, timed, and thrown away.

A backup that was never restored is a hope. What is restored has to be the beginning of the living log, by the hashes at
its heads; where nothing was written since, the digest and the counts have to agree; and records are compared value by
value, all of them or every so many. A record that was written since is not compared, and counted as changed: whether it
was, its history says.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

import refold
from refold import Engine, Record
from refold.opening import random_id, system_clock
from refold.progress import uninterrupted
from refold.reader import Status
from refold.verify import Finding
from refold_adapters.recovery.report import RestoreReport
from refold_adapters.recovery.restoring import restore
from refold_adapters.settings import load_settings
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.stopping import Tell, in_thread

from .errors import BackupUnknown
from .reading import AskSecret
from .restoring import restore_backup

SAMPLE = 1000
"""How many records are compared unless more are asked for."""

_FINDINGS = 100


class Drilled(msgspec.Struct, kw_only=True):
    """How a drill went.

    `events`, `records` and `digest` are those that came back; `compared` and `changed` count the records that were held
    against the living ones, and those that were written since. `live` is false where there is no archive to compare
    with. `seconds` says how long each part took.
    """

    origin: str
    source: str
    events: int = 0
    records: int = 0
    bytes: int = 0
    digest: str = ""
    live: bool = False
    newer: int = 0
    compared: int = 0
    changed: int = 0
    seconds: dict[str, float] = {}
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether everything came back as it should."""
        return not self.findings


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried: the archive, where it comes back from, and how many records are compared (None: all)."""

    root: Path
    origin: str
    backup: Path | None = None
    scratch: Path | None = None
    records: int | None = SAMPLE
    secret: AskSecret = lambda: None


async def drill(
    what: Drill,
    *,
    progress: Tell = lambda what, done: None,
    new_id: Callable[[], str] = random_id,
    clock: Callable[[], int] = system_clock,
) -> Drilled:
    """Restores, compares, and removes what was restored, whatever comes of it.

    Raises what restoring raises; what does not agree is among the findings.
    """
    started = time.monotonic()
    place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="refold-drill-", dir=what.scratch))
    try:
        copy = place / "copy"
        report = await _restored(what, copy, progress, new_id, clock)
        done = Drilled(
            origin=what.origin,
            source=what.backup.name if what.backup is not None else str(what.root),
            events=report.events,
            records=report.records,
            bytes=report.bytes,
            digest=report.digest,
            seconds={"restore": report.seconds},
            findings=list(report.findings),
        )
        if report.ok:
            begun = time.monotonic()
            await _compare(what, Path(report.path), report, done, progress)
            done.seconds["compare"] = round(time.monotonic() - begun, 3)
    finally:
        await uninterrupted(asyncio.to_thread(shutil.rmtree, place))
    done.seconds["total"] = round(time.monotonic() - started, 3)
    return done


async def _restored(
    what: Drill, copy: Path, progress: Tell, new_id: Callable[[], str], clock: Callable[[], int]
) -> RestoreReport:
    if what.origin != "backup":
        return await restore(what.root, copy, origin=what.origin, progress=progress, new_id=new_id, clock=clock)
    if what.backup is None:
        raise BackupUnknown("latest", str(what.root))
    return await restore_backup(what.backup, copy, secret=what.secret, progress=progress, new_id=new_id, clock=clock)


async def _compare(what: Drill, copy: Path, report: RestoreReport, done: Drilled, progress: Tell) -> None:
    log = what.root / (await asyncio.to_thread(load_settings, what.root)).changelog
    done.live = await asyncio.to_thread(log.is_file)
    if not done.live:
        return
    done.findings += await in_thread(
        lambda tell: _lineage(log, copy / load_settings(copy).changelog, report.vector), progress
    )
    if done.findings:
        return
    async with (
        refold.open(what.root, create=False, readonly=True) as live,
        refold.open(copy, create=False, readonly=True) as restored,
    ):
        standing, status, counts = await live.checkpoint(), await live.status(), await restored.status()
        done.newer = standing.position - report.events
        if standing.vector == report.vector:
            _totals(await live.digest(), status, counts, report, done)
        await _records(live, restored, report, what.records, done, progress)


def _lineage(live: Path, copy: Path, vector: Mapping[str, int]) -> list[Finding]:
    """Whether the events that came back are the beginning of the living log."""
    found = []
    with closing(SqliteLog(live, readonly=True)) as old, closing(SqliteLog(copy, readonly=True)) as new:
        for replica, seq in sorted(vector.items()):
            there = old.at(old.positions([(replica, seq)]))
            back = new.at(new.positions([(replica, seq)]))
            if not there:
                why = f"seq {seq} came back, and the living log does not hold it"
                found.append(Finding("log-cut", why, replica=replica, seq=seq))
            elif not back or there[0].hash != back[0].hash:
                why = f"the living log has another event as seq {seq}"
                found.append(Finding("log-chain", why, replica=replica, seq=seq))
    return found


def _totals(digest: str, live: Status, restored: Status, report: RestoreReport, done: Drilled) -> None:
    if digest != report.digest:
        done.findings.append(Finding("digest-differs", f"the living state has digest {digest}, not {report.digest}"))
    for name, count in live.collections.items():
        if restored.collections.get(name, 0) != count:
            detail = f"{restored.collections.get(name, 0)} records came back, {count} live"
            done.findings.append(Finding("count-differs", detail, collection=name))


async def _records(
    live: Engine, restored: Engine, report: RestoreReport, limit: int | None, done: Drilled, progress: Tell
) -> None:
    """Compares every so many of the records that came back."""
    step = 1 if limit is None else max(1, -(-report.records // max(1, limit)))
    seen = 0
    for name, schema in restored.schemas.items():
        key = schema.collection.key
        async for record in restored.find(name):
            seen += 1
            if seen % step or limit == 0:
                continue
            alive = await live.get(name, record.values[key]) if name in live.schemas else None
            if alive == record:
                done.compared += 1
            elif await _is_newer(live, restored, record, report.vector):
                done.changed += 1
            else:
                done.compared += 1
                why = "the living record is not there" if alive is None else "the living record is another"
                done.findings.append(Finding("record-differs", why, collection=name, key=record.key))
                if len(done.findings) >= _FINDINGS:
                    return
            progress("records", done.compared + done.changed)


async def _is_newer(live: Engine, restored: Engine, record: Record, vector: Mapping[str, int]) -> bool:
    """Whether the living record, or the definition of its collection, was written after what came back."""
    name = record.collection
    if name not in live.schemas or live.schemas[name].collection != restored.schemas[name].collection:
        return True
    key = record.values[live.schemas[name].collection.key]
    async for event in live.history(name, key):
        if event.seq > vector.get(event.replica, 0):
            return True
    return False
