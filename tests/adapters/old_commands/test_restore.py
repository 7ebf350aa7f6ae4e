"""Restore: the table as the folders have it, all or nothing, with the database in place until then."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from refold.errors import InputRefused, StorageFailed
from refold_adapters.adopting.layout import preset
from refold_adapters.old_commands import restoring
from refold_adapters.old_commands.outcome import Outcome
from refold_adapters.old_commands.restoring import put_back
from refold_adapters.old_commands.staging import Staging
from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order

from .workplace import Workshop, kinds

EVERY = {number: order(number) for number in range(1, 7)}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "archive")


def test_a_lost_database_comes_back_row_by_row(workshop: Workshop) -> None:
    workshop.db.unlink()
    outcome = workshop.run("restore")
    assert (outcome.restored, outcome.created, outcome.errors, outcome.kept) == (6, 6, 0, None)
    assert workshop.rows() == EVERY
    with closing(sqlite3.connect(workshop.db)) as connection:
        described = connection.execute("SELECT name, type, pk FROM pragma_table_info('auftraege')").fetchall()
    numbers = {"record_id": "INTEGER", "data_complete": "INTEGER"}
    assert described == [(name, numbers.get(name, "TEXT"), int(name == "record_id")) for name in old_tool.COLUMNS]
    assert workshop.code("verify") == 0


def test_a_database_in_order_is_changed_where_it_differs_and_a_copy_is_kept(workshop: Workshop) -> None:
    with closing(sqlite3.connect(workshop.db)) as connection, connection:
        connection.execute("ALTER TABLE auftraege ADD COLUMN remark TEXT")
        connection.execute("CREATE TABLE other AS SELECT 1 AS a")
        connection.execute("UPDATE auftraege SET remark = 'mine', vin = '' WHERE record_id = 1")
        connection.execute("UPDATE auftraege SET kunde_name = 'garbled' WHERE record_id = 2")
        connection.execute("DELETE FROM auftraege WHERE record_id = 3")
    open_before = sqlite3.connect(workshop.db)
    outcome = workshop.run("restore")
    assert (outcome.created, outcome.changed, outcome.removed, outcome.errors) == (1, 2, 0, 0)
    rows = workshop.rows()
    assert rows[1].pop("remark") == "mine"
    assert {number: {k: v for k, v in row.items() if k != "remark"} for number, row in rows.items()} == EVERY
    with closing(open_before) as connection:
        assert connection.execute("SELECT a FROM other").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM auftraege").fetchone() == (6,)
    with closing(sqlite3.connect(str(outcome.kept))) as connection:
        assert connection.execute("SELECT kunde_name FROM auftraege WHERE record_id = 2").fetchone() == ("garbled",)
    assert workshop.run("restore").kept is None


def test_what_only_the_database_had_is_named_before_it_is_replaced_and_kept_beside(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET updated_at = '2026-02-01T00:00:00' WHERE record_id = 1")
    shutil.rmtree(workshop.place(2))
    outcome = workshop.run("restore")
    assert kinds(outcome) == [("table-newer", "1"), ("table-only", "2")]
    assert (outcome.changed, outcome.removed) == (1, 1)
    with closing(sqlite3.connect(str(outcome.kept))) as connection:
        assert connection.execute("SELECT count(*) FROM auftraege").fetchone() == (6,)
    workshop.execute("DELETE FROM auftraege")
    again = workshop.run("restore")
    assert again.kept != outcome.kept and again.kept is not None


def test_a_damaged_database_is_replaced_and_kept(workshop: Workshop) -> None:
    damaged = workshop.db.read_bytes()[:5000].ljust(8192, b"x")
    workshop.db.write_bytes(damaged)
    workshop.db.chmod(0o640)
    outcome = workshop.run("restore")
    assert outcome.restored == 6
    assert workshop.rows() == EVERY
    assert workshop.db.stat().st_mode & 0o777 == 0o640
    kept = Path(str(outcome.kept))
    assert kept.read_bytes() == damaged
    assert sorted(path.name for path in workshop.root.glob("werkstatt*")) == [
        "werkstatt.db", kept.name, "werkstatt.db.lock",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_journal_of_the_lost_database_is_not_taken_for_one_of_the_new(workshop: Workshop, mode: str) -> None:
    with closing(sqlite3.connect(workshop.db)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE auftraege SET kunde_name = hex(zeroblob(9000))")
        suffix = {"DELETE": "-journal", "WAL": "-wal"}[mode]
        journal = workshop.db.with_name(workshop.db.name + suffix)
        left = journal.read_bytes()
        connection.execute("ROLLBACK")
    assert left
    workshop.db.unlink()
    journal.write_bytes(left)
    assert workshop.run("restore").restored == 6
    assert workshop.rows() == EVERY
    assert workshop.db.with_name(f"{workshop.db.name}.before-restore{suffix}").read_bytes() == left


def test_of_several_folders_with_one_record_the_one_that_was_changed_last_holds(workshop: Workshop) -> None:
    old_tool.export(workshop.root, order(1, kunde_name="old", updated_at="2001-01-01T00:00:00"), folder="a/1")
    old_tool.export(workshop.root, order(2, kunde_name="new", updated_at="2025-01-01T00:00:00"), folder="a/2")
    workshop.db.unlink()
    outcome = workshop.run("restore")
    assert kinds(outcome) == [("duplicate", "1"), ("duplicate", "2")]
    assert (outcome.errors, outcome.warnings, workshop.code("restore")) == (0, 2, 0)
    assert [workshop.rows()[number]["kunde_name"] for number in (1, 2)] == [order(1)["kunde_name"], "new"]


def test_folders_that_cannot_be_taken_are_named_and_the_others_restored(workshop: Workshop) -> None:
    (workshop.place(1) / "data.csv").write_bytes(b"rot")
    old_tool.export(workshop.root, order(2, auftrag_nr=""))
    workshop.db.unlink()
    outcome = workshop.run("restore")
    assert kinds(outcome) == [("checksum", None), ("value-refused", None)]
    assert sorted(workshop.rows()) == [3, 4, 5, 6]
    assert workshop.code("restore") == 3


def test_a_folder_whose_export_was_interrupted_between_its_files_is_restored_as_it_was_to_be(
    workshop: Workshop,
) -> None:
    data = old_tool.spelt(order(1, kunde_name="Neu"))
    (workshop.place(1) / "data.csv").write_bytes(data)
    (workshop.place(1) / "meta.json.refold").write_bytes(old_tool.meta(order(1), data))
    workshop.db.unlink()
    outcome = workshop.run("restore")
    assert (outcome.restored, outcome.errors, kinds(outcome)) == (6, 0, [("unfinished", None)])
    assert workshop.rows()[1]["kunde_name"] == "Neu"
    assert workshop.run("export").errors == 0
    assert sorted(path.name for path in workshop.place(1).iterdir() if path.suffix != ".pdf") == [
        "data.csv",
        "meta.json",
    ]
    assert workshop.run("verify").findings == []


def test_records_of_an_older_version_get_the_fields_that_came_since(workshop: Workshop, tmp_path: Path) -> None:
    text = (Path(restoring.__file__).parents[1] / "adopting/workshop.toml").read_text(encoding="utf-8")
    (tmp_path / "newer.toml").write_text(text + '\n[collections.auftraege.fields.remark]\ntype = "str?"\n', "utf-8")
    outcome = workshop.run("restore", layout=tmp_path / "newer.toml")
    assert (outcome.restored, outcome.changed) == (6, 0)
    assert {row["remark"] for row in workshop.rows().values()} == {None}


def test_folders_that_are_not_there_empty_no_table(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "mountpoint").mkdir()
    with pytest.raises(InputRefused):
        workshop.run("restore", archive=tmp_path / "mountpoint")
    assert workshop.rows() == EVERY


def test_a_rehearsal_changes_nothing_and_says_what_would_be(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET vin = 'x' WHERE record_id < 3")
    workshop.execute("DELETE FROM auftraege WHERE record_id = 5")
    before = workshop.db.read_bytes()
    outcome = workshop.run("restore", dry_run=True)
    assert (outcome.restored, outcome.created, outcome.changed, outcome.removed) == (6, 1, 2, 0)
    assert workshop.db.read_bytes() == before
    workshop.db.unlink()
    assert workshop.run("restore", dry_run=True).created == 6
    assert not workshop.db.exists()


def test_a_table_that_does_not_become_what_it_should_stays_as_it_was(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET vin = 'x' WHERE record_id = 1")
    workshop.execute(
        "CREATE TRIGGER stamp AFTER UPDATE ON auftraege BEGIN"
        " UPDATE auftraege SET updated_at = 'now' WHERE record_id = NEW.record_id; END"
    )
    before = workshop.rows()
    with pytest.raises(StorageFailed, match="proving"):
        workshop.run("restore")
    assert workshop.rows() == before
    with closing(sqlite3.connect(workshop.db)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def test_two_rows_of_one_key_are_not_taken_for_one(workshop: Workshop) -> None:
    with closing(sqlite3.connect(workshop.db)) as connection, connection:
        connection.execute("ALTER TABLE auftraege RENAME TO old")
        connection.execute(f"CREATE TABLE auftraege ({', '.join(old_tool.COLUMNS)})")
        connection.execute("INSERT INTO auftraege SELECT * FROM old UNION ALL SELECT * FROM old WHERE record_id = 1")
    with pytest.raises(StorageFailed, match="proving"):
        workshop.run("restore")


def test_a_restore_that_fails_to_prove_what_it_made_leaves_no_trace(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = workshop.db.read_bytes()[:4100]
    workshop.db.write_bytes(damaged)
    monkeypatch.setattr(restoring, "differs", lambda one, other, names: "0 = 0" if one == "one" else "0")
    with pytest.raises(StorageFailed, match="proving"):
        workshop.run("restore")
    assert workshop.db.read_bytes() == damaged
    assert sorted(path.name for path in workshop.root.glob("werkstatt*")) == ["werkstatt.db", "werkstatt.db.lock"]


def test_points_are_reached_in_order(workshop: Workshop) -> None:
    workshop.db.unlink()
    points: list[str] = []
    described = preset("workshop")
    outcome = Outcome(command="restore", archive="", db="")
    with closing(Staging(described.schema, workshop.db, 0)) as staging:
        restoring.restore(workshop.root, described, staging, outcome, reached=points.append)
    assert points == ["gathered", "filled", "proved", "kept"]
    assert put_back is restoring.put_back
