"""Verify: every kind of damage and every difference is named, and nothing is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order

from .workplace import Workshop, kinds


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "archive")


def test_an_archive_in_order_is_verified_whole(workshop: Workshop) -> None:
    outcome = workshop.run("verify")
    assert (outcome.verified, outcome.errors, outcome.warnings) == (6, 0, 0)


def changed(workshop: Workshop, sql: str) -> bool:
    workshop.execute(f"UPDATE auftraege SET {sql} WHERE record_id = 1")
    return False


def data(workshop: Workshop, content: bytes) -> None:
    (workshop.place(1) / "data.csv").write_bytes(content)


def rewritten(workshop: Workshop, version: str = "1.0", **other: object) -> Path:
    return old_tool.export(workshop.root, order(1, **other), version=version)


FAULTS: dict[str, tuple[Callable[[Workshop], object], list[tuple[str, str | None]]]] = {
    "checksum": (lambda w: data(w, old_tool.spelt(order(1, vin="other"))), [("checksum", None), ("table-only", "1")]),
    "cut": (lambda w: data(w, old_tool.spelt(order(1))[:80]), [("checksum", None), ("table-only", "1")]),
    "no meta": (lambda w: (w.place(1) / "meta.json").unlink(), [("meta-missing", None)]),
    "bad meta": (
        lambda w: (w.place(1) / "meta.json").write_text("{"),
        [("meta-bad", None), ("table-only", "1")],
    ),
    "version": (lambda w: rewritten(w, "9.7"), [("table-only", "1"), ("version-unknown", None)]),
    "known version": (lambda w: rewritten(w, "2.0"), []),
    "bad date": (lambda w: rewritten(w, datum="31.12.2024"), [("table-only", "1"), ("value-refused", None)]),
    "no number": (lambda w: rewritten(w, auftrag_nr=""), [("table-only", "1"), ("value-refused", None)]),
    "differs": (lambda w: changed(w, "vin = 'other'"), [("table-differs", "1")]),
    "newer": (lambda w: changed(w, "vin = 'x', updated_at = '2026-01-01T00:00:00'"), [("table-newer", "1")]),
    "bad row": (lambda w: changed(w, "datum = 'x'"), [("table-differs", "1"), ("table-row", "1")]),
    "no bytes of text": (
        lambda w: changed(w, "vin = CAST(x'ff41' AS TEXT)"),
        [("table-differs", "1"), ("table-row", "1")],
    ),
    "row gone": (lambda w: w.execute("DELETE FROM auftraege WHERE record_id = 1"), [("folder-only", "1")]),
    "folder gone": (lambda w: data(w, b""), [("checksum", None), ("table-only", "1")]),
    "doubled": (lambda w: old_tool.export(w.root, order(1), folder="copies/1"), [("duplicate", "1")]),
    "a number as text": (lambda w: changed(w, "kunden_nr = 'K00001'"), []),
    "null for nothing": (lambda w: changed(w, "formular_version = ''") or rewritten(w, formular_version=""), []),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_nothing_is_changed(workshop: Workshop, name: str) -> None:
    plant, wanted = FAULTS[name]
    plant(workshop)
    before = old_tool.everything(workshop.root)
    outcome = workshop.run("verify")
    assert kinds(outcome) == wanted
    left = old_tool.everything(workshop.root)
    assert left.pop("changelog.db.lock") == b""
    assert left == before
    assert workshop.code("verify") == (4 if [kind for kind, _ in wanted if kind != "duplicate"] else 0)


def test_a_database_that_is_gone_damaged_or_empty_is_a_finding(workshop: Workshop) -> None:
    intact = workshop.db.read_bytes()
    for content, kind in ((intact[:4000] + bytes(96), "database-damaged"), (b"nothing" * 99, "database-damaged")):
        workshop.db.write_bytes(content)
        assert kinds(workshop.run("verify")) == [(kind, None)]
    workshop.db.unlink()
    assert kinds(workshop.run("verify")) == [("no-table", None)]
    with closing(sqlite3.connect(workshop.db)) as connection:
        connection.execute("CREATE TABLE other (a)")
    assert kinds(workshop.run("verify")) == [("no-table", None)]


def test_documents_are_read_when_they_are_asked_for(workshop: Workshop) -> None:
    (workshop.root / order(1)["file_path"]).write_bytes(b"rotten")
    (workshop.root / order(2)["file_path"]).unlink()
    assert workshop.run("verify").errors == 0
    found = kinds(workshop.run("verify", documents=True))
    assert found == [("document-differs", "1"), ("document-missing", "2")]


def test_numbers_that_the_program_keeps_as_text_are_the_same_numbers(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "archive")
    with closing(sqlite3.connect(workshop.db)) as connection, connection:
        connection.execute("ALTER TABLE auftraege RENAME TO old")
        columns = ", ".join(f"{name}{' TEXT' if name == 'data_complete' else ''}" for name in old_tool.COLUMNS)
        connection.execute(f"CREATE TABLE auftraege ({columns}, remark)")
        connection.execute("INSERT INTO auftraege SELECT *, 'kept' FROM old")
    assert workshop.run("verify").verified == 6
