"""Adoption: an archive of an older tool becomes a refold archive where it stands.

First everything is looked at, and of the rows with one key it is decided which holds. That is the report; without
`write` nothing else happens. With it, what cannot be taken is put into the quarantine, byte for byte, and made durable;
then the rows become events, oldest first, each of the time when its row was last changed. A row that loses to another
becomes an event that nobody had seen, so it stands in the conflict list and in the history. Last the folders are
written as replicas, in which a reader of the older format finds its columns and its entries of meta.json.

Every row is written under a request id made of its values, so that adopting again, also after a crash in the middle,
writes what is new and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import refold
from refold import Engine, Event
from refold.clock import to_millis
from refold.decide import Apart, Operation, Repeat, Request, settled_values
from refold.errors import FieldUnknown, InputRefused, StorageFailed, ValueRefused
from refold.opening import system_clock
from refold.schema import Schema, evolve, to_data
from refold_adapters.documents.paths import shown
from refold_adapters.folders import FolderReplicas
from refold_adapters.folders.disk import QUARANTINE

from .candidates import Candidate, Finding, choose, differing
from .layout import Described
from .quarantine import Quarantine
from .scratch import Scratch
from .survey import Looked, Survey

Tell = Callable[[str, int], None]

LISTED = 100_000
"""Findings that are kept to be listed; further ones are counted."""

_PAGE = 1000
_NEVER = 1e6


class AdoptReport(msgspec.Struct, kw_only=True):
    """What an old archive holds and what was made of it.

    `folders` were read, `live` of them are refold's own already; `rows` and `table_rows` are good ones; `records` is
    how many keys there are, `losing` how many rows lose to another with other values. `written` counts events,
    `unchanged` rows that were known, `refused` rows that the archive's rules do not allow. `counts` has findings by
    kind, `unlisted` those beyond the list. `quarantined` folders and rows of the table were put aside, `released` ones
    taken out again.
    """

    path: str
    collection: str
    write: bool
    folders: int = 0
    live: int = 0
    rows: int = 0
    table_rows: int = 0
    records: int = 0
    losing: int = 0
    written: int = 0
    unchanged: int = 0
    refused: int = 0
    quarantined: int = 0
    released: int = 0
    left_out: int = 0
    digest: str = ""
    seconds: float = 0.0
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    unlisted: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out and not self.refused

    def take(self, findings: Sequence[Finding]) -> None:
        """Takes in what was found."""
        for finding in findings:
            self.counts[finding.kind] = self.counts.get(finding.kind, 0) + 1
            self.left_out += finding.left_out
            if len(self.findings) < LISTED:
                self.findings.append(finding)
            else:
                self.unlisted += 1


class _Adoption:
    def __init__(self, root: Path, described: Described, report: AdoptReport, now: int, tell: Tell) -> None:
        self.root = root
        self.described = described
        self.report = report
        self.now = now
        self.tell = tell
        self.quarantine = Quarantine(root, described.layout)
        self.oldest = now
        self.by_time = True
        self.lost: set[str] = set()

    def look(self, scratch: Scratch, *, documents: bool) -> None:
        """Reads everything, and decides which rows hold."""
        survey = Survey(self.root, self.described, documents=documents)
        report = self.report
        for looked in survey.folders():
            report.folders += 1
            report.live += looked.is_live
            report.rows += len(looked.rows)
            report.take(looked.findings)
            scratch.add(looked.rows)
            if report.write:
                self._put_aside(looked)
                if looked.hash is not None and looked.folder == shown(looked.folder):
                    scratch.account(looked.folder, looked.hash)
            if report.folders % 100 == 0:
                self.tell("folders", report.folders)
        for page in survey.table(lambda number: self.tell("table", number)):
            report.table_rows += len(page.rows)
            scratch.add(page.rows)
            for left in page.left:
                report.take(left.findings)
                if report.write:
                    self.quarantine.put_row(left.key, left.data, left.findings)
                    report.quarantined += 1
        if report.write:
            self.quarantine.remember(self.described.text)
            self.quarantine.sync()
        self._choose(scratch)

    def look_again(self, scratch: Scratch, as_they_are: Collection[str]) -> list[str]:
        """Reads the quarantine; the folders in it that were corrected and of which nothing has to stay."""
        report = self.report
        good: list[str] = []
        if not self.quarantine.root.is_dir():
            return good
        for looked in Survey(self.root, self.described, documents=False, below=QUARANTINE).folders():
            if looked.folder not in as_they_are and not self.quarantine.is_corrected(looked.folder):
                continue
            report.folders += 1
            report.take(looked.findings)
            if any(finding.left_out for finding in looked.findings):
                continue
            report.rows += len(looked.rows)
            scratch.add(looked.rows)
            good.append(looked.folder)
        self._choose(scratch)
        return good

    def release(self, folders: Sequence[str]) -> None:
        """Takes folders out of the quarantine, once their rows are durable, unless a row was refused."""
        for folder in folders if not self.report.refused else ():
            self.quarantine.release(folder)
            self.report.released += 1

    def _put_aside(self, looked: Looked) -> None:
        if any(finding.left_out and finding.kind != "link" for finding in looked.findings):
            self.quarantine.put(looked.folder, looked.findings)
            self.report.quarantined += 1

    def _choose(self, scratch: Scratch) -> None:
        report = self.report
        has_table, has_folders = report.table_rows > 0, report.live == 0 and report.folders > 0
        page: list[tuple[Candidate, bool]] = []
        for candidates in scratch.by_key():
            choice = choose(candidates, has_table=has_table, has_folders=has_folders)
            report.records += 1
            report.losing += len(choice.losing)
            report.take(choice.findings)
            page += [(row, False) for row in choice.losing]
            page.append((choice.holds, True))
            if len(page) >= _PAGE:
                self._note(scratch, page)
                page = []
        self._note(scratch, page)

    def _note(self, scratch: Scratch, page: list[tuple[Candidate, bool]]) -> None:
        for row, _ in page:
            if row.updated > self.now:
                detail = f"{row.place} was changed in the future, by the clock of this machine; it is dated now"
                self.report.take([Finding("time-unknown", detail, folder=row.folder, key=row.key)])
                row.updated = 0
            elif row.updated:
                self.oldest = min(self.oldest, row.updated)
        scratch.choose(page)

    async def write(self, engine: Engine, scratch: Scratch, actor: str, reason: str | None) -> None:
        """Makes events of the rows that are not known yet."""
        await self._account(engine, scratch)
        collection = self.described.collection
        meta = {"reason": reason} if reason is not None else {}
        known = engine.schemas.get(collection.name)
        wanted = evolve(known.collection, collection, known.apart) if known is not None else evolve(None, collection)
        define = Request(Operation.DEFINE, collection.name, "", to_data(wanted), actor, meta, at=self.oldest)
        await engine.submit([define])
        pages = scratch.in_time(_PAGE)
        while page := await asyncio.to_thread(next, pages, None):
            for part in _without_repeats(page):
                await self._write_page(engine, part, actor, meta)
            self.tell("records", self.report.written + self.report.unchanged)

    async def _account(self, engine: Engine, scratch: Scratch) -> None:
        """Tells the folders which data files may be written over, as their bytes are in the log or put aside."""
        pages = scratch.accounted(_PAGE)
        while page := await asyncio.to_thread(next, pages, None):
            await engine.projected(FolderReplicas.name, partial(FolderReplicas.account, files=page))

    def time_of(self, row: Candidate, *, holds: bool) -> int | None:
        """Of when a row's event is (Unix milliseconds); None for now."""
        if not self.by_time:
            return None
        return row.updated or (None if holds else self.oldest)

    def _current(self, row: Candidate, schema: Schema) -> dict[str, Any] | None:
        """A row's values as the collection's schema version has them, which may have gone on since the layout was made;
        None for a row that cannot be read so."""
        if schema.version == self.described.schema.version:
            return row.values
        try:
            return schema.store_as(row.values, self.described.schema.version)
        except (ValueRefused, FieldUnknown) as error:
            self.report.refused += 1
            self.report.take([Finding("value-refused", str(error), folder=row.folder, key=row.key, left_out=True)])
            return None

    async def _write_page(
        self, engine: Engine, page: list[tuple[Candidate, bool]], actor: str, meta: dict[str, str]
    ) -> None:
        name = self.described.collection.name
        states = await engine.states([(name, row.key) for row, _ in page])
        requests: list[Request] = []
        losing = {row.request_id for row, holds in page if not holds}
        known = await engine.written([row.request_id for row, _ in page])
        for row, _ in page:
            state = states.get((name, row.key))
            if row.request_id in known:
                self.report.unchanged += 1
                continue
            values = self._current(row, engine.schemas[name])
            if values is None:
                continue
            is_apart = row.key in self.lost or (row.request_id in losing and state is None)
            if state is not None and not is_apart:
                shown, present = settled_values(state, (name, row.key), engine.schemas[name], lambda record: ())
                newest = to_millis(max(write.time for write in state.writes))
                if present and not differing(values, shown):
                    self.report.unchanged += 1
                    continue
                if self.by_time and row.updated <= newest:
                    detail = f"{row.place} is older than the record, which was changed since; it is not written"
                    self.report.take([Finding("older", detail, folder=row.folder, key=row.key, left_out=True)])
                    continue
            told = {**meta, **({"folder": row.folder} if row.folder is not None else {})}
            requests.append(
                Request(
                    Operation.PUT,
                    name,
                    row.key,
                    values,
                    actor,
                    told,
                    request_id=row.request_id,
                    seen={} if is_apart else None,
                    at=self.time_of(row, holds=row.request_id not in losing),
                )
            )
        for request, answer in zip(requests, await engine.answers(Apart(requests)) if requests else [], strict=True):
            if isinstance(answer, Event):
                self.report.written += 1
                if request.request_id in losing:
                    self.lost.add(request.key)
            elif isinstance(answer, Repeat) or answer is None:
                self.report.unchanged += 1
            elif isinstance(answer, StorageFailed):
                raise answer
            else:
                self.report.refused += 1
                self.report.take([Finding("value-refused", str(answer), key=request.key, left_out=True)])


