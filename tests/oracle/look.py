"""All that can be read of an archive, by the ways in which others read it, and what is wrong with that."""

from __future__ import annotations

import asyncio
import csv
import re
import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

import refold

from .truth import PRESENCE, Dispute, Seen, same

NEUTRALISED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
FILES = {"data.csv", "meta.json", "events.jsonl"}

Values = Mapping[str, Any]


class Found(msgspec.Struct):
    """What an archive says: records by the engine, rows by SQL, cells by folder, events and conflicts."""

    events: list[refold.Event]
    records: dict[str, refold.Record]
    rows: dict[str, dict[str, Any]]
    cells: list[tuple[str, dict[str, str]]]
    conflicts: list[refold.Conflict]
    fingerprint: str


async def look(engine: refold.Engine, root: Path, name: str) -> Found:
    """Reads a settled archive: tables and folders without the engine."""
    return Found(
        [event async for event in engine.events()],
        {record.key: record async for record in engine.find(name)},
        await asyncio.to_thread(_rows, root, name),
        await asyncio.to_thread(_cells, root),
        [conflict async for conflict in engine.conflicts()],
        await asyncio.to_thread(_fingerprint, root),
    )


def _rows(root: Path, name: str) -> dict[str, dict[str, Any]]:
    connection = sqlite3.connect(f"file:{root / 'tables.db'}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return {row["icao"]: dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')}
    finally:
        connection.close()


def _cells(root: Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of every `data.csv`, with the folder each stands in."""
    found = []
    for path in sorted(root.rglob("data.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            folder = path.parent.relative_to(root).as_posix()
            found += [(folder, row) for row in csv.DictReader(file)]
    return found


def _fingerprint(root: Path) -> str:
    whole = sha256()
    for path in sorted(path for path in root.rglob("*") if path.name in FILES):
        whole.update(f"{path.relative_to(root)}\0".encode() + sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def complaints_about(
    found: Found, seen: Seen, truth: Mapping[str, Values], disputes: Sequence[Dispute], manual: Sequence[str]
) -> list[str]:
    """Everything of an archive that is not as it has to be."""
    records = {key: dict(record.values) for key, record in found.records.items()}
    wrong = _differences("record", records, truth)
    wrong += _differences("row", found.rows, truth)
    for key in records.keys() & truth.keys():
        version = ",".join(f"{replica}:{seq}" for replica, seq in sorted(seen.vector(key).items()))
        if found.records[key].version != version:
            wrong.append(f"{key}: version {found.records[key].version!r} for {version!r}")
    wrong += _events(found, seen)
    wrong += _folders(found, truth)
    return wrong + _conflicts(found, disputes, manual)


def _differences(what: str, found: Mapping[str, Values], truth: Mapping[str, Values]) -> list[str]:
    wrong = []
    for key in sorted(found.keys() | truth.keys()):
        one, other = found.get(key, {}), truth.get(key, {})
        if one.keys() != other.keys() or not all(same(one[name], other[name]) for name in one):
            wrong.append(f"{what} {key}: {dict(one)} for {dict(other)}")
    return wrong


def _events(found: Found, seen: Seen) -> list[str]:
    """The log against the writes: each once, saying what was written, after all that its author had seen."""
    wrong = []
    position: dict[tuple[str, int], int] = {}
    for event in found.events:
        dot = event.replica, event.seq
        write = seen.writes.get(dot)
        if write is None or dot in position:
            wrong.append(f"event {dot} is in the log, and was not written or stands there twice")
            continue
        position[dot] = event.position
        if (event.key, event.time, event.data) != (write.key, write.time, write.data):
            wrong.append(f"event {dot} says {event.data} for {write.data}")
        if not write.saw <= position.keys():
            wrong.append(f"event {dot} stands before something that its author had seen")
    return wrong + [f"event {dot} is not in the log" for dot in sorted(seen.writes.keys() - position.keys())]


def _folders(found: Found, truth: Mapping[str, Values]) -> list[str]:
    """Each record in one row of one folder; one folder for each country and region, and the other way round."""
    rows = {}
    wrong = []
    places: dict[str, set[tuple[str, str]]] = {}
    folders: dict[tuple[str, str], set[str]] = {}
    for folder, cells in found.cells:
        row = {name: _value(text, truth.get(cells["icao"], {}).get(name)) for name, text in cells.items()}
        if row["icao"] in rows:
            wrong.append(f"{row['icao']} stands in two rows of CSV")
        rows[row["icao"]] = row
        place = row["country"], row["subd"]
        places.setdefault(folder, set()).add(place)
        folders.setdefault(place, set()).add(folder)
    wrong += [f"folder {folder} has records of {found}" for folder, found in places.items() if len(found) > 1]
    wrong += [f"records of {place} are in {found}" for place, found in folders.items() if len(found) > 1]
    return wrong + _differences("CSV row", rows, truth)


def _value(text: str, expected: object) -> Any:
    """What a cell means, given of which type it has to be."""
    if isinstance(expected, str):
        return text[1:] if NEUTRALISED.match(text) else text
    return float(text) if text else None


def _conflicts(found: Found, disputes: Sequence[Dispute], manual: Sequence[str]) -> list[str]:
    """The conflict list: each dispute once, with its sides, its outcome, and whether and by what it was closed."""
    wrong = []
    listed = {_listing(conflict): conflict for conflict in found.conflicts}
    expected = {(dispute.key, dispute.dots, dispute.closer is not None): dispute for dispute in disputes}
    if len(listed) != len(found.conflicts):
        wrong.append("a conflict is listed twice")
    wrong += [f"conflict {key} is listed" for key in listed.keys() - expected.keys()]
    wrong += [f"conflict {key} is not listed" for key in expected.keys() - listed.keys()]
    for key in listed.keys() & expected.keys():
        conflict, dispute = listed[key], expected[key]
        sides = {name: [(side.dot, side.value) for side in group] for name, group in conflict.sides.items()}
        closed = conflict.settled_by
        closer = (closed.replica, closed.seq) if closed is not None else None
        open_now = dispute.closer is None and any(name in manual for name in dispute.sides)
        status = "resolved" if dispute.closer else "open" if open_now else "settled"
        kind = "deletion-conflict" if PRESENCE in dispute.sides else "concurrent-modification"
        ours = (str(conflict.kind), conflict.status, sides, dict(conflict.outcome), closer)
        truth = (kind, status, dispute.sides, dispute.outcome, dispute.closer)
        if ours != truth:
            wrong.append(f"conflict {conflict.id} of {conflict.key}: {ours} for {truth}")
    return wrong


def _listing(conflict: refold.Conflict) -> tuple[str, frozenset[tuple[str, int]], bool]:
    dots = frozenset(side.dot for group in conflict.sides.values() for side in group)
    return conflict.key, dots, conflict.settled_by is not None
