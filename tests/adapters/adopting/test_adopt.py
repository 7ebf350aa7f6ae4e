"""Adoption: what an older tool left becomes records with a history, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import refold
from refold.clock import format_time, from_millis
from refold.errors import InputRefused, SettingsInvalid, StorageFailed
from refold_adapters.adopting import adopt as adopting
from refold_adapters.adopting import survey
from refold_adapters.adopting.adopt import AdoptReport, adopt, adopt_quarantined
from refold_adapters.adopting.layout import describe, preset
from refold_adapters.adopting.quarantine import Quarantine
from refold_adapters.recovery import restore

from . import old_tool
from .old_tool import order

pytestmark = pytest.mark.anyio

WORKSHOP = preset("workshop")
YEAR_2026 = 1_767_225_600_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of six orders in both spellings, with their table."""
    root = tmp_path / "archive"
    old_tool.fill(root, [order(number) for number in range(1, 7)])
    for number in range(1, 7):
        old_tool.export(root, order(number), backslash=number % 2 == 0)
    return root


def clock() -> int:
    return YEAR_2026


async def take(root: Path, **options: Any) -> AdoptReport:
    return await adopt(root, WORKSHOP, write=True, clock=clock, **options)


async def records(root: Path) -> dict[str, dict[str, Any]]:
    async with refold.open(root, readonly=True) as engine:
        return {record.key: dict(record.values) async for record in engine.find("auftraege")}


async def test_a_relative_path_will_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    assert (await take(Path(root.name))).written == 6


def second_version() -> refold.Collection:
    """The workshop's collection with a field renamed, one converted, one dropped and one added."""
    first = WORKSHOP.collection
    fields = {{"kunde_name": "kunde"}.get(name, name): field for name, field in first.fields.items() if name != "vin"}
    fields |= {"data_complete": refold.Field("bool", null=True), "telefon": refold.Field("str", default="unbekannt")}
    steps = [
        refold.Rename("kunde_name", "kunde"),
        refold.Convert("data_complete", "bool"),
        refold.Drop("vin"),
        refold.Add("telefon", default="unbekannt"),
    ]
    meta = {**first.meta, "schema_version": "2.0"}
    return msgspec.structs.replace(first, version=2, fields=fields, steps=steps, meta=meta)


def as_second(values: dict[str, Any]) -> dict[str, Any]:
    """What an order of the first version is in the second."""
    told = {{"kunde_name": "kunde"}.get(name, name): value for name, value in values.items() if name != "vin"}
    complete = None if told["data_complete"] is None else bool(told["data_complete"])
    return {**told, "data_complete": complete, "telefon": "unbekannt"}


async def test_an_adopted_archive_goes_on_to_a_second_version(root: Path, tmp_path: Path) -> None:
    await take(root)
    adopted = await records(root)
    async with refold.open(root) as engine:
        await engine.define(second_version())
        await engine.settled()
        assert (await engine.verify()).findings == []
    wanted = {key: as_second(values) for key, values in adopted.items()}
    assert await records(root) == wanted
    meta = json.loads((root / order(1)["file_path"]).with_name("meta.json").read_bytes())
    assert meta["schema_version"] == "2.0"
    assert (await take(root)).written == 0, "the old layout has nothing new to say"
    assert await records(root) == wanted
    await restore(root, tmp_path / "copy", origin="folders")
    async with refold.open(tmp_path / "copy", readonly=True) as engine:
        assert {record.key: dict(record.values) async for record in engine.find("auftraege")} == wanted


async def test_folders_of_the_first_version_come_into_an_archive_of_the_second(root: Path) -> None:
    async with refold.open(root) as engine:
        await engine.define(WORKSHOP.collection)
        await engine.define(second_version())
    report = await take(root)
    assert (report.written, report.refused) == (6, 0), report.findings
    async with refold.open(root, readonly=True) as engine:
        for number in range(1, 7):
            record = await engine.get("auftraege", number)
            assert record is not None
            values = {**record.values, "datum": record.values["datum"].isoformat()}
            assert values == as_second(order(number))


async def test_a_report_changes_nothing(root: Path) -> None:
    before = old_tool.everything(root)
    report = await adopt(root, WORKSHOP, clock=clock)
    assert (report.folders, report.rows, report.table_rows, report.records) == (6, 6, 6, 6)
    assert report.findings == []
    assert report.complete
    assert old_tool.everything(root) == before