def _without_repeats(page: list[tuple[Candidate, bool]]) -> Iterator[list[tuple[Candidate, bool]]]:
    """The page in pieces with no key twice: what is written together would be taken to know of each other."""
    keys: set[str] = set()
    start = 0
    for index, (row, _) in enumerate(page):
        if row.key in keys:
            yield page[start:index]
            keys, start = set(), index
        keys.add(row.key)
    yield page[start:]


async def adopt_quarantined(
    root: Path,
    described: Described,
    *,
    as_they_are: Collection[str] = (),
    actor: str = "adopt",
    reason: str | None = None,
    clock: Callable[[], int] = system_clock,
) -> AdoptReport:
    """Takes in what stands in the quarantine of `root` and has been corrected; the rest stays there.

    The meta.json there is not asked: whoever corrects a row vouches for it, as of now, and so does who names a folder
    that is to be taken in as it is. Raises as `adopt` does.
    """
    started = time.monotonic()
    report = AdoptReport(path=str(root), collection=described.collection.name, write=True)
    doing = _Adoption(root, described, report, clock(), lambda what, done: None)
    doing.by_time = False
    async with refold.open(root, actor=actor, clock=clock, quiet=_NEVER, create=False) as engine:
        scratch = await asyncio.to_thread(Scratch)
        try:
            released = await asyncio.to_thread(doing.look_again, scratch, as_they_are)
            await doing.write(engine, scratch, actor, reason)
            await engine.settled()
            await asyncio.to_thread(doing.release, released)
            report.digest = await engine.digest()
        finally:
            await asyncio.to_thread(scratch.close)
    report.seconds = round(time.monotonic() - started, 3)
    return report


