"""Every bit of a log's file flipped, and every cut of it: found by the checks of the log, or shown to change nothing.

A bit is harmless when the log still reads as it did: the same events at the same positions. Those are bits of page
slack, of counters that SQLite keeps for itself, and of the owner's name, under which nothing is proved.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from refold.errors import RefoldError
from refold_adapters.log_check import check_chain, check_database
from refold_adapters.sqlite_log import SqliteLog


class Outcome(NamedTuple):
    """What became of one change: found, or else whether the events read as before."""

    place: str
    found: str
    same: bool

    @property
    def sound(self) -> bool:
        """Whether nobody could be deceived."""
        return bool(self.found) or self.same


def _stored(path: Path) -> list[tuple[int, bytes]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT position, body FROM events ORDER BY position").fetchall()
    finally:
        connection.close()


def _found(path: Path, heads: object) -> str:
    try:
        findings = [*check_database(path), *check_chain(path)[0]]
        log = SqliteLog(path, readonly=True)
        try:
            if log.heads() != heads:
                return "log-cut or log-rot: a witness knows other heads"
        finally:
            log.close()
    except RefoldError as error:
        return error.code
    return findings[0].kind if findings else ""


def flips(archive: Path, work: Path, *, step: int = 1) -> Iterator[Outcome]:
    """One outcome for each `step`-th bit of `changelog.db`, and for each cut at a byte by the same step."""
    work.mkdir()
    path = work / "changelog.db"
    whole = (archive / "changelog.db").read_bytes()
    path.write_bytes(whole)
    before = _stored(path)
    log = SqliteLog(path, readonly=True)
    heads = log.heads()
    log.close()
    for bit in range(0, len(whole) * 8, step):
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        found = _found(path, heads)
        yield Outcome(f"bit {bit % 8} of byte {bit // 8}", found, bool(found) or _stored(path) == before)
    for size in range(0, len(whole), step):
        path.write_bytes(whole[:size])
        found = _found(path, heads)
        yield Outcome(f"cut after {size}", found, bool(found) or _stored(path) == before)
