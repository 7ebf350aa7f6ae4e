"""The same commands once the folders are a refold archive's, and the old program's table is mirrored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

import refold
from refold.errors import Locked
from refold_adapters.adopting.adopt import adopt
from refold_adapters.adopting.layout import preset
from refold_adapters.capture.installing import install
from refold_adapters.old_commands.adopted import NotMirrored
from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order

from .workplace import START, Workshop, kinds

WORKSHOP = preset("workshop")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path / "archive")

    async def take_over() -> None:
        await adopt(workshop.root, WORKSHOP, write=True, clock=lambda: START)
        await install(workshop.root, "werkstatt.db", "auftraege")

    anyio.run(take_over)
    return workshop


def names_of(workshop: Workshop) -> dict[str, object]:
    async def read() -> dict[str, object]:
        async with refold.open(workshop.root, readonly=True) as engine:
            return {record.key: record.values["kunde_name"] async for record in engine.find("auftraege")}

    return anyio.run(read)


def silently(workshop: Workshop, sql: str) -> None:
    """Changes the table as nobody's write, which the triggers do not see."""
    with closing(sqlite3.connect(workshop.db)) as connection, connection:
        connection.execute("UPDATE refold_mirrors SET applying = 1")
        connection.execute(sql)
        connection.execute("UPDATE refold_mirrors SET applying = 0")


def test_export_takes_in_what_the_old_program_wrote_and_its_reader_reads_it(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET kunde_name = 'Neu' WHERE record_id < 3")
    workshop.execute("UPDATE auftraege SET datum = 'x' WHERE record_id = 4")
    outcome = workshop.run("export")
    assert (outcome.kind, outcome.captured, outcome.exported) == ("refold", 2, 2)
    assert kinds(outcome) == [("table-row", "4")]
    assert [old_tool.read(workshop.place(number))["kunde_name"] for number in (1, 2)] == ["Neu", "Neu"]
    assert old_tool.read(workshop.place(4))["datum"] == order(4)["datum"]
    workshop.execute("UPDATE auftraege SET datum = '2026-01-02' WHERE record_id = 4")
    assert workshop.code("export") == 0
    assert workshop.code("verify") == 0


def test_verify_tells_what_waits_from_what_was_changed_unseen(workshop: Workshop) -> None:
    assert workshop.run("verify").verified == 6
    workshop.execute("UPDATE auftraege SET kunde_name = 'Neu' WHERE record_id = 1")
    silently(workshop, "UPDATE auftraege SET kunde_name = 'x' WHERE record_id = 2")
    silently(workshop, "DELETE FROM auftraege WHERE record_id = 3")
    (workshop.place(4) / "data.csv").write_bytes(b"edited")
    found = kinds(workshop.run("verify"))
    assert [one for one in found if one[0] in ("waiting", "table-differs", "record-only")] == [
        ("record-only", "3"), ("table-differs", "2"), ("waiting", "1"),
    ]  # fmt: skip
    assert any(kind.startswith(("folder", "edit")) for kind, _ in found)
    assert workshop.code("verify") == 4


def test_restore_puts_rows_back_and_leaves_what_waits(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET kunde_name = 'waits' WHERE record_id = 1")
    silently(workshop, "UPDATE auftraege SET kunde_name = 'x' WHERE record_id = 2")
    silently(workshop, "DELETE FROM auftraege WHERE record_id = 3")
    outcome = workshop.run("restore")
    assert (outcome.created, outcome.changed, outcome.removed) == (1, 1, 0)
    rows = workshop.rows()
    assert (rows[1]["kunde_name"], rows[2], rows[3]) == ("waits", order(2), order(3))
    assert workshop.run("export").captured == 1
    assert names_of(workshop)["1"] == "waits"
    assert workshop.code("verify") == 0


def lost(db: Path) -> None:
    db.unlink()


def damaged(db: Path) -> None:
    db.write_bytes(db.read_bytes()[:6000])


@pytest.mark.parametrize("harm", [lost, damaged])
def test_a_lost_database_comes_back_with_its_bookkeeping(workshop: Workshop, harm: Callable[[Path], None]) -> None:
    workshop.execute("UPDATE auftraege SET kunde_name = 'Neu' WHERE record_id = 1")
    workshop.run("export")
    with closing(sqlite3.connect(workshop.db)) as connection:
        made = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'auftraege'").fetchone()
    harm(workshop.db)
    assert workshop.code("verify") == 4
    assert workshop.run("restore").created == 6
    with closing(sqlite3.connect(workshop.db)) as connection:
        again = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'auftraege'").fetchone()
    assert "".join(again[0].split()) == "".join(made[0].split())
    assert workshop.rows()[1]["kunde_name"] == "Neu"
    workshop.execute("UPDATE auftraege SET kunde_name = 'later' WHERE record_id = 1")
    assert workshop.run("export").captured == 1
    assert names_of(workshop)["1"] == "later"
    assert workshop.code("verify") == 0


def test_a_table_elsewhere_is_a_copy(workshop: Workshop, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy.db"
    assert workshop.run("restore", db=elsewhere).restored == 6
    assert workshop.run("verify", db=elsewhere).verified == 6
    assert workshop.run("restore", db=elsewhere, dry_run=True).changed == 0
    with pytest.raises(NotMirrored, match="does not mirror"):
        workshop.run("export", db=elsewhere)
    before = workshop.db.read_bytes()
    assert workshop.run("restore", dry_run=True).restored == 6
    assert workshop.db.read_bytes() == before


def test_the_archive_is_waited_for(workshop: Workshop) -> None:
    async def hold() -> None:
        async with refold.open(workshop.root):
            with pytest.raises(Locked):
                await anyio.to_thread.run_sync(lambda: workshop.run("export"))
            with pytest.raises(Locked):
                await anyio.to_thread.run_sync(lambda: workshop.run("restore"))
            assert (await anyio.to_thread.run_sync(lambda: workshop.run("verify"))).verified == 6

    anyio.run(hold)


def test_folders_whose_log_was_lost_are_not_taken_for_plain_ones(workshop: Workshop) -> None:
    for path in workshop.root.glob("*.db*"):
        if not path.name.startswith("werkstatt"):
            path.unlink()
    outcome = workshop.run("verify")
    assert ("no-log", None) in kinds(outcome)
    before = old_tool.everything(workshop.root / "2024")
    assert kinds(workshop.run("export")) == [("no-log", str(number)) for number in range(1, 7)]
    assert old_tool.everything(workshop.root / "2024") == before
