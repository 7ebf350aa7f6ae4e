"""An archive held against a receipt.

The heads that the receipt names must stand in the log with the same hashes, which by the chain says that every event up
to them does. The events that its vector covers are then copied into a log of their own, which proves each, and folded
anew: that must give the digest that the receipt says.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import refold
from refold.errors import EventForked, EventsMissing, FormatUnknown, LogCorrupt, StorageFailed
from refold.events import Event
from refold.fold import format_digest
from refold.opening import random_id
from refold.progress import uninterrupted
from refold.vector import covers
from refold.verify import Finding
from refold_adapters.settings import load_settings
from refold_adapters.sqlite_log import SqliteLog

from .copying import append_all, events_of
from .receipt import Receipt


async def prove_against(root: Path, receipt: Receipt) -> list[Finding]:
    """What keeps the archive at `root` from being what the receipt says; nothing when it is proved.

    The archive may hold more than the receipt says. What keeps it from being looked at is a finding too.
    """
    try:
        findings = await asyncio.to_thread(_check_heads, root, receipt)
        return findings or await _check_digest(root, receipt)
    except (LogCorrupt, EventsMissing, EventForked, StorageFailed, FormatUnknown) as error:
        return [Finding("receipt-unproved", f"could not verify: {error}")]


def _check_heads(root: Path, receipt: Receipt) -> list[Finding]:
    with closing(SqliteLog(root / load_settings(root).changelog, readonly=True)) as log:
        dots = sorted(receipt.vector.items())
        there = {event.replica: event for event in log.at(sorted(log.positions(dots)))}
    return [found for replica, seq in dots for found in _differs(replica, seq, receipt.heads, there.get(replica))]


def _differs(replica: str, seq: int, heads: Mapping[str, str], event: Event | None) -> list[Finding]:
    if event is None:
        return [Finding("receipt-missing", "the receipt has it, the log does not", replica=replica, seq=seq)]
    if event.hash.hex() != heads.get(replica):
        detail = f"the receipt says {heads.get(replica)}, the log has {event.hash.hex()}"
        return [Finding("receipt-differs", detail, replica=replica, seq=seq)]
    return []


async def _check_digest(root: Path, receipt: Receipt) -> list[Finding]:
    place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="refold-"))
    try:
        count = await asyncio.to_thread(_copy, root, place, receipt.vector)
        async with refold.open(place, create=False, folders=False) as engine:
            digest = format_digest((await engine.checkpoint()).digest or 0)
    finally:
        await uninterrupted(asyncio.to_thread(shutil.rmtree, place))
    if count != receipt.events:
        return [Finding("receipt-differs", f"the receipt says {receipt.events} events, the log has {count}")]
    if digest != receipt.digest:
        return [Finding("receipt-differs", f"the receipt says digest {receipt.digest}, the log folds to {digest}")]
    return []


def _copy(root: Path, place: Path, vector: Mapping[str, int]) -> int:
    """Copies the events that a vector covers into a new log at `place`; how many."""
    with ExitStack() as stack:
        log = stack.enter_context(closing(SqliteLog(root / load_settings(root).changelog, readonly=True)))
        new = stack.enter_context(closing(SqliteLog(place / "changelog.db", owner=random_id())))
        chosen = (pair for pair in events_of(log) if covers(vector, pair[0].replica, pair[0].seq))
        return append_all(new, chosen, lambda what, done: None)
