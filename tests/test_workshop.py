"""A workshop moves to refold, works in two places and in its old program at once, loses everything but a share, and has
it all back.

What must come of it is kept beside, in dictionaries of plain rows that no line of refold ever touches, and is compared
with the folders as the older tool reads them, with its table, and with a second recovery.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .adapters.adopting import old_tool
from .adapters.adopting.old_tool import COLUMNS, order

ORDERS = 1000
NAMES = ("Müller", "Weiß, Anna", 'Autohaus "Süd"', "Jäger\nGmbH", "=SUM(A1)", " Lenz ", "Łukasz")
Row = dict[str, Any]
Fault = Callable[[Path, Row], object]


def _seal(place: Path, row: Row, data: bytes, version: str = "1.0") -> None:
    (place / "data.csv").write_bytes(data)
    (place / "meta.json").write_bytes(old_tool.meta(row, data, version))


def _tampered(place: Path, row: Row) -> None:
    data = (place / "data.csv").read_bytes()
    (place / "data.csv").write_bytes(data.replace(row["kunden_nr"].encode(), b"K99999"))


LEFT_OUT: tuple[Fault, ...] = (
    _tampered,
    lambda place, row: (place / "data.csv").write_bytes(b""),
    lambda place, row: os.truncate(place / "data.csv", 150),
    lambda place, row: _seal(place, row, old_tool.spelt(row), "9.7"),
    lambda place, row: _seal(place, row, old_tool.spelt({**row, "datum": "31.12.2024"})),
    lambda place, row: _seal(place, row, old_tool.spelt({**row, "auftrag_nr": "76"})),
    lambda place, row: _seal(place, row, old_tool.spelt({**row, "auftrag_nr": ""})),
    lambda place, row: (place / "meta.json").write_bytes(b"{"),
)
"""What makes a folder's row one that cannot be taken."""

HARMLESS: tuple[Fault, ...] = (
    lambda place, row: (place / "meta.json").unlink(),
    lambda place, row: _seal(place, row, b"\xef\xbb\xbf" + old_tool.spelt(row)),
    lambda place, row: _seal(place, row, old_tool.spelt(row).replace(b"0\n", b"0\r\n").replace(b"1\n", b"1\r\n")),
    lambda place, row: (place / Path(row["file_path"]).name).unlink(),
)
"""What is told, if at all, and does no harm to the row."""


class Workshop:
    """The archive as the older tool left it, and what is known of it: `rows` are those that hold, by number."""

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root = root
        self.draw = draw
        self.rows: dict[int, Row] = {}
        self.aside: dict[str, bytes] = {}
        self.losing = 0
        table = []
        for number in range(1, ORDERS + 1):
            row = order(number, kunde_name=draw.choice(NAMES), kunden_nr=f"K{number:05d}")
            self.rows[number] = row
            if (kept := self._order(number, row)) is not None:
                table.append(kept)
        old_tool.fill(root, table)

    def _order(self, number: int, row: Row) -> Row | None:
        """Writes one order's folder; its row in the table, if it is there too."""
        draw, chance = self.draw, self.draw.random()
        place = old_tool.export(self.root, row, backslash=draw.random() < 0.5)
        name = place.relative_to(self.root).as_posix()
        if chance < 0.06:
            draw.choice(LEFT_OUT)(place, row)
            self.aside[name] = (place / "data.csv").read_bytes()
            if number % 3 == 0:
                del self.rows[number]
                return None
        elif chance < 0.1:
            draw.choice(HARMLESS)(place, row)
        elif chance < 0.12:
            old_tool.export(
                self.root, {**row, "kunde_name": "old", "updated_at": "2001-01-01"}, folder=f"copies/{number}"
            )
            self.losing += 1
        elif chance < 0.14:
            newer = {**row, "kunde_name": "newer in the table", "updated_at": "2025-05-05T05:05:05"}
            self.rows[number] = newer
            self.losing += 1
            return newer
        elif chance < 0.16:
            return None
        return row


class Place:
    """One machine's archive, by the commands that a person gives there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *arguments: str, code: int = 0, told: str | None = None) -> Any:
        """What a command answers; it must end with this code."""
        program = "from refold_adapters.cli import main; main()"
        command = [sys.executable, "-c", program, "-C", str(self.root), *arguments]
        done = subprocess.run(
            command, input=told, capture_output=True, text=True, timeout=120, check=False, cwd=self.root.parent
        )
        assert done.returncode == code, (arguments, done.stdout[-2000:], done.stderr[-2000:])
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else done.stdout

    def table(self) -> dict[int, Row]:
        """The table, as the old program reads it."""
        with closing(sqlite3.connect(self.root / "werkstatt.db")) as connection:
            connection.row_factory = sqlite3.Row
            return {row["record_id"]: dict(row) for row in connection.execute("SELECT * FROM auftraege")}

    def folders(self) -> dict[int, dict[str, str]]:
        """Every order's folder, as the older tool reads it, but for those that were left out and have no other row."""
        found = {}
        for data in self.root.glob("2*/*/data.csv"):
            if not (data.parent / "events.jsonl").exists():
                aside = self.root / "quarantine" / data.relative_to(self.root)
                assert aside.read_bytes() == data.read_bytes()
                continue
            row = old_tool.read(data.parent)
            assert row["file_path"].startswith(data.parent.relative_to(self.root).as_posix())
            found[int(row["record_id"])] = row
        return found


