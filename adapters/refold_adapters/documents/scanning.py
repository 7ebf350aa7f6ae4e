"""One look at all documents: what records say of them against what stands there, reading only what may have changed.

Records, the files of the archive and the cache are noted as they come, set against each other by path, and judged one
document at a time; nothing is held in memory but a page of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from refold.batch import schema_for
from refold.opening import system_clock
from refold.reader import Reader
from refold.schema import Schema
from refold_adapters.sqlite_connection import failures
from refold_adapters.stopping import Tell, in_thread

from .cache import Cache, Known
from .errors import DocumentsAway, DocumentsUndeclared
from .findings import DocumentFinding, Standing, finding
from .notes import Document, Notes
from .paths import Absent, Below, Stat, shown
from .walking import walk

LISTED = 10_000
"""Findings that are listed; further ones are counted."""


class ScanReport(msgspec.Struct, kw_only=True):
    """What a look at the documents found.

    `documents` are the paths that records point to, `files` all files that may be documents, `read` those that had to
    be read, with their `bytes`; `recorded` counts the findings that were written into the log. `counts` has the
    findings that are left by kind, `unlisted` is how many are not in `findings`.
    """

    collections: list[str]
    documents: int = 0
    files: int = 0
    read: int = 0
    bytes: int = 0
    recorded: int = 0
    counts: dict[str, int] = {}
    findings: list[DocumentFinding] = []
    unlisted: int = 0
    notes: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether nothing is left to tell."""
        return not self.counts


class Scan:
    """A look at the documents of an open archive, and the notes of it while it is open. Made by `scanning`."""

    def __init__(self, engine: Reader, root: Path, chosen: Sequence[str], *, full: bool, tell: Tell) -> None:
        declared = {name for name, schema in engine.schemas.items() if schema.collection.documents}
        lacking = [name for name in chosen if not schema_for(engine.schemas, name).collection.documents]
        if lacking or not declared:
            raise DocumentsUndeclared(lacking or sorted(engine.schemas))
        self.engine = engine
        self.root = root
        self.chosen = set(chosen) or declared
        self.report = ScanReport(collections=sorted(self.chosen))
        self._all = not chosen
        self._declared = sorted(declared)
        self._full = full
        self._tell = tell
        self._whole = True

    def open(self, now: int) -> None:
        """Begins, at a time by our clock (Unix milliseconds)."""
        with failures(self.root, "opening the folders"):
            self.below = Below(self.root)
        try:
            self._cache = Cache(self.root, now * 1_000_000)
            self.notes = Notes(self._cache)
        except BaseException:
            self.below.close()
            raise
        self.report.notes = [self._cache.note] if self._cache.note else []

    def close(self) -> None:
        """Lets go of notes, cache and folders."""
        try:
            self._cache.close()
        finally:
            self.below.close()

    async def run(self) -> None:
        """Looks at everything; raises `DocumentsAway` when the archive's directory becomes another meanwhile."""
        for name in self._declared:
            await self._point(self.engine.schemas[name])
        await in_thread(self._walk, self._tell)
        await in_thread(self._examine, self._tell)
        await in_thread(self._find_lost, self._tell)
        await asyncio.to_thread(self.must_be_there)

    async def _point(self, schema: Schema) -> None:
        declared = schema.collection.documents
        names = list(dict.fromkeys(name for pair in declared.items() for name in pair if name))
        at = {name: index for index, name in enumerate(names, 1)}
        told = [(path, at[path], at[hashed] if hashed else 0) for path, hashed in declared.items()]
        asked = schema.name in self.chosen
        async for page in self.engine.fields(schema.name, names):
            rows = [
                (os.fsencode(row[path]), schema.name, row[0], field, _hash_of(row[hashed]) if hashed else None, asked)
                for row in page
                for field, path, hashed in told
                if row[path] and isinstance(row[path], str)
            ]
            await asyncio.to_thread(self.notes.point, rows)

    def _walk(self, tell: Tell) -> None:
        files = 0
        for page in walk(self.root):
            for odd in self.notes.see(page):
                self._whole = False
                told = DocumentFinding("document-unreadable", os.fsdecode(odd.path), odd.detail)
                if self._all:
                    self.notes.trouble([(told, odd.path, "")])
            files += len(page.files)
            tell("files", files)

    def _examine(self, tell: Tell) -> None:
        self.report.documents, self.report.files = self.notes.meet(full=self._full)
        done = 0
        for page in self.notes.documents():
            troubles: list[tuple[DocumentFinding, bytes, str]] = []
            read: list[tuple[bytes, Known]] = []
            for document in page:
                standing, fresh = self._standing(document, partial(tell, "documents", done))
                read += [(document.path, fresh)] if fresh is not None else []
                for pointer in document.pointers:
                    found = finding(pointer, document.text, standing)
                    troubles += [(found, document.path, pointer.hash or "")] if found is not None else []
                done += 1
            self.notes.trouble(troubles)
            self._remember(read)
            tell("documents", done)

    def _remember(self, read: list[tuple[bytes, Known]]) -> None:
        self.report.read += len(read)
        self.report.bytes += sum(known.stat.size for _, known in read)
        if read:
            self._cache.save(read)

    def _standing(self, document: Document, tell: Callable[[], None]) -> tuple[Standing, Known | None]:
        """How a document stands, and what is to be remembered when it was read for that."""
        known = document.known
        try:
            stat = document.stat
            if stat is None:
                stat = self.below.look(document.text)
                self.notes.add(document.path, stat)
            if not any(pointer.is_hashed for pointer in document.pointers):
                return Standing(), None
            if known is not None and not self._full and known.holds(stat):
                return Standing(known.hash, known.rot), None
            stat, digest = self.below.hash(document.text, tell)
        except Absent as absent:
            return Standing(absent=absent.kind, detail=absent.detail), None
        return self._read(stat, digest, known)

    def _read(self, stat: Stat, digest: str, known: Known | None) -> tuple[Standing, Known]:
        if known is not None and known.hash != digest and known.seems(stat):
            return Standing(known.hash, digest), Known(stat, self._cache.began, known.hash, digest)
        return Standing(digest), Known(stat, self._cache.began, digest)

    def _find_lost(self, tell: Tell) -> None:
        """Looks for what is missing among the files to which no record points."""
        if self.notes.has_lost():
            sizes = self.notes.lost_sizes()
            done = 0
            for page in self.notes.strangers():
                read: list[tuple[bytes, Known]] = []
                hashes: list[tuple[bytes, str]] = []
                for document in page:
                    tell("search", done := done + 1)
                    digest = self._stranger(document, sizes, read, partial(tell, "search", done))
                    hashes += [(document.path, digest)] if digest is not None else []
                self.notes.place(hashes)
                self._remember(read)
        self.notes.settle_moves()
        if self._all:
            self.notes.settle_orphans()
        if self._whole:
            self.notes.forget_gone()

    def _stranger(
        self,
        document: Document,
        sizes: set[int] | None,
        read: list[tuple[bytes, Known]],
        tell: Callable[[], None],
    ) -> str | None:
        """The hash of a file, where it may be one that is looked for; what cannot be read is not found."""
        stat, known = document.stat, document.known
        if stat is None or (sizes is not None and stat.size not in sizes):
            return None
        if known is not None and known.holds(stat):
            return known.rot or known.hash
        try:
            stat, digest = self.below.hash(document.text, tell)
        except Absent as absent:
            told = DocumentFinding("document-unreadable", document.text, absent.detail)
            self.notes.trouble([(told, document.path, "")])
            return None
        read.append((document.path, Known(stat, self._cache.began, digest)))
        return digest

    def must_be_there(self) -> None:
        """Raises `DocumentsAway` when the archive's directory is gone, or another one is mounted in its place."""
        try:
            found = os.stat(self.root)
        except OSError as error:
            raise DocumentsAway(str(self.root), error.strerror or str(error)) from error
        if (found.st_dev, found.st_ino) != self.below.identity():
            raise DocumentsAway(str(self.root), "it is another directory now than when the look began")

    def conclude(self) -> ScanReport:
        """The report, with what is left."""
        report = self.report
        report.counts = self.notes.counts()
        report.findings = []
        for page in self.notes.troubles():
            room = LISTED - len(report.findings)
            report.findings += [readable(trouble.finding) for trouble in page[:room]]
            if room < len(page):
                break
        report.unlisted = sum(report.counts.values()) - len(report.findings)
        if report.documents and self.notes.missing() * 2 > report.documents:
            report.notes.append("more than half of all documents are missing: see that all disks and shares are there")
        return report


