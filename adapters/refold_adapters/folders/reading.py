"""Back from the folders to a log: what can be read of their histories, and a new log made of it.

A line of events.jsonl proves itself, so every line whose hash fits is believed, wherever it stands. The length in
meta.json tells damage from accident: a bad line within it was altered, what follows it was never finished.

A log is made in the order (time, replica, seq), which is causal, so the log itself checks that nothing is missing in
between: it takes an event only after its replica's one before and after all in its context. What is missing at the end
shows in the heads that the meta.json of every folder remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from refold.errors import ArchiveExists, EventForked, EventsMissing
from refold.events import Event, Head, decode
from refold.ports import Changelog
from refold.verdict import Finding

from .content import EVENTS, META, Meta, read_meta
from .disk import Disk, PosixDisk
from .lines import LineRefused, proved
from .sorter import Sorter

_CHUNK = 1 << 20
_BATCH = 1000


class FoundEvent(msgspec.Struct, frozen=True):
    """An event as it was found, with its canonical bytes and its hash."""

    folder: str
    line: int
    event: Event
    body: bytes
    hash: bytes


class FoundHead(msgspec.Struct, frozen=True):
    """What a folder remembers of a replica: its newest event in that folder."""

    folder: str
    replica: str
    seq: int
    hash: str


def _lines(disk: Disk, place: str) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a folder's events.jsonl: number from 1, where it starts, the line with its end if it has one."""
    number, start, offset, rest = 0, 0, 0, b""
    while chunk := disk.read(place, EVENTS, offset, _CHUNK):
        offset += len(chunk)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield number, start, line + b"\n"
            start += len(line) + 1
    if rest:
        yield number + 1, start, rest


def read_folder(disk: Disk, place: str, meta: Meta | None) -> Iterator[FoundEvent | Finding]:
    """Every event in one folder, and every line that is none."""
    counted = meta.events.size if meta is not None else None
    size = 0
    for number, start, line in _lines(disk, place):
        size = start + len(line)
        try:
            event, body, digest = proved(line)
        except LineRefused as refused:
            torn = start >= counted if counted is not None else not line.endswith(b"\n")
            kind = "folder-torn" if torn else "folder-altered"
            yield Finding(kind, refused.why, folder=place, file=EVENTS, row=number)
            if torn:
                return
        else:
            yield FoundEvent(place, number, event, body, digest)
    if counted is not None and size < counted:
        yield Finding("folder-altered", f"it ends after {size} of {counted} bytes", folder=place, file=EVENTS)


def read_events(root: Path, disk: Disk | None = None) -> Iterator[FoundEvent | FoundHead | Finding]:
    """Every event in any events.jsonl under `root`, the heads that folders remember, and what is damaged.

    Links are not followed, and no more than a line and a piece of a file are in memory.
    """
    if disk is None:
        disk = own = PosixDisk(root)
    else:
        own = None
    try:
        for place, names in disk.walk():
            meta = read_meta(disk.read(place, META)) if META in names else None
            for replica, head in meta.vector.items() if meta is not None else ():
                yield FoundHead(place, replica, head.seq, head.hash)
            if EVENTS in names:
                yield from read_folder(disk, place, meta)
            elif meta is not None:
                yield Finding("folder-missing", "meta.json tells of it", folder=place, file=EVENTS)
    finally:
        if own is not None:
            own.close()


class Rebuilt(msgspec.Struct, frozen=True):
    """What a log was rebuilt from: the number of its events, and damage that did it no harm."""

    events: int
    findings: list[Finding]


def rebuild_log(root: Path, log: Changelog, disk: Disk | None = None) -> Rebuilt:
    """Fills an empty log with the events of all folders under `root`.

    Raises `EventForked`, `EventsMissing`, and `LineRefused` where a damaged line may be why an event is missing; the
    log then holds the events before.
    """
    if log.end():
        raise ArchiveExists("the log to be rebuilt")
    findings: list[Finding] = []
    heads: dict[str, FoundHead] = {}
    found = read_events(root, disk)
    try:
        with Sorter() as sorter:
            while page := list(islice(found, _BATCH)):
                sorter.put(
                    (item.event.time, item.event.replica, item.event.seq, item.hash, item.body)
                    for item in page
                    if isinstance(item, FoundEvent)
                )
                findings += [item for item in page if isinstance(item, Finding)]
                for item in page:
                    if isinstance(item, FoundHead) and (
                        item.replica not in heads or heads[item.replica].seq < item.seq
                    ):
                        heads[item.replica] = item
            entries = sorter.sorted()
            while batch := list(islice(entries, _BATCH)):
                bodies = [body for *_, body in batch]
                log.append([decode(body) for body in bodies], bodies, [digest for _, _, _, digest, _ in batch])
        _check_heads(log.heads(), heads)
    except EventsMissing as missing:
        damaged = next((finding for finding in findings if finding.row is not None), None)
        if damaged is not None:
            raise LineRefused(damaged.folder or "", damaged.row or 0, damaged.detail) from missing
        raise
    return Rebuilt(log.end(), findings)


def _check_heads(have: dict[str, Head], known: dict[str, FoundHead]) -> None:
    for replica, head in sorted(known.items()):
        found = have.get(replica, Head(0, b""))
        if found.seq < head.seq:
            raise EventsMissing([f"{replica}:{seq}" for seq in range(found.seq + 1, min(head.seq, found.seq + 10) + 1)])
        if found.seq == head.seq and found.hash.hex() != head.hash:
            raise EventForked(replica, head.seq, found.hash.hex(), head.hash)