async def test_rows_become_records_of_their_own_time(root: Path) -> None:
    report = await take(root, actor="maria", reason="we move")
    assert (report.written, report.unchanged, report.complete) == (6, 0, True)
    async with refold.open(root) as engine:
        for number in range(1, 7):
            record = await engine.get("auftraege", number)
            assert record is not None
            values = {**record.values, "datum": record.values["datum"].isoformat()}
            assert values == order(number)
            (event,) = [event async for event in engine.history("auftraege", number)]
            assert format_time(event.time) == f"2024-03-{1 + number:02d}T09:{number:02d}:00.000Z"
            assert (event.actor, event.reason) == ("maria", "we move")
        assert (await engine.verify()).ok


async def test_the_older_tool_reads_every_folder_afterwards(root: Path) -> None:
    await take(root)
    for number in range(1, 7):
        row = old_tool.read(root / f"2024/{76000 + number:06d}")
        assert row == {name: str(value) for name, value in order(number).items()}
        assert (root / order(number)["file_path"]).read_bytes() == old_tool.document(number)
    connection = sqlite3.connect(root / "werkstatt.db")
    assert connection.execute("SELECT count(*) FROM auftraege").fetchone() == (6,)
    connection.close()


async def test_no_file_of_the_older_tool_is_taken_for_an_edit(root: Path) -> None:
    _rewrite(root / "2024/076003", order(3, datum="31.12.2024"))
    await take(root)
    async with refold.open(root) as engine:
        edits = await engine.projected("folders", lambda folders: list(folders.edits(sure=True)))
        await engine.patch("auftraege", 4, {"kunde_name": "Weiß"})
        await engine.settled()
    assert edits == []
    assert not [path for path in old_tool.everything(root) if ".edited-" in path]


async def test_adopting_again_writes_nothing(root: Path) -> None:
    old_tool.export(root, order(3, kunde_name="old copy", updated_at="2001-01-01T00:00:00"), folder="copies/3")
    first = await take(root)
    again = await take(root)
    assert (again.written, again.unchanged, again.digest) == (0, 7, first.digest)


async def test_adopting_goes_on_where_it_was_cut_short(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await take(shutil.copytree(root, root.with_name("whole")))
    monkeypatch.setattr(adopting, "_PAGE", 2)
    written = adopting._Adoption._write_page
    pages: list[int] = []

    async def stopping(*arguments: Any) -> None:
        if len(pages) == 2:
            raise KeyboardInterrupt
        pages.append(1)
        await written(*arguments)

    monkeypatch.setattr(adopting._Adoption, "_write_page", stopping)
    with pytest.raises(KeyboardInterrupt):
        await take(root)
    monkeypatch.setattr(adopting._Adoption, "_write_page", written)
    report = await take(root)
    assert (report.written, report.unchanged) == (2, 4)
    assert whole.written == 6
    assert await records(root) == await records(root.with_name("whole"))


async def test_the_newest_of_several_rows_holds_and_the_others_stay_visible(root: Path) -> None:
    old_tool.export(root, order(3, kunde_name="old copy", updated_at="2001-01-01T00:00:00"), folder="copies/3")
    report = await take(root)
    assert report.losing == 1
    assert [(finding.kind, finding.folder, finding.taken) for finding in report.findings] == [
        ("table-differs", "copies/3", "the table"),
        ("duplicate", "copies/3", "the table"),
    ]
    async with refold.open(root) as engine:
        (conflict,) = [conflict async for conflict in engine.conflicts(status="settled")]
        assert conflict.key == "3"
        assert {side.value for side in conflict.sides["kunde_name"]} == {"old copy", order(3)["kunde_name"]}
        record = await engine.get("auftraege", 3)
        assert record is not None
        assert record.values["kunde_name"] == order(3)["kunde_name"]


async def test_the_side_that_was_changed_last_is_taken(root: Path) -> None:
    old_tool.export(root, order(1, kunde_name="from the folder", updated_at="2025-01-01T00:00:00"))
    connection = sqlite3.connect(root / "werkstatt.db")
    connection.execute(
        "UPDATE auftraege SET kunde_name = 'from the table', updated_at = '2025-01-01' WHERE record_id = 2"
    )
    connection.execute("DELETE FROM auftraege WHERE record_id = 4")
    connection.execute("UPDATE auftraege SET record_id = 40, auftrag_nr = '076040' WHERE record_id = 5")
    connection.commit()
    connection.close()
    report = await take(root)
    found = {(finding.kind, finding.key, finding.taken) for finding in report.findings}
    assert found == {
        ("table-differs", "1", "2024/076001, row 2"),
        ("table-differs", "2", "the table"),
        ("folder-only", "4", "2024/076004, row 2"),
        ("folder-only", "5", "2024/076005, row 2"),
        ("table-only", "40", "the table"),
    }
    kept = await records(root)
    assert [kept[key]["kunde_name"] for key in "12"] == ["from the folder", "from the table"]
    assert set(kept) == {"1", "2", "3", "4", "5", "6", "40"}


def _rewrite(place: Path, row: dict[str, Any]) -> None:
    data = old_tool.spelt(row)
    (place / "data.csv").write_bytes(data)
    (place / "meta.json").write_bytes(old_tool.meta(row, data))


def _replace(name: str, old: bytes, new: bytes) -> Callable[[Path], Any]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes().replace(old, new))


