"""One verification: the log's chain, what witnesses say of it, then everything that was made from it.

The log comes first, and what is derived from it is compared only with a log that proves itself. Pages of it are read in
the store's reading thread and hashed in another, so that neither the loop nor other readers wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Protocol, TypeVar

from . import queries
from .errors import LogCorrupt, RefoldError
from .events import Head
from .ports import Changelog, Store, Tables
from .replay import load_schemas
from .schema import Schema
from .verdict import FINDINGS_LIMIT, Finding, Report, judged
from .verify import ChainCheck, Claim, Testimony
from .version_rules import known_versions

T = TypeVar("T")

CLAIMS = 500
"""What witnesses say is held against the log so many heads at a time."""


class _Everything:
    def __contains__(self, part: object) -> bool:
        return True


EVERYTHING: Container[str] = _Everything()
"""All parts of an archive."""


class Read(Protocol):
    """Runs a question where the store reads."""

    def __call__(self, work: Callable[[Changelog, Tables], T], /) -> Awaitable[T]:
        """The answer."""


def undeclared(versions: Mapping[str, int], schemas: Mapping[str, Schema]) -> Iterator[Finding]:
    """Collections with events of a schema version that no definition here declares, given the highest of each."""
    for name, version in sorted(versions.items()):
        schema = schemas.get(name)
        if schema is not None and version > schema.version:
            known = ", ".join(known_versions(schema.version))
            detail = f"{name} has events of version {version}, which is not declared here; known are {known}"
            yield Finding("version-unknown", detail, collection=name)


class Looking:
    """What every verification does: it gathers findings, and hears what witnesses remember of the log."""

    def __init__(self, read: Read, store: Store, progress: Callable[[str, int], None]) -> None:
        self._read = read
        self._store = store
        self._progress = progress
        self._findings: list[Finding] = []

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Lets what cannot be read be a finding: it is not known to be sound."""
        try:
            await work
        except LogCorrupt as error:
            self._add([Finding("log-rot", str(error), position=error.position)])
        except RefoldError as error:
            self._add([Finding("unreadable", str(error))])

    def _add(self, findings: Iterable[Finding]) -> None:
        self._findings += islice(findings, max(0, FINDINGS_LIMIT - len(self._findings)))

    def _log_findings(self) -> bool:
        return any(finding.kind.startswith("log-") for finding in self._findings)

    async def _hear(self, standing: Mapping[str, Head], claims: Iterable[Claim]) -> None:
        """Holds claims against the heads that stand, and older ones against the events that they name."""
        testimony = Testimony(standing)
        told = iter(claims)
        while page := await asyncio.to_thread(lambda: list(islice(told, CLAIMS))):
            older = testimony.hear(page)
            if older:
                dots = [(claim.replica, claim.head.seq) for claim in older]
                testimony.compare(older, await self._read(partial(queries.hashes, dots)))
        self._add(testimony.findings())


class Verification(Looking):
    """Looks at the parts of an archive one after the other."""

    def __init__(self, read: Read, store: Store, progress: Callable[[str, int], None]) -> None:
        super().__init__(read, store, progress)
        self._check = ChainCheck()

    async def run(self, findings: list[Finding], claims: Iterable[Claim], only: Container[str]) -> Report:
        """What all of them came to, with what was found before."""
        self._findings = findings
        if "log" in only:
            await self._guarded(self._log(claims))
        if "tables" in only and not self._log_findings():
            await self._guarded(self._tables())
        for projection in self._store.projections:
            if projection.name in only:
                self._progress(projection.name, 0)
                await self._guarded(self._project(projection.verify))
        rotten = {(found.replica, found.seq) for found in self._findings if found.kind == "log-rot"}
        told = [
            found for found in self._findings if found.kind != "log-fork" or (found.replica, found.seq) not in rotten
        ]
        return Report(judged(told), self._check.events)

    async def _log(self, claims: Iterable[Claim]) -> None:
        self._add(await self._store.verify_log())
        check = self._check
        checkpoint, heads, end = await self._read(queries.witnesses)
        position = 0
        while bodies := await self._read(partial(queries.bodies, position, end)):
            position = bodies[-1][0]
            self._add(await asyncio.to_thread(check.feed_all, bodies))
            self._progress("log", position)
        self._add(check.finish(checkpoint.heads))
        self._add(check.close(heads, "the log's own list of heads"))
        self._add(undeclared(check.versions, await self._read(lambda _log, tables: load_schemas(tables))))
        own = (Claim("the tables' checkpoint", replica, head) for replica, head in sorted(checkpoint.heads.items()))
        await self._hear(self._check.heads, chain(own, claims))

    async def _tables(self) -> None:
        self._add(await self._store.verify_tables(partial(self._progress, "tables")))

    async def _project(self, verify: Callable[[], list[Finding]]) -> None:
        self._add(await self._store.project(verify))
