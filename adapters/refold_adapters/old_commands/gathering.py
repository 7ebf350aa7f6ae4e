"""What the folders of an older archive hold, checked and with one row a key, ready to be compared or restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from refold_adapters.adopting.candidates import Finding
from refold_adapters.adopting.layout import Described
from refold_adapters.adopting.survey import Survey

from .staging import PAGE, Staging


def gather(root: Path, described: Described, staging: Staging, *, documents: bool = False) -> Iterator[Finding]:
    """Reads every folder into `staging`, and tells what is wrong with any and which rows lose to another.

    Raises `StorageFailed`.
    """
    rows = []
    for looked in Survey(root, described, documents=documents).folders():
        yield from looked.findings
        if looked.is_live:
            detail = "refold wrote it, and the log of its archive is not here"
            yield Finding("no-log", detail, folder=looked.folder, left_out=True)
        rows += looked.rows
        if len(rows) >= PAGE:
            staging.add(rows)
            rows = []
    staging.add(rows)
    yield from staging.settle()
