"""What is particular to the tables in SQLite: plain SQL over them, their files, and the comparison with the log."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from refold.errors import FormatUnknown, StorageFailed
from refold.ports import Query
from refold.replay import catch_up, load_schemas
from refold.schema import Collection, Field, Schema
from refold.testing import Scribe, append
from refold.testing.conformance_tables import NOTE, THINGS
from refold.verdict import Finding
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables
from refold_adapters.tables_check import TablesCheck


class World:
    """A log and tables in files, and one who writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = SqliteLog(root / "changelog.db", owner="a")
        self.tables = SqliteTables(root / "tables.db", self.log.at)
        self.scribe = Scribe("a")

    def write(self, *records: tuple[str, Mapping[str, Any] | None]) -> None:
        append(self.log, [self.scribe.write("things", key, data) for key, data in records])
        self.follow()

    def define(self, collection: Collection) -> None:
        append(self.log, [self.scribe.define(collection)])
        self.follow()

    def follow(self) -> None:
        while catch_up(self.log, self.tables):
            pass

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """As another program would: a connection of its own."""
        connection = sqlite3.connect(self.root / "tables.db")
        try:
            rows = connection.execute(statement, parameters).fetchall()
            connection.commit()
            return rows
        finally:
            connection.close()

    def findings(self) -> list[Finding]:
        truth = SqliteTables(self.root / "truth.db", self.log.at)
        check = TablesCheck(self.root / "tables.db")
        while catch_up(self.log, truth):
            pass
        truth.close()
        try:
            return check.compare(self.root / "truth.db")
        finally:
            check.close()
            (self.root / "truth.db").unlink()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.define(THINGS)
    yield world
    world.tables.close()
    world.log.close()


