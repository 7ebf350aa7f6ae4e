"""Verify: every folder by its checksum, its version and the rules of its fields, and the table beside the folders."""

from __future__ import annotations

from pathlib import Path

from refold_adapters.adopting.layout import Described

from .comparing import compare, unreadable
from .gathering import gather
from .outcome import Outcome
from .staging import Staging


def verify(root: Path, described: Described, staging: Staging, outcome: Outcome, *, documents: bool = False) -> None:
    """Reads everything and changes nothing; what is wrong stands in `outcome`. Raises `StorageFailed`."""
    assert described.layout.table is not None
    table = described.layout.table.name
    outcome.found(gather(root, described, staging, documents=documents))
    rows = staging.count()
    if (lacking := unreadable(staging, table)) is not None:
        outcome.found([lacking])
        return
    differing = 0
    for finding in compare(described, staging, table):
        differing += finding.kind in {"table-newer", "table-differs", "folder-only"}
        outcome.found([finding])
    outcome.verified = rows - differing