async def adopt(
    root: Path,
    described: Described,
    *,
    write: bool = False,
    documents: bool = True,
    actor: str = "adopt",
    reason: str | None = None,
    progress: Tell = lambda what, done: None,
    clock: Callable[[], int] = system_clock,
) -> AdoptReport:
    """Looks the old archive under `root` over, and with `write` makes it a refold archive.

    Without `documents` the files that rows point to are not read. Raises `InputRefused` where there is nothing of that
    layout, `Locked`, `DefinitionRefused`, `StorageFailed`.
    """
    started = time.monotonic()
    report = AdoptReport(path=str(root), collection=described.collection.name, write=write)
    doing = _Adoption(root, described, report, clock(), progress)
    if not await asyncio.to_thread(root.is_dir):
        raise InputRefused(str(root), "it is no directory")
    scratch = await asyncio.to_thread(Scratch)
    try:
        if write:
            async with refold.open(root, actor=actor, clock=clock, quiet=_NEVER) as engine:
                await asyncio.to_thread(doing.look, scratch, documents=documents)
                _refuse_nothing(report)
                await doing.write(engine, scratch, actor, reason)
                await engine.settled()
                report.digest = await engine.digest()
        else:
            await asyncio.to_thread(doing.look, scratch, documents=documents)
            _refuse_nothing(report)
    finally:
        await asyncio.to_thread(scratch.close)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _refuse_nothing(report: AdoptReport) -> None:
    if not report.folders and not report.table_rows:
        raise InputRefused(report.path, "no folder in it has a data file of this layout, and there is no such table")