def _hash_of(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def readable(found: DocumentFinding) -> DocumentFinding:
    """A finding whose paths are text, also where a name on the disk is none."""
    return msgspec.structs.replace(found, path=shown(found.path), places=tuple(shown(place) for place in found.places))


@asynccontextmanager
async def scanning(
    engine: Reader,
    root: Path,
    collections: Sequence[str] = (),
    *,
    full: bool = False,
    progress: Tell = lambda what, done: None,
    clock: Callable[[], int] = system_clock,
) -> AsyncIterator[Scan]:
    """A look that has been made, and its notes while they are wanted. Raises as `scan` does."""
    scan = Scan(engine, root, collections, full=full, tell=progress)
    await asyncio.to_thread(scan.open, clock())
    try:
        await scan.run()
        yield scan
    finally:
        await asyncio.to_thread(scan.close)


async def scan(
    engine: Reader,
    root: Path,
    collections: Sequence[str] = (),
    *,
    full: bool = False,
    progress: Tell = lambda what, done: None,
    clock: Callable[[], int] = system_clock,
) -> ScanReport:
    """What there is to say about the documents of some collections, or of all, of the archive at `root`.

    With `full` every document is read, whatever the cache says. Orphaned files are told where no collection is named.
    Raises `DocumentsUndeclared`, `CollectionUnknown`, `DocumentsAway`, `StorageFailed`.
    """
    async with scanning(engine, root, collections, full=full, progress=progress, clock=clock) as done:
        return await asyncio.to_thread(done.conclude)