def test_any_sql_tool_can_use_the_tables(world: World) -> None:
    row = {"id": "1", "n": 5, "x": 1.5, "flag": True, "day": "2024-07-29", "at": "2024-07-29T10:00:00Z"}
    world.write(("1", {**row, "price": "12.50", "raw": "AP8=", "more": {"b": 1, "a": [None]}, NOTE: "Ä"}))
    assert world.sql("SELECT * FROM things") == [
        ("1", 5, 1.5, 1, "2024-07-29", "2024-07-29T10:00:00Z", "12.50", b"\x00\xff", '{"a":[null],"b":1}', "Ä")
    ]
    assert world.sql("SELECT typeof(n), typeof(x), typeof(flag), typeof(price), typeof(raw) FROM things") == [
        ("integer", "real", "integer", "text", "blob")
    ]
    assert world.sql("SELECT json_extract(more, '$.b') FROM things") == [(1,)]
    names = {name for (name,) in world.sql("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {name for name in names if not name.startswith(("_refold_", "sqlite_"))} == {"things"}
    assert [row[1] for row in world.sql("PRAGMA table_info(things)")] == list(THINGS.fields)


def test_rows_come_go_and_come_back(world: World) -> None:
    world.write(("1", {"id": "1", "n": 1}), ("2", {"id": "2", "n": 2}))
    world.write(("1", None))
    assert world.sql("SELECT id, n FROM things") == [("2", 2)]
    world.write(("1", {"id": "1", "n": 3}), ("2", {"n": None}))
    assert world.sql("SELECT id, n FROM things ORDER BY id") == [("1", 3), ("2", None)]
    assert world.findings() == []


def test_a_row_that_somebody_removed_comes_back_with_its_next_change(world: World) -> None:
    world.write(("1", {"id": "1", "n": 1}), ("2", {"id": "2", "n": 1}))
    world.sql("DELETE FROM things")
    world.write(("1", {"n": 2}), ("2", {"n": 2}))
    assert world.sql("SELECT id, n FROM things ORDER BY id") == [("1", 2), ("2", 2)]


def test_defining_more_adds_columns_and_keeps_the_rows(world: World) -> None:
    world.write(("1", {"id": "1", "n": 1}))
    added = {"size": Field("int", default=3), "select": Field("str", null=True)}
    world.define(Collection(name="things", key="id", fields={**THINGS.fields, **added}))
    assert world.sql('SELECT id, n, size, "select" FROM things') == [("1", 1, 3, None)]
    world.write(("2", {"id": "2", "size": 9, "select": "x"}))
    assert world.sql('SELECT id, size, "select" FROM things ORDER BY 1') == [("1", 3, None), ("2", 9, "x")]
    assert world.findings() == []


@pytest.mark.parametrize("name", ["select", "Größe", "a-b", "t", "r", "c"])
def test_collections_may_have_any_name(world: World, name: str) -> None:
    fields = {"key": Field("str"), 'a "quoted" name': Field("int", null=True), "rowid": Field("int", null=True)}
    world.define(Collection(name=name, key="key", fields=fields))
    append(world.log, [world.scribe.write(name, "1", {"key": "1", 'a "quoted" name': 1, "rowid": 7})])
    world.follow()
    schema = load_schemas(world.tables)[name]
    assert [row[1] for row in world.tables.find(Query(name, {'a "quoted" name': 1}, "-rowid"), schema)] == ["1"]
    assert world.findings() == []


def test_more_records_than_one_page_or_statement_holds(world: World) -> None:
    count = 1300
    world.write(*((f"{n:04}", {"id": f"{n:04}", "n": n % 3}) for n in range(count)))
    schema = load_schemas(world.tables)["things"]
    found: list[str] = []
    query = Query("things", order="n")
    while page := world.tables.find(query, schema):
        assert len(page) <= 500
        found += [key for _, key, _ in page]
        query = Query("things", order="n", after=page[-1][0])
    assert found == sorted((f"{n:04}" for n in range(count)), key=lambda key: (int(key) % 3, key))
    assert len(world.tables.load([("things", key) for key in found])) == count
    assert world.tables.requests([str(n) for n in range(2000)]) == {}


class Breaking(Mapping[str, Schema]):
    """Schemas that cannot be had."""

    def __getitem__(self, name: str) -> Schema:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[str]:
        raise ZeroDivisionError

    def __len__(self) -> int:
        raise ZeroDivisionError


def test_a_save_that_fails_leaves_nothing(world: World) -> None:
    world.write(("1", {"id": "1", "n": 1}))
    before = world.tables.checkpoint(), world.sql("SELECT * FROM _refold_records"), world.sql("SELECT * FROM things")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refold.replay.schemas_after", lambda schemas, changes: Breaking())
        append(world.log, [world.scribe.write("things", "2", {"id": "2", "n": 2})])
        with pytest.raises(ZeroDivisionError):
            catch_up(world.log, world.tables)
    records, rows = world.sql("SELECT * FROM _refold_records"), world.sql("SELECT * FROM things")
    assert (world.tables.checkpoint(), records, rows) == before
    world.follow()
    assert world.findings() == [] and world.tables.counts() == {"things": 2}


def test_a_search_over_tables_that_are_gone_is_a_typed_error(world: World) -> None:
    schema = load_schemas(world.tables)["things"]
    world.sql("DROP TABLE things")
    with pytest.raises(StorageFailed):
        world.tables.find(Query("things"), schema)


def test_other_files_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(FormatUnknown):
        SqliteTables(tmp_path / "other.db", lambda positions: [])


Spoil = Callable[[World], object]
SPOILT: list[tuple[Spoil, str, str]] = [
    (lambda w: w.sql("UPDATE things SET n = 99 WHERE id = '2'"), "table-altered", "2"),
    (lambda w: w.sql("UPDATE things SET raw = x'00' WHERE id = '2'"), "table-altered", "2"),
    (lambda w: w.sql("UPDATE things SET n = NULL WHERE id = 'Ä'"), "table-altered", "Ä"),
    (lambda w: w.sql("DELETE FROM things WHERE id = '1'"), "table-missing", "1"),
    (lambda w: w.sql("DELETE FROM things WHERE id = 'Ä'"), "table-missing", "Ä"),
    (lambda w: w.sql("INSERT INTO things (id) VALUES ('0')"), "table-stray", "0"),
    (lambda w: w.sql("INSERT INTO things (id) VALUES ('zz')"), "table-stray", "zz"),
    (lambda w: w.sql("UPDATE things SET id = '1b' WHERE id = '1'"), "table-missing", "1"),
    (lambda w: w.sql("DROP TABLE things"), "table-missing", "None"),
    (lambda w: w.sql("ALTER TABLE things DROP COLUMN n"), "table-altered", "None"),
    (lambda w: w.sql("UPDATE _refold_records SET state = x'00' WHERE key = '2'"), "table-altered", "2"),
    (lambda w: w.sql("UPDATE _refold_records SET position = 99 WHERE key = '2'"), "table-altered", "2"),
    (lambda w: w.sql("DELETE FROM _refold_records WHERE key = '2'"), "table-missing", "2"),
    (lambda w: w.sql("DELETE FROM _refold_chain"), "table-missing", "5"),
    (lambda w: w.sql("UPDATE _refold_chain SET previous = 1"), "table-altered", "5"),
    (lambda w: w.sql("INSERT INTO _refold_chain VALUES (99, 98)"), "table-stray", "99"),
    (lambda w: w.sql("INSERT INTO _refold_requests VALUES ('r', 1)"), "table-stray", "r"),
    (lambda w: w.sql("UPDATE _refold_checkpoint SET digest = 'f' || substr(digest, 2)"), "table-altered", "1"),
    (lambda w: w.sql("UPDATE _refold_checkpoint SET heads = x'80'"), "table-altered", "1"),
]


@pytest.mark.parametrize(("spoil", "kind", "key"), SPOILT, ids=range(len(SPOILT)))
def test_what_was_changed_behind_the_log_is_named(world: World, spoil: Spoil, kind: str, key: str) -> None:
    world.write(("1", {"id": "1", "n": 1}), ("2", {"id": "2", "n": 2}), ("Ä", {"id": "Ä", "n": 3}))
    world.write(("2", {"n": 4}))
    assert world.findings() == []
    spoil(world)
    found = world.findings()
    assert (found[0].kind, str(found[0].key)) == (kind, key)
    assert found[0].file == "tables.db"


def test_findings_end_somewhere(world: World) -> None:
    world.write(*((str(n), {"id": str(n), "n": n}) for n in range(1500)))
    world.sql("UPDATE things SET n = n + 1")
    assert len(world.findings()) == 1000


def test_a_damaged_file_is_named(world: World) -> None:
    world.write(*((str(n), {"id": str(n), "n": n}) for n in range(500)))
    world.tables.close()
    path = world.root / "tables.db"
    data = bytearray(path.read_bytes())
    data[5000:9000] = b"\xff" * 4000
    path.write_bytes(data)
    try:
        findings = world.findings()
    except StorageFailed:
        findings = []
    else:
        assert findings and findings[0].kind == "table-altered"
    path.unlink()
    world.tables = SqliteTables(path, world.log.at)
    world.follow()
    assert world.findings() == []


def test_a_history_grows_with_what_is_saved(world: World) -> None:
    world.write(("1", {"id": "1", "n": 1}))
    event = append(world.log, [world.scribe.write("things", "1", {"n": 2})])
    assert world.tables.history([("things", "1")]) == [2]
    world.follow()
    assert world.tables.history([("things", "1")]) == [2, event[0].position]