FAULTS: dict[str, tuple[Callable[[Path], Any], str, bool]] = {
    "tampered": (_replace("data.csv", b"K00003", b"K99999"), "checksum", True),
    "cut": (lambda place: os.truncate(place / "data.csv", 200), "checksum", True),
    "empty": (lambda place: _sealed(place, b""), "csv-empty", True),
    "header alone": (lambda place: _sealed(place, old_tool.spelt(order(3)).split(b"\n")[0] + b"\n"), "csv-bad", True),
    "cut before it was sealed": (lambda place: _sealed(place, old_tool.spelt(order(3))[:-80]), "csv-bad", True),
    "other bytes": (
        lambda place: _sealed(place, old_tool.spelt(order(3)).replace("ü".encode(), b"\xfc")),
        "csv-bad",
        True,
    ),
    "no meta": (lambda place: (place / "meta.json").unlink(), "meta-missing", False),
    "no JSON": (lambda place: (place / "meta.json").write_bytes(b"{"), "meta-bad", True),
    "no checksum": (lambda place: (place / "meta.json").write_bytes(b'{"schema_version": "1.0"}'), "meta-bad", True),
    "unknown version": (_replace("meta.json", b'"1.0"', b'"9.7"'), "version-unknown", True),
    "bad date": (lambda place: _rewrite(place, order(3, datum="31.12.2024")), "value-refused", True),
    "no date like this": (lambda place: _rewrite(place, order(3, datum="2024-02-30")), "value-refused", True),
    "no number": (lambda place: _rewrite(place, order(3, auftrag_nr="")), "value-refused", True),
    "five digits": (lambda place: _rewrite(place, order(3, auftrag_nr="76003")), "value-refused", True),
    "no path": (lambda place: _rewrite(place, order(3, file_path="")), "value-refused", True),
    "no key": (lambda place: _rewrite(place, order(3, record_id="")), "value-refused", True),
    "no document": (lambda place: (place / "076003_Auftrag.pdf").unlink(), "document-missing", False),
    "another document": (lambda place: (place / "076003_Auftrag.pdf").write_bytes(b"rot"), "document-differs", False),
    "no time": (lambda place: _rewrite(place, order(3, updated_at="soon")), "time-unknown", False),
    "from the future": (
        lambda place: _rewrite(place, order(3, updated_at="2099-01-01T00:00:00")),
        "time-unknown",
        False,
    ),
    "a column too many": (
        lambda place: _sealed(place, old_tool.spelt(order(3)).replace(b"\n", b",more\n")),
        "column-unknown",
        True,
    ),
}


def _sealed(place: Path, data: bytes) -> None:
    (place / "data.csv").write_bytes(data)
    (place / "meta.json").write_bytes(old_tool.meta(order(3), data))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("with_table", [True, False])
