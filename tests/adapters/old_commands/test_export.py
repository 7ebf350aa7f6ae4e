"""Export: what the older tool reads in every folder, and that nothing anybody wrote is lost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refold.errors import ArchiveMissing, StorageFailed
from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order

from .workplace import Workshop, kinds


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "archive")


def as_read(row: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in row.items()}


def test_every_folder_is_what_the_older_tool_writes(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "archive", exported=False)
    outcome = workshop.run("export")
    assert (outcome.exported, outcome.unchanged, outcome.errors) == (6, 0, 0)
    for number in range(1, 7):
        place = workshop.place(number)
        assert old_tool.read(place) == as_read(order(number))
        assert (place / "data.csv").read_bytes() == old_tool.spelt(order(number))
        assert (place / "meta.json").read_bytes() == old_tool.meta(order(number), old_tool.spelt(order(number)))
        assert sorted(path.name for path in place.iterdir()) == ["data.csv", "meta.json"]


def test_what_has_not_changed_is_left_alone_and_the_older_spelling_is_brought_up_to_date(workshop: Workshop) -> None:
    before = old_tool.everything(workshop.root)
    outcome = workshop.run("export")
    assert (outcome.exported, outcome.unchanged) == (3, 3)
    after = old_tool.everything(workshop.root)
    changed = {name.split("/")[1] for name in before if after[name] != before[name]}
    assert changed == {order(number)["auftrag_nr"] for number in (2, 4, 6)}
    assert workshop.run("export").unchanged == 6
    assert old_tool.everything(workshop.root) == {**after, "changelog.db.lock": b""}


def test_a_row_that_changed_is_written_and_one_that_breaks_a_rule_is_reported(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET kunde_name = 'Neu', updated_at = '2025-01-01T00:00:00' WHERE record_id = 1")
    workshop.execute("UPDATE auftraege SET datum = '31.12.2024' WHERE record_id = 2")
    workshop.execute("UPDATE auftraege SET auftrag_nr = '7602', file_path = NULL WHERE record_id = 3")
    workshop.execute("UPDATE auftraege SET file_path = '../../etc/cron.d/x.pdf' WHERE record_id = 4")
    before = {number: old_tool.read(workshop.place(number)) for number in (3,)}
    outcome = workshop.run("export")
    assert kinds(outcome) == [("table-row", "2"), ("table-row", "3"), ("table-row", "3"), ("table-row", "4")]
    assert {finding.field for finding in outcome.findings} == {"datum", "auftrag_nr", "file_path"}
    assert old_tool.read(workshop.place(1))["kunde_name"] == "Neu"
    assert {number: old_tool.read(workshop.place(number)) for number in before} == before
    assert workshop.code("export") == 3
    assert not (workshop.root.parent / "etc").exists()


def test_a_folder_that_is_newer_than_the_table_is_left_as_it_is(workshop: Workshop) -> None:
    newer = order(1, kunde_name="from the other host", updated_at="2025-06-01T00:00:00")
    old_tool.export(workshop.root, newer)
    assert kinds(workshop.run("export")) == [("folder-newer", "1")]
    assert old_tool.read(workshop.place(1)) == as_read(newer)


def test_a_file_that_was_edited_or_damaged_is_put_aside(workshop: Workshop) -> None:
    edited = old_tool.spelt(order(1, kunde_name="edited by hand"))
    (workshop.place(1) / "data.csv").write_bytes(edited)
    cut = (workshop.place(2) / "data.csv").read_bytes()[:-40]
    (workshop.place(2) / "data.csv").write_bytes(cut)
    outcome = workshop.run("export")
    assert kinds(outcome) == [("put-aside", "1"), ("put-aside", "2")]
    assert (outcome.put_aside, outcome.errors, outcome.warnings) == (2, 0, 2)
    for number, data in ((1, edited), (2, cut)):
        assert [path.read_bytes() for path in workshop.place(number).glob("data.csv.aside-*")] == [data]
        assert old_tool.read(workshop.place(number)) == as_read(order(number))


def test_a_folder_of_another_record_is_not_written_over_while_that_record_lives(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET file_path = ? WHERE record_id = 2", order(1)["file_path"])
    assert kinds(workshop.run("export")) == [("folder-taken", "2")]
    assert old_tool.read(workshop.place(1))["record_id"] == "1"
    workshop.execute("DELETE FROM auftraege WHERE record_id = 1")
    outcome = workshop.run("export")
    assert kinds(outcome) == [("put-aside", "2")]
    assert old_tool.read(workshop.place(1))["record_id"] == "2"
    assert len(list(workshop.place(1).glob("data.csv.aside-*"))) == 1


def test_a_folder_of_an_unknown_version_is_left_as_it_is(workshop: Workshop) -> None:
    old_tool.export(workshop.root, order(1, kunde_name="other"), version="9.7")
    before = old_tool.everything(workshop.place(1))
    assert kinds(workshop.run("export")) == [("version-unknown", "1")]
    assert old_tool.everything(workshop.place(1)) == before


def test_a_write_that_was_interrupted_is_finished(workshop: Workshop) -> None:
    (workshop.place(1) / "data.csv").write_bytes(old_tool.spelt(order(1))[:50])
    outcome = workshop.run("export")
    assert (outcome.findings, outcome.put_aside) == ([], 0)
    assert old_tool.read(workshop.place(1)) == as_read(order(1))
    (workshop.place(1) / "meta.json").write_bytes(old_tool.meta(order(1), b"another"))
    assert workshop.run("export").exported == 1
    assert old_tool.read(workshop.place(1)) == as_read(order(1))


def test_a_link_in_the_way_leads_nowhere(workshop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in workshop.place(1).iterdir():
        path.unlink()
    workshop.place(1).rmdir()
    workshop.place(1).symlink_to(outside)
    assert kinds(workshop.run("export")) == [("unwritable", "1")]
    assert list(outside.iterdir()) == []


def test_without_a_database_or_without_folders_nothing_is_made_up(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing):
        workshop.run("export", archive=tmp_path / "not mounted")
    assert not (tmp_path / "not mounted").exists()
    with pytest.raises(StorageFailed, match="refold restore"):
        workshop.run("export", db=tmp_path / "gone.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE other (a)")
    with pytest.raises(StorageFailed, match="auftraege"):
        workshop.run("export", db=tmp_path / "other.db")


texts = st.text(alphabet=st.sampled_from("ab ,;\"\\\r\n\t=+'äß\ufeff\u2028\x7f"), max_size=8)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(texts, texts, st.none() | texts), min_size=1, max_size=4))
def test_whatever_a_cell_holds_the_older_tool_reads_it_and_restore_brings_it_back(
    rows: list[tuple[str, str, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    workshop = Workshop(tmp_path_factory.mktemp("w") / "archive", range(1, 1), exported=False)
    wanted = {
        number: order(number, kunde_name=name, keywords_json=json.dumps({words: [1]}), vin=vin)
        for number, (name, words, vin) in enumerate(rows, 1)
    }
    for row in wanted.values():
        marks = ", ".join("?" * len(row))
        workshop.execute(f"INSERT INTO auftraege VALUES ({marks})", *row.values())
    assert workshop.run("export").errors == 0
    for number, row in wanted.items():
        assert old_tool.read(workshop.place(number)) == as_read(row)
    assert workshop.code("verify") == 0
    workshop.db.unlink()
    assert workshop.code("restore") == 0
    assert {number: as_read(row) for number, row in workshop.rows().items()} == {
        number: as_read(row) for number, row in wanted.items()
    }
