"""The record that everything is measured with: fourteen columns, about 400 bytes, invented, the same on every run.

It has the shape of a workshop's order. `RAW_*` is what a program would do that talks to sqlite3 itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec

from refold.events import Event, Kind, seal
from refold.replay import REPLAY_BATCH
from refold.schema import Collection, Field, to_data
from refold_adapters.sqlite_log import SqliteLog

NAME = "auftraege"
COLUMNS = {
    "record_id": "str",
    "auftrag_nr": "str",
    "kunde_nr": "str",
    "kunde_name": "str",
    "strasse": "str",
    "plz": "str",
    "ort": "str",
    "fahrzeug": "str",
    "kennzeichen": "str",
    "fahrgestell_nr": "str",
    "datum": "date",
    "kilometer": "int",
    "betrag": "float?",
    "bemerkung": "str",
}
SHARED = "{datum:%Y}/{kunde_nr}"
"""A folder a customer and year: several records share one."""
SINGLE = "{datum:%Y}/{auftrag_nr}"
"""A folder for each record."""

_SURNAMES = ("Müller", "Groß", "Yılmaz", "Kowalski", "Süd & Söhne", "Weiß", "Jørgensen", "Lefèvre")
_TOWNS = (("80331", "München"), ("50667", "Köln"), ("99084", "Erfurt"), ("24103", "Kiel"), ("70173", "Stuttgart"))
_CARS = ("Opel Astra K 1.6 CDTI", "VW Golf VII Variant", "Škoda Octavia III", "Ford Transit Custom", "Renault Zoé R110")
_NOTES = (
    "Inspektion nach Herstellervorgabe, Bremsflüssigkeit erneuert, Zahnriemen geprüft",
    "Kunde wünscht Anruf vor Arbeiten über 300 Euro; Ersatzwagen bis Freitag",
    "Unfallschaden vorne links, Kotflügel und Scheinwerfer ersetzt, Lack RAL 5015",
)
_FIRST_DAY = date(2015, 1, 5)


def collection(folder: str = SHARED) -> Collection:
    """The collection of these records."""
    fields = {name: Field(kind.rstrip("?"), null=kind.endswith("?")) for name, kind in COLUMNS.items()}
    return Collection(name=NAME, key="record_id", fields=fields, folder=folder)


def record(number: int, *, shuffled: bool = False) -> dict[str, Any]:
    """The record with this number, in stored values; keys grow with it, as order numbers do, unless `shuffled`."""
    mixed = number * 2654435761 % 2**32
    customer = mixed % 1000
    plz, ort = _TOWNS[customer % 5]
    return {
        "record_id": f"{mixed:08x}-{number:08d}" if shuffled else f"{number:08d}-{mixed:08x}",
        "auftrag_nr": f"{number:08d}",
        "kunde_nr": f"K{customer:05d}",
        "kunde_name": f"Autohaus {_SURNAMES[customer % 8]} {customer} GmbH",
        "strasse": f"Industriestraße {customer % 199 + 1}",
        "plz": plz,
        "ort": ort,
        "fahrzeug": _CARS[mixed % 5],
        "kennzeichen": f"M-{chr(65 + mixed % 26)}{chr(65 + mixed // 26 % 26)} {mixed % 9000 + 1000}",
        "fahrgestell_nr": f"W0L{mixed:014d}",
        "datum": (_FIRST_DAY + timedelta(days=mixed % 3650)).isoformat(),
        "kilometer": mixed % 300_000,
        "betrag": mixed % 500_000 / 100 if mixed % 10 else None,
        "bemerkung": _NOTES[mixed % 3],
    }


def records(count: int, start: int = 0, *, shuffled: bool = False) -> list[dict[str, Any]]:
    """Records one after the other."""
    return [record(number, shuffled=shuffled) for number in range(start, start + count)]


def definition(folder: str) -> Event:
    """The event that defines the collection, first of its log."""
    data = to_data(collection(folder))
    return Event("office", 1, 1 << 16, Kind.DEFINE, NAME, "", data, {}, "bench", 1, 1, None, {}, bytes(32))


def events(seq: int, previous: bytes, values: list[dict[str, Any]]) -> Iterator[tuple[Event, bytes, bytes]]:
    """Events that create records, linked to the one before, with their bytes and hashes, as one batch."""
    last = seq + len(values) - 1
    for number, data in enumerate(values, seq):
        event = Event(
            "office",
            number,
            number << 16,
            Kind.CREATE,
            NAME,
            data["record_id"],
            data,
            {},
            "bench",
            1,
            last,
            None,
            {},
            previous,
        )
        body, previous = seal(event)
        yield event, body, previous


def append(log: SqliteLog, sealed: list[tuple[Event, bytes, bytes]]) -> bytes:
    """Appends events to a log; the hash of the last."""
    made, bodies, hashes = zip(*sealed, strict=True)
    log.append(made, bodies, hashes)
    return sealed[-1][2]


def raw_connection(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """sqlite3 as its manual recommends it: WAL, explicit transactions."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def raw_log(path: Path) -> sqlite3.Connection:
    """A log without any index but its position."""
    connection = raw_connection(path)
    connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, replica TEXT, seq INTEGER, body BLOB)")
    return connection


RAW_INSERT = "INSERT INTO events (replica, seq, body) VALUES (?, ?, ?)"
_encode = msgspec.msgpack.Encoder().encode


def raw_row(seq: int, data: dict[str, Any]) -> tuple[str, int, bytes]:
    """The row of a raw log: an event of as many fields, without a chain."""
    body = _encode(("office", seq, seq << 16, "create", NAME, data["record_id"], data, {}, "bench", 1, seq, None, {}))
    return "office", seq, body


def raw_replay(log: sqlite3.Connection, table: sqlite3.Connection) -> int:
    """Reads a log, decodes its events and upserts them into a typed table, a batch a transaction; how many."""
    names = sorted(COLUMNS)
    kinds = {"int": "INTEGER", "float?": "REAL"}
    specs = [f"{name} {kinds.get(COLUMNS[name], 'TEXT')}" for name in names]
    table.execute(f"CREATE TABLE auftraege ({', '.join(specs)}, PRIMARY KEY (record_id))")
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != "record_id")
    upsert = (
        f"INSERT INTO auftraege VALUES ({', '.join('?' * len(names))}) ON CONFLICT (record_id) DO UPDATE SET {updates}"
    )
    decode = msgspec.msgpack.Decoder(Event).decode
    position = count = 0
    select = "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?"
    while rows := log.execute(select, (position, REPLAY_BATCH)).fetchall():
        position = rows[-1][0]
        decoded = [decode(body) for _, body in rows]
        values = [tuple(event.data.values()) for event in decoded if event.kind is not Kind.DEFINE]
        table.execute("BEGIN")
        table.executemany(upsert, values)
        table.execute("COMMIT")
        count += len(values)
    return count
