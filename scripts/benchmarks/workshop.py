"""An archive of an older tool: adopting it, and capturing what its old program commits."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from refold_adapters.adopting.adopt import adopt
from refold_adapters.adopting.layout import preset
from refold_adapters.capture.following import follow
from refold_adapters.capture.installing import install

from .measure import ROWS, Figures, Place, Row, measurement

COLUMNS = tuple(preset("workshop").collection.fields)
NUMBERS = ("record_id", "data_complete")
OUTBOX = "SELECT count(*) FROM refold_outbox_auftraege"

COMMITS = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for number in range(int(sys.argv[2])):
    connection.execute("UPDATE auftraege SET kunde_name = ? WHERE record_id = ?", (f"n{number}", number % 100 + 1))
print(time.time())
"""
"""The old program: a transaction a row, as fast as it can."""


def _order(number: int) -> tuple[dict[str, Any], bytes]:
    """An order and its PDF of a kilobyte."""
    name = f"{number:06d}"
    document = b"%PDF-1.4\n" + name.encode() * 170 + b"\n%%EOF\n"
    day = f"{2015 + number % 10}-{number % 12 + 1:02d}-{number % 28 + 1:02d}"
    row = {
        "record_id": number,
        "auftrag_nr": name,
        "kunde_name": f"Müller {number % 1000}",
        "kunden_nr": f"K{number % 1000:05d}",
        "kennzeichen": f"B-AX {number % 9000}",
        "vin": f"WVW{number:014d}",
        "datum": day,
        "formular_version": "neu",
        "keywords_json": '{"Ölwechsel": [1, 2]}',
        "file_path": f"{day[:4]}/{name}/{name}_Auftrag.pdf",
        "hash": hashlib.sha256(document).hexdigest(),
        "data_complete": number % 2,
        "created_at": f"{day}T08:00:00",
        "updated_at": f"{day}T09:00:00",
    }
    return row, document


def fill(root: Path, count: int, *, folders: bool = True) -> None:
    """Writes an archive as the older tool leaves it."""
    root.mkdir(parents=True)
    rows = []
    for number in range(1, count + 1):
        row, document = _order(number)
        rows.append(tuple(row.values()))
        if folders:
            _write(root, row, document)
    columns = ", ".join(
        f"{name} {'INTEGER PRIMARY KEY' if name == 'record_id' else 'INTEGER' if name in NUMBERS else 'TEXT'}"
        for name in COLUMNS
    )
    with closing(sqlite3.connect(root / "werkstatt.db")) as connection:
        connection.execute(f"CREATE TABLE auftraege ({columns})")
        connection.executemany(f"INSERT INTO auftraege VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        connection.commit()


def _write(root: Path, row: dict[str, Any], document: bytes) -> None:
    path = root / row["file_path"]
    path.parent.mkdir(parents=True)
    path.write_bytes(document)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    data = out.getvalue().encode()
    (path.parent / "data.csv").write_bytes(data)
    told = {"schema_version": "1.0", "checksum": hashlib.sha256(data).hexdigest(), "exported_at": row["updated_at"]}
    told |= {"auftrag_nr": row["auftrag_nr"], "record_id": row["record_id"], "file_size": len(data)}
    (path.parent / "meta.json").write_text(json.dumps(told, indent=2))


def _adopt(place: Place) -> Figures:
    root, count = place.work / "shop", place.sizes.folders
    fill(root, count)
    start = time.perf_counter()
    report = asyncio.run(adopt(root, preset("workshop"), write=True))
    elapsed = time.perf_counter() - start
    assert (report.written, report.complete) == (count, True), report
    return {"rate": count / elapsed}


measurement("adopt")(_adopt)


def _read_all(place: Place) -> Figures:
    """Reads and hashes every file of as many folders."""
    root, count = place.work / "shop", place.sizes.folders
    fill(root, count)
    start = time.perf_counter()
    found = sum(len(hashlib.sha256(path.read_bytes()).digest()) for path in root.rglob("*.*") if path.is_file())
    assert found > 3 * 32 * count
    return {"rate": count / (time.perf_counter() - start)}


measurement("read-folders")(_read_all)


async def _captured(root: Path, commits: int) -> Figures:
    await adopt(root, preset("workshop"), write=True)
    await install(root, "werkstatt.db", "auftraege")
    following = asyncio.create_task(follow(root))
    command = [sys.executable, "-c", COMMITS, str(root / "werkstatt.db"), str(commits)]
    start = time.time()
    program = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told, _ = await program.communicate()
    ended = float(told)
    await asyncio.to_thread(_wait, root)
    after = time.time() - ended
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return {"s": after, "rate": commits / (ended - start)}


def _wait(root: Path) -> None:
    """Returns once the outbox is empty."""
    with closing(sqlite3.connect(root / "werkstatt.db", timeout=60)) as connection:
        while connection.execute(OUTBOX).fetchone() != (0,):
            time.sleep(0.005)


def _capture(place: Place) -> Figures:
    root = place.work / "shop"
    fill(root, 100, folders=False)
    return asyncio.run(_captured(root, place.sizes.pushes))


measurement("capture")(_capture)

_row = partial(Row, group="workshop")
ROWS += [
    _row(
        name="adopting folders, beside reading and hashing them",
        measurement="adopt",
        raw="read-folders",
        unit="folders/s",
        target=3000,
        of="figure",
    ),
    _row(name="commits of another program while it is captured", measurement="capture", unit="commits/s"),
    _row(
        name="captured after the last of so many commits",
        measurement="capture",
        figure="s",
        unit="s",
        target=1,
        of="figure",
        least=False,
    ),
]