async def test_every_fault_is_found_and_nothing_is_lost(root: Path, fault: str, with_table: bool) -> None:
    spoil, kind, left_out = FAULTS[fault]
    if not with_table:
        (root / "werkstatt.db").unlink()
    place = root / "2024/076003"
    spoil(place)
    bytes_before = {path.name: path.read_bytes() for path in place.iterdir()}
    dry = await adopt(root, WORKSHOP, clock=clock)
    report = await take(root)
    assert {finding.kind for finding in dry.findings} == {finding.kind for finding in report.findings}
    (found, *_) = [finding for finding in report.findings if finding.kind == kind]
    assert (found.folder, found.left_out) == ("2024/076003", left_out)
    assert report.complete is not left_out
    kept = await records(root)
    assert set(kept) >= {"1", "2", "4", "5", "6"}
    assert ("3" in kept) == (with_table or not left_out or kind == "column-unknown")
    if left_out:
        aside = root / "quarantine/2024/076003"
        for name in {"data.csv", "meta.json"} & bytes_before.keys():
            assert (aside / name).read_bytes() == bytes_before[name]
    if kind == "column-unknown":
        assert kept["3"]["kunden_nr"] == "K00003"
    async with refold.open(root) as engine:
        assert (await engine.verify()).ok


@pytest.mark.parametrize("change", [lambda data: b"\xef\xbb\xbf" + data, lambda data: data.replace(b"\n", b"\r\n")])
async def test_what_spreadsheets_do_to_a_file_is_no_fault(root: Path, change: Callable[[bytes], bytes]) -> None:
    _sealed(root / "2024/076003", change(old_tool.spelt(order(3))))
    report = await take(root)
    assert (report.findings, report.written) == ([], 6)


async def test_a_row_that_was_corrected_is_taken_out_of_the_quarantine(root: Path) -> None:
    (root / "werkstatt.db").unlink()
    _rewrite(root / "2024/076003", order(3, datum="31.12.2024"))
    _rewrite(root / "2024/076004", order(4, auftrag_nr=""))
    await take(root)

    def left() -> list[str]:
        return [entry.folder for entry in Quarantine(root, WORKSHOP.layout).entries()]

    assert await asyncio.to_thread(left) == ["2024/076003", "2024/076004"]
    untouched = await adopt_quarantined(root, WORKSHOP, clock=clock)
    assert (untouched.folders, untouched.written) == (0, 0)
    (root / "quarantine/2024/076003/data.csv").write_bytes(old_tool.spelt(order(3, datum="2024-12-31")))
    report = await adopt_quarantined(root, WORKSHOP, clock=clock)
    assert (report.written, report.released, report.complete) == (1, 1, True)
    assert (await records(root))["3"]["datum"].isoformat() == "2024-12-31"
    assert await asyncio.to_thread(left) == ["2024/076004"]
    assert (root / "quarantine/.adopted/2024/076003/data.csv").is_file()
    old_tool.read(root / "2024/076003")
    still = await adopt_quarantined(root, WORKSHOP, as_they_are=["2024/076004"], clock=clock)
    assert (still.written, still.complete) == (0, False)


async def test_nothing_outside_the_archive_is_read(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    old_tool.export(outside, order(9))
    (root / "2024/link").symlink_to(outside / "2024", target_is_directory=True)
    (root / "2024/076001/data.csv").unlink()
    (root / "2024/076001/data.csv").symlink_to(outside / "2024/076009/data.csv")
    _rewrite(root / "2024/076002", order(2, file_path="../outside/2024/076009/076009_Auftrag.pdf"))
    (root / "2024/076005/076005_Auftrag.pdf").unlink()
    (root / "2024/076005/076005_Auftrag.pdf").symlink_to(outside / "2024/076009/076009_Auftrag.pdf")
    os.mkfifo(root / "2024/data.csv")
    report = await adopt(root, WORKSHOP, clock=clock)
    assert "9" not in {finding.key for finding in report.findings}
    assert report.counts["link"] == 2
    assert report.counts["document-outside"] == 2


async def test_names_that_are_no_text_are_named(root: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(root) + b"/m\xfcll"))
    old_tool.export(root, order(7), folder="x").rename(place)
    report = await take(root)
    (finding,) = [finding for finding in report.findings if finding.kind == "folder-only"]
    assert finding.folder == "m\\xfcll"
    assert "7" in await records(root)


