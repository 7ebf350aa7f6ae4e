"""Every document read again and held against its record: what a verification of an archive says of its documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

from refold.reader import Reader
from refold.verdict import FINDINGS_LIMIT, Finding
from refold_adapters.stopping import Tell

from .findings import DocumentFinding
from .scanning import readable, scanning

UNSOUND = (
    *("document-rot", "document-changed", "document-missing", "document-moved", "document-outside"),
    *("document-unreadable", "document-unsettled", "document-hash"),
)
"""The findings that make an archive unsound; what is new to the log, or known to no record, harms nothing."""


async def verify_documents(
    engine: Reader, root: Path, progress: Tell = lambda what, done: None
) -> tuple[list[Finding], int]:
    """What differs from what records say, and how many documents they point to. Raises as `scan` does."""
    found: list[Finding] = []
    async with scanning(engine, root, full=True, progress=progress) as done:
        pages = done.notes.troubles(UNSOUND)
        while len(found) < FINDINGS_LIMIT and (page := await asyncio.to_thread(next, pages, None)) is not None:
            found += [as_finding(trouble.finding) for trouble in page]
        return found[:FINDINGS_LIMIT], done.report.documents


def as_finding(one: DocumentFinding) -> Finding:
    """The same thing as verifications tell it."""
    shown = readable(one)
    detail = f"{shown.detail}: {', '.join(shown.places)}" if shown.places else shown.detail
    return Finding(one.kind, detail, collection=one.collection, key=one.key, file=shown.path)
