"""An archive of orders with documents, and what a reader with no cache and no index makes of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import refold
from refold import Collection, Engine, Field
from refold_adapters.documents import ScanReport

ORDERS = Collection(
    name="orders",
    key="no",
    folder="{no}",
    fields={"no": Field("str"), "path": Field("str", null=True), "sha256": Field("str", null=True)},
    documents={"path": "sha256"},
)
OLD = 1_600_000_000
"""A time of change long ago, in seconds."""


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def write(root: Path, path: str, data: bytes, mtime: int = OLD) -> str:
    """Writes a document that was changed long ago; its hash."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
    os.utime(root / path, (mtime, mtime))
    return digest(data)


def home(key: str) -> str:
    return f"{key}/{key}.pdf"


async def fill(engine: Engine, root: Path, keys: Iterable[str]) -> None:
    """Defines the orders, and writes some with a document each."""
    await engine.define(ORDERS)
    for key in keys:
        hashed = write(root, home(key), key.encode() * 8)
        await engine.put("orders", {"no": key, "path": home(key), "sha256": hashed})


def told(report: ScanReport) -> set[tuple[str, str, str | None]]:
    """Kind, path and key of every finding."""
    assert not report.unlisted
    found = [(one.kind.removeprefix("document-"), one.path, one.key) for one in report.findings]
    assert len(found) == len(set(found)) == sum(report.counts.values())
    return set(found)


async def values(engine: refold.Engine, key: str) -> tuple[str | None, str | None]:
    """The path and the hash that a record has."""
    record = await engine.get("orders", key)
    assert record is not None
    return record.values["path"], record.values["sha256"]