async def test_rows_of_the_table_that_cannot_be_taken_are_named(root: Path) -> None:
    connection = sqlite3.connect(root / "werkstatt.db")
    connection.execute("UPDATE auftraege SET datum = 'gestern' WHERE record_id = 3")
    connection.execute("UPDATE auftraege SET data_complete = 'ja' WHERE record_id = 4")
    connection.execute("UPDATE auftraege SET kunde_name = CAST(x'fc' AS TEXT) WHERE record_id = 5")
    connection.commit()
    connection.close()
    report = await take(root)
    found = [(finding.key, finding.field) for finding in report.findings if finding.kind == "table-row"]
    assert found == [("3", "datum"), ("4", "data_complete"), ("5", "kunde_name")]
    assert set(await records(root)) == {"1", "2", "3", "4", "5", "6"}
    aside = root / "quarantine/werkstatt.db"
    assert b"gestern" in (aside / "3/data.csv").read_bytes()
    assert b",\xfc," in (aside / "5/data.csv").read_bytes()


async def test_a_row_of_the_table_is_corrected_in_the_quarantine(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    old_tool.fill(root, [order(1), order(2, auftrag_nr=None), order(3, auftrag_nr="7")])
    report = await take(root)
    assert (report.table_rows, report.quarantined, report.complete) == (1, 2, False)
    data = root / "quarantine/werkstatt.db/2/data.csv"
    assert data.read_bytes() == old_tool.spelt(order(2, auftrag_nr=None))
    data.write_bytes(old_tool.spelt(order(2)))
    again = await adopt_quarantined(root, WORKSHOP, clock=clock)
    assert (again.written, again.released, again.complete) == (1, 1, True)
    assert (await records(root))["2"]["auftrag_nr"] == "076002"
    assert await asyncio.to_thread(lambda: len(list(Quarantine(root, WORKSHOP.layout).entries()))) == 1


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EHOSTDOWN, errno.EACCES, errno.EIO])
async def test_a_share_that_goes_away_stops_the_adoption_and_a_file_that_cannot_be_read_does_not(
    root: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def fails(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "076004":
            raise OSError(code, os.strerror(code))
        return opened(path, *arguments, **options)

    before = old_tool.everything(root)
    monkeypatch.setattr(os, "open", fails)
    if code in {errno.ESTALE, errno.EHOSTDOWN}:
        with pytest.raises(StorageFailed, match="gone away"):
            await take(root)
        monkeypatch.setattr(os, "open", opened)
        assert before.items() <= old_tool.everything(root).items()
        assert (await take(root)).written == 6
    else:
        report = await adopt(root, WORKSHOP, clock=clock)
        (found,) = [finding for finding in report.findings if finding.kind == "unreadable"]
        assert (found.folder, found.left_out) == ("2024/076004", True)
        assert before == old_tool.everything(root)


def test_another_directory_in_the_place_of_the_share_is_told(root: Path) -> None:
    looking = survey.Survey(root, WORKSHOP).folders()
    next(looking)
    root.rename(root.with_name("away"))
    root.mkdir()
    with pytest.raises(StorageFailed, match="another directory"):
        list(looking)


async def test_zero_and_nothing_are_two_things(root: Path) -> None:
    old_tool.export(root, order(2, data_complete=""))
    report = await adopt(root, WORKSHOP, clock=clock)
    assert [(finding.kind, finding.key) for finding in report.findings] == [("table-differs", "2")]


async def test_what_is_no_such_archive_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputRefused):
            await adopt(place, WORKSHOP)


@pytest.mark.parametrize(
    "change",
    [
        ("updated_at", "no_field"),
        ('data = "data.csv"', 'data = "../data.csv"'),
        ('timezone = "UTC"', 'timezone = "Mars/Olympus"'),
        ("[layout.table]", "[layout.tables]"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(change: tuple[str, str]) -> None:
    text = (Path(adopting.__file__).with_name("workshop.toml")).read_text()
    with pytest.raises(SettingsInvalid):
        describe(text.replace(*change, 1), "layout.toml")


def test_times_without_a_zone_are_of_where_they_were_written() -> None:
    text = (Path(adopting.__file__).with_name("workshop.toml")).read_text().replace('"UTC"', '"Europe/Berlin"')
    berlin = describe(text, "layout.toml")
    assert format_time(from_millis(berlin.millis("2024-07-29T10:00:00"))) == "2024-07-29T08:00:00.000Z"
    assert format_time(from_millis(berlin.millis("2024-07-29T10:00:00Z"))) == "2024-07-29T10:00:00.000Z"
    assert [berlin.millis(text) for text in ("", None, "soon", "0001-01-01T00:00:00")] == [0, 0, 0, 0]
