"""What can be wrong with `changelog.db` besides its events: the database around them, and a WAL that a crash cut short.

Events prove themselves; what leads to them does not. So SQLite looks through its pages, the schema is compared with the
one that makes a log, and what the columns beside the events say is compared with what they must: the seqs of each
replica are the run from 1.

A commit that never ended leaves frames at the end of the WAL that SQLite passes over, and writes over later: the only
damage to a log that opening it repairs, since nobody was told that those writes were done. What stands behind the last
commit is told by the salts: frames of an earlier round of the WAL have others, and are no damage.
https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from refold.verdict import FINDINGS_LIMIT, Finding
from refold.verify import ChainCheck

from .sqlite_connection import connect, failures

_PAGE = 1000
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}


def check_database(path: Path) -> list[Finding]:
    """What is wrong with the database of a log. Raises `StorageFailed`."""
    with closing(connect(path, readonly=True)) as connection:
        try:
            return list(_database(connection, path))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.OperationalError):
                with failures(path, "reading the log"):
                    raise
            return [_damaged(path, str(error))]


def _damaged(path: Path, why: str) -> Finding:
    return Finding("log-rot", f"the database is damaged: {why}", file=path.name)


def _database(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    for (told,) in connection.execute("PRAGMA integrity_check(10)").fetchall():
        if told != "ok":
            yield _damaged(path, told)
            return
    with closing(sqlite3.connect(":memory:")) as other:
        other.executescript(files(__package__).joinpath("sqlite_log.sql").read_text())
        sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
        if connection.execute(sql).fetchall() != other.execute(sql).fetchall():
            yield _damaged(path, "its schema is not that of a log")
            return
    runs = connection.execute(
        "SELECT e.replica, r.replica, count(*), min(seq), max(seq) FROM events e"
        " LEFT JOIN replicas r ON r.id = e.replica GROUP BY e.replica ORDER BY 1"
    )
    for number, name, count, first, last in runs.fetchall():
        if name is None:
            yield _damaged(path, f"events are of replica number {number}, which has no name")
        elif (first, last) != (1, count):
            detail = f"{count} events of this replica, which are numbered {first} to {last}"
            yield Finding("log-chain", detail, replica=name, file=path.name)


def check_chain(path: Path) -> tuple[list[Finding], int]:
    """The findings of the chain and the number of events, of a log that nobody can open. Raises `StorageFailed`."""
    check = ChainCheck()
    found: list[Finding] = []
    names: dict[int, tuple[str, int]] = {}
    with closing(connect(path, readonly=True)) as connection, failures(path, "reading the log"):
        rows = connection.execute(
            "SELECT position, body, r.replica, seq FROM events e"
            " LEFT JOIN replicas r ON r.id = e.replica ORDER BY position"
        )
        while page := rows.fetchmany(_PAGE):
            stored = [(row[0], row[1] if isinstance(row[1], bytes) else b"") for row in page]
            found += islice(check.feed_all(stored), FINDINGS_LIMIT - len(found))
            rotten = {finding.position for finding in check.rotten}
            names |= {row[0]: (row[2], row[3]) for row in page if row[0] in rotten}
    found += check.finish()
    return [_named(finding, names) for finding in found], check.events


def _named(finding: Finding, names: dict[int, tuple[str, int]]) -> Finding:
    """The finding with the dot that stands beside the event, where the event itself could not tell it."""
    if finding.replica is not None or finding.position is None or finding.position not in names:
        return finding
    replica, seq = names[finding.position]
    return msgspec.structs.replace(finding, replica=replica, seq=seq)


def torn(wal: Path) -> int:
    """How many bytes of a WAL belong to a commit that never ended; 0 where there is no WAL. Raises `StorageFailed`."""
    with failures(wal, "reading the WAL"):
        try:
            file = wal.open("rb")
        except FileNotFoundError:
            return 0
        with file:
            return _torn(file)


def _torn(file: BinaryIO) -> int:
    lead = file.read(_HEADER.size)
    if len(lead) < _HEADER.size:
        return len(lead)
    magic, _, size, _, *rest = _HEADER.unpack(lead)
    order, salts = _MAGIC.get(magic, ">"), rest[:2]
    sums = _checksum(order, lead[:24], (0, 0))
    if magic not in _MAGIC or list(sums) != rest[2:]:
        return len(lead) + len(file.read())
    end = committed = file.tell()
    sound = True
    while frame := file.read(_FRAME.size + size):
        if list(struct.unpack(">2I", frame[8:16].ljust(8, b"\0"))) != salts:
            break
        end = file.tell()
        sound = sound and len(frame) == _FRAME.size + size
        if sound:
            sums = _checksum(order, frame[24:], _checksum(order, frame[:8], sums))
            sound = sums == struct.unpack(">2I", frame[16:24])
        if sound and frame[4:8] != b"\0\0\0\0":
            committed = end
    return end - committed


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