def _text(row: Row) -> dict[str, str]:
    return {name: "" if row[name] is None else str(row[name]) for name in COLUMNS}


def _work_in_the_old_program(place: Place, rows: dict[int, Row], draw: random.Random) -> None:
    """Changes, new orders, removed ones, some of them in one transaction, and a table that is written anew."""
    with closing(sqlite3.connect(place.root / "werkstatt.db")) as connection:
        for number in draw.sample(sorted(rows), 60):
            rows[number] = {**rows[number], "kennzeichen": f"B-ALT {number}", "updated_at": "2026-01-02T03:04:05"}
            connection.execute(
                "UPDATE auftraege SET kennzeichen = :kennzeichen, updated_at = :updated_at"
                " WHERE record_id = :record_id",
                rows[number],
            )
        for number in range(ORDERS + 1, ORDERS + 21):
            rows[number] = order(number, kunde_name="new")
            marks = ", ".join(f":{name}" for name in COLUMNS)
            connection.execute(f"INSERT INTO auftraege VALUES ({marks})", rows[number])
        for number in draw.sample(sorted(rows), 10):
            del rows[number]
            connection.execute("DELETE FROM auftraege WHERE record_id = ?", (number,))
        connection.commit()
        everything = connection.execute("SELECT * FROM auftraege").fetchall()
        connection.execute("DELETE FROM auftraege")
        connection.executemany(f"INSERT INTO auftraege VALUES ({', '.join('?' * len(COLUMNS))})", everything)
        connection.commit()


def _edit(place: Place, rows: dict[int, Row], chosen: list[int], field: str, value: str) -> None:
    """Changes a field of some orders in one import."""
    for number in chosen:
        rows[number] = {**rows[number], field: f"{value} {number}"}
    lines = "\n".join(f"{number},{value} {number}" for number in chosen)
    place.run("import", "auftraege", "-", "--format", "csv", told=f"record_id,{field}\n{lines}\n")


def _agree(place: Place, rows: dict[int, Row], *, table: bool = True) -> None:
    """The folders and the table of a place are what the rows say, and everything in it proves itself."""
    assert place.folders() == {number: _text(row) for number, row in rows.items()}
    if table:
        assert place.table() == rows
    assert place.run("verify", "--json")["ok"]


@pytest.fixture
def draw() -> random.Random:
    return random.Random(20240729)


def test_nothing_is_lost_from_the_old_archive_to_its_recovery(tmp_path: Path, draw: random.Random) -> None:
    shop, branch, share = Place(tmp_path / "shop"), Place(tmp_path / "branch"), f"dir://{tmp_path / 'share'}"
    workshop = Workshop(shop.root, draw)
    rows = workshop.rows
    documents = {path: path.read_bytes() for path in shop.root.rglob("*.pdf")}

    report = shop.run("adopt", str(shop.root), "--preset", "workshop", "--write", "--json", code=3)
    assert (report["records"], report["losing"]) == (len(rows), workshop.losing)
    for folder, data in workshop.aside.items():
        assert (shop.root / "quarantine" / folder / "data.csv").read_bytes() == data
    shop.run("capture", "install", "werkstatt.db", "auftraege")
    _agree(shop, rows)

    (tmp_path / "share").mkdir()
    branch.run("init", "--replica", "branch")
    shop.run("sync", share)
    branch.run("sync", share)
    _agree(branch, rows, table=False)

    edited = draw.sample(sorted(rows), 120)
    _work_in_the_old_program(shop, rows, draw)
    shop.run("capture", "run", "--once")
    _agree(shop, rows)
    edited = [number for number in edited if number in rows]
    _edit(shop, rows, edited[:80], "kunde_name", "shop")
    _edit(branch, rows, edited[40:], "kunde_name", "branch")
    _edit(branch, rows, edited[:40], "vin", "branch")
    for place in (shop, branch, shop):
        place.run("sync", share)
    _agree(shop, rows)
    _agree(branch, rows, table=False)
    digest = shop.run("digest")
    assert branch.run("digest") == digest
    quality = shop.run("conflicts", "--summary", "--json")
    assert quality["conflicts"]["all"]["settled"] >= 40
    assert documents == {path: path.read_bytes() for path in documents}

    copied = tmp_path / "copied"
    shutil.copytree(shop.root, copied, ignore=shutil.ignore_patterns("*.db*"))
    before = shop.table()
    shutil.rmtree(shop.root)
    shutil.rmtree(branch.root)
    shutil.rmtree(tmp_path / "share")
    rescued = Place(tmp_path / "rescued")
    told = rescued.run("recover", str(copied), "-o", str(rescued.root), "--json")
    assert (told["whole"], told["digest"]) == (True, digest.strip())
    shutil.copy(copied / "refold.toml", rescued.root)
    assert rescued.run("capture", "run", "--once") is not None
    _agree(rescued, rows)
    assert rescued.table() == before
    again = Place(tmp_path / "again")
    assert again.run("recover", str(rescued.root), "-o", str(again.root), "--json")["digest"] == told["digest_after"]
    for number in rows:
        name = f"{rows[number]['file_path'].rpartition('/')[0]}/data.csv"
        assert (again.root / name).read_bytes() == (rescued.root / name).read_bytes() == (copied / name).read_bytes()
