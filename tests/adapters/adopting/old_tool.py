"""The older tool, as far as archives go: it writes them in either spelling, and reads them with `csv` and `json`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    *("record_id", "auftrag_nr", "kunde_name", "kunden_nr", "kennzeichen", "vin", "datum", "formular_version"),
    *("keywords_json", "file_path", "hash", "data_complete", "created_at", "updated_at"),
)
NUMBERS = ("record_id", "data_complete")


def document(number: int) -> bytes:
    """An order's PDF."""
    return f"%PDF-1.4 order {number}\n%%EOF\n".encode()


def order(number: int, **other: Any) -> dict[str, Any]:
    """A row of the table, with what the test wants otherwise."""
    name = f"{76000 + number:06d}"
    row = {
        "record_id": number,
        "auftrag_nr": name,
        "kunde_name": 'Autohaus "Süd", Groß',
        "kunden_nr": f"K{number:05d}",
        "kennzeichen": "B-AX 12",
        "vin": "WVW123",
        "datum": f"2024-03-{1 + number % 28:02d}",
        "formular_version": "neu",
        "keywords_json": json.dumps({"Ölwechsel": [1, 2]}, ensure_ascii=False),
        "file_path": f"2024/{name}/{name}_Auftrag.pdf",
        "hash": hashlib.sha256(document(number)).hexdigest(),
        "data_complete": number % 2,
        "created_at": f"2024-03-{1 + number % 28:02d}T08:00:00",
        "updated_at": f"2024-03-{1 + number % 28:02d}T09:{number % 60:02d}:00",
    }
    return {**row, **other}


def spelt(row: Mapping[str, Any], *, backslash: bool = False) -> bytes:
    """A data.csv, with quotes doubled, or escaped by backslashes as the tool did once."""
    if not backslash:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
        return out.getvalue().encode()

    def cell(value: Any) -> str:
        text = str(value)
        return '"' + text.replace('"', '\\"') + '"' if any(c in text for c in '",\n') else text

    return (",".join(COLUMNS) + "\n" + ",".join(cell(row[name]) for name in COLUMNS) + "\n").encode()


def meta(row: Mapping[str, Any], data: bytes, version: str = "1.0") -> bytes:
    """A meta.json."""
    told = {
        "schema_version": version,
        "checksum": hashlib.sha256(data).hexdigest(),
        "exported_at": row["updated_at"],
        "auftrag_nr": row["auftrag_nr"],
        "record_id": row["record_id"],
        "file_size": len(data),
    }
    return json.dumps(told, indent=2).encode()


def export(
    root: Path, row: Mapping[str, Any], *, backslash: bool = False, folder: str = "", version: str = "1.0"
) -> Path:
    """Writes an order's folder, with its document."""
    place = root / (folder or str(Path(row["file_path"]).parent))
    place.mkdir(parents=True, exist_ok=True)
    data = spelt(row, backslash=backslash)
    (place / "data.csv").write_bytes(data)
    (place / "meta.json").write_bytes(meta(row, data, version))
    if not folder:
        (root / row["file_path"]).write_bytes(document(row["record_id"]))
    return place


def fill(root: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes werkstatt.db."""
    root.mkdir(parents=True, exist_ok=True)
    columns = ", ".join(
        f"{name} {'INTEGER PRIMARY KEY' if name == 'record_id' else 'INTEGER' if name in NUMBERS else 'TEXT'}"
        for name in COLUMNS
    )
    connection = sqlite3.connect(root / "werkstatt.db")
    connection.execute(f"CREATE TABLE auftraege ({columns})")
    marks = ", ".join("?" * len(COLUMNS))
    connection.executemany(f"INSERT INTO auftraege VALUES ({marks})", [[row[name] for name in COLUMNS] for row in rows])
    connection.commit()
    connection.close()


def read(place: Path) -> dict[str, str]:
    """An order's folder, as the older tool reads it, with the checks that it makes."""
    data = (place / "data.csv").read_bytes()
    told = json.loads((place / "meta.json").read_bytes())
    assert told["schema_version"] == "1.0"
    assert told["checksum"] == hashlib.sha256(data).hexdigest()
    assert told["file_size"] == len(data)
    (row,) = csv.DictReader(io.StringIO(data.decode(), newline=""))
    assert tuple(row) == COLUMNS
    assert (told["auftrag_nr"], str(told["record_id"])) == (row["auftrag_nr"], row["record_id"])
    assert told["exported_at"]
    return row


def everything(root: Path) -> dict[str, bytes]:
    """Every file under a directory, by its path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
