"""Captured tables: what another program commits becomes events once, and what refold writes comes back to the table."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refold
from refold import Add, Collection, Drop, Engine, Field, Rename
from refold.errors import InputRefused, ProjectionFailed, StorageFailed
from refold.versions import Step
from refold_adapters.capture import bookkeeping
from refold_adapters.capture.bookkeeping import CaptureStopped
from refold_adapters.capture.capture import CaptureReport, capture_once, captures
from refold_adapters.capture.following import follow
from refold_adapters.capture.installing import install, table_status, uninstall, without
from refold_adapters.settings import load_mirrors

pytestmark = pytest.mark.anyio

CREATE = "CREATE TABLE jobs (no INTEGER PRIMARY KEY, name TEXT, day TEXT, price REAL)"


@contextmanager
def program(root: Path) -> Iterator[sqlite3.Connection]:
    """The other program's connection; each statement is a transaction."""
    with closing(sqlite3.connect(root / "old.db", isolation_level=None)) as connection:
        yield connection


def do(root: Path, *statements: str) -> None:
    """What the other program does."""
    with program(root) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(root: Path) -> list[tuple[Any, ...]]:
    with program(root) as connection:
        return connection.execute("SELECT * FROM jobs ORDER BY no").fetchall()


def outbox(root: Path) -> int:
    with program(root) as connection:
        return int(connection.execute("SELECT count(*) FROM refold_outbox_jobs").fetchone()[0])


def triggers(root: Path) -> int:
    with program(root) as connection:
        return int(connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'").fetchone()[0])


@pytest.fixture(params=["delete", "wal", "poll"])
async def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive beside another program's database of three rows, which is captured."""

    polls = request.param == "poll"

    def prepare() -> None:
        do(tmp_path, f"PRAGMA journal_mode = {'delete' if polls else request.param}", CREATE)
        do(tmp_path, "INSERT INTO jobs VALUES (1, 'a', '2024-01-01', 1.5), (2, 'b', NULL, 2), (3, NULL, NULL, NULL)")

    async with refold.open(tmp_path, replica="a", folders=False):
        pass
    await asyncio.to_thread(prepare)
    report = await install(tmp_path, "old.db", "jobs", polls=polls)
    assert report == CaptureReport("jobs", written=3)
    return tmp_path


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Engine]:
    async with refold.open(root, folders=False) as engine:
        yield engine


async def records(engine: Engine) -> list[tuple[Any, ...]]:
    """The records as the table should have them."""
    return [
        tuple(record.values[name] for name in ("no", "name", "day", "price")) async for record in engine.find("jobs")
    ]


async def since(engine: Engine, position: int) -> list[tuple[str, str, dict[str, Any]]]:
    return [(event.kind, event.key, event.data) async for event in engine.events(position)]


@pytest.mark.parametrize("root", ["delete", "wal"], indirect=True)
async def test_what_the_program_commits_becomes_events_in_its_order(root: Path) -> None:
    async with opened(root) as engine:
        assert await records(engine) == await asyncio.to_thread(rows, root)
        before = engine.position
        await asyncio.to_thread(
            do,
            root,
            "UPDATE jobs SET name = 'A' WHERE no = 1",
            "INSERT INTO jobs VALUES (4, 'd', NULL, 4.0)",
            "DELETE FROM jobs WHERE no = 2",
            "UPDATE jobs SET name = 'AA', price = 9 WHERE no = 1",
            "UPDATE jobs SET no = 30 WHERE no = 3",
        )
        assert await capture_once(engine) == [CaptureReport("jobs", written=6)]
        assert await since(engine, before) == [
            ("update", "1", {"name": "A"}),
            ("create", "4", {"no": 4, "name": "d", "day": None, "price": 4.0}),
            ("delete", "2", {}),
            ("update", "1", {"name": "AA", "price": 9.0}),
            ("delete", "3", {}),
            ("create", "30", {"no": 30, "name": None, "day": None, "price": None}),
        ]
        assert {event.actor async for event in engine.events(before)} == {"capture"}
        await engine.settled()
        assert await records(engine) == await asyncio.to_thread(rows, root)
        assert await asyncio.to_thread(outbox, root) == 0
        assert (await engine.verify()).ok


@pytest.mark.parametrize("root", ["poll"], indirect=True)
async def test_a_table_without_triggers_is_compared_with_how_it_was(root: Path) -> None:
    async with opened(root) as engine:
        before = engine.position
        statements = ("UPDATE jobs SET name = 'A' WHERE no = 1", "INSERT INTO jobs VALUES (4, 'd', NULL, 4.0)")
        await asyncio.to_thread(do, root, *statements, "DELETE FROM jobs WHERE no = 2", "UPDATE jobs SET name = 'AA'")
        assert await capture_once(engine) == [CaptureReport("jobs", written=4)]
        assert [(kind, key) for kind, key, _ in await since(engine, before)] == [
            ("update", "1"),
            ("update", "3"),
            ("create", "4"),
            ("delete", "2"),
        ]
        assert await asyncio.to_thread(triggers, root) == 0


async def test_what_refold_writes_comes_to_the_table_without_an_echo(root: Path) -> None:
    async with opened(root) as engine:
        await engine.patch("jobs", 1, {"name": "from here"})
        await engine.put("jobs", {"no": 7, "name": "seven"})
        await engine.delete("jobs", 2)
        await engine.settled()
        assert await asyncio.to_thread(rows, root) == [
            (1, "from here", "2024-01-01", 1.5),
            (3, None, None, None),
            (7, "seven", None, None),
        ]
        before = engine.position
        assert await capture_once(engine) == [CaptureReport("jobs")]
        assert engine.position == before


async def _apart(engine: Engine, root: Path, ours: dict[str, Any], theirs: str) -> CaptureReport:
    """Both change record 1, neither having seen the other's change."""
    await asyncio.to_thread(do, root, theirs)
    await engine.patch("jobs", 1, ours)
    (report,) = await capture_once(engine)
    await engine.settled()
    return report


async def test_different_fields_that_were_changed_apart_are_merged(root: Path) -> None:
    async with opened(root) as engine:
        await _apart(engine, root, {"price": 8.0}, "UPDATE jobs SET name = 'theirs' WHERE no = 1")
        assert (await records(engine))[0] == (1, "theirs", "2024-01-01", 8.0)
        assert await asyncio.to_thread(rows, root) == await records(engine)
        assert [conflict async for conflict in engine.conflicts()] == []


async def test_one_field_that_was_changed_apart_is_a_conflict(root: Path) -> None:
    async with opened(root) as engine:
        await _apart(engine, root, {"name": "ours"}, "UPDATE jobs SET name = 'theirs' WHERE no = 1")
        (conflict,) = [conflict async for conflict in engine.conflicts()]
        assert {side.value for side in conflict.sides["name"]} == {"ours", "theirs"}
        assert await asyncio.to_thread(rows, root) == await records(engine)


@pytest.mark.parametrize("root", ["delete", "wal"], indirect=True)
async def test_a_row_that_the_program_saved_as_it_was_takes_nothing_back(root: Path) -> None:
    async with opened(root) as engine:
        report = await _apart(engine, root, {"name": "ours"}, "UPDATE jobs SET name = name WHERE no = 1")
        assert report == CaptureReport("jobs", unchanged=1)
        assert (await asyncio.to_thread(rows, root))[0][1] == "ours"


async def test_a_second_write_of_a_row_knows_no_more_than_the_first(root: Path) -> None:
    async with opened(root) as engine:
        await asyncio.to_thread(do, root, "UPDATE jobs SET price = 5 WHERE no = 1")
        await engine.patch("jobs", 1, {"name": "ours"})
        await engine.settled()
        await asyncio.to_thread(do, root, "UPDATE jobs SET price = 6 WHERE no = 1")
        await capture_once(engine)
        await engine.settled()
        assert (await records(engine))[0] == (1, "ours", "2024-01-01", 6.0)
        assert await asyncio.to_thread(rows, root) == await records(engine)


@pytest.mark.parametrize(
    "rewrite",
    ["DELETE FROM jobs; INSERT INTO jobs SELECT * FROM copy", "INSERT OR REPLACE INTO jobs SELECT * FROM copy"],
)
async def test_a_table_that_is_written_anew_changes_by_what_differs(root: Path, rewrite: str) -> None:
    def anew() -> None:
        with program(root) as connection:
            connection.execute("CREATE TABLE copy AS SELECT * FROM jobs")
            connection.execute("UPDATE copy SET name = 'other' WHERE no = 2")
            connection.execute("BEGIN")
            for statement in rewrite.split("; "):
                connection.execute(statement)
            connection.execute("COMMIT")

    async with opened(root) as engine:
        before = engine.position
        await asyncio.to_thread(anew)
        await capture_once(engine)
        assert await since(engine, before) == [("update", "2", {"name": "other"})]


async def test_a_table_keeps_its_columns_when_the_collection_gets_another_version(root: Path) -> None:
    async with opened(root) as engine:
        fields = {name: field for name, field in engine.schemas["jobs"].collection.fields.items() if name != "name"}
        steps: list[Step] = [Rename(old="name", new="title"), Drop(field="day"), Add(field="branch", default="north")]
        del fields["day"]
        fields |= {"title": Field("str", null=True), "branch": Field("str", null=True, default="north")}
        await engine.define(Collection(name="jobs", key="no", fields=fields, version=2, steps=steps))
        await engine.patch("jobs", 1, {"title": "refold's"})
        await engine.settled()
        assert (await asyncio.to_thread(rows, root))[0] == (1, "refold's", "2024-01-01", 1.5)
        before = engine.position
        await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'theirs' WHERE no = 2")
        await asyncio.to_thread(do, root, "INSERT INTO jobs VALUES (4, 'new', '2024-04-04', NULL)")
        assert [report.refused for report in await capture_once(engine)] == [0]
        written = await since(engine, before)
        assert written[0] == ("update", "2", {"title": "theirs"})
        found = [(record.values["title"], record.values["branch"]) async for record in engine.find("jobs")]
        assert found == [("refold's", "north"), ("theirs", "north"), (None, "north"), ("new", "north")]
        await engine.settled()
        assert (await asyncio.to_thread(rows, root))[3] == (4, "new", "2024-04-04", None)
        assert (await engine.verify()).ok


async def test_what_is_rolled_back_is_not_captured(root: Path) -> None:
    async with opened(root) as engine:
        before = engine.position
        await asyncio.to_thread(do, root, "BEGIN", "UPDATE jobs SET name = 'never'", "ROLLBACK")
        await capture_once(engine)
        assert engine.position == before


async def test_a_crash_between_log_and_outbox_writes_nothing_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*_: Any) -> None:
        raise KeyError

    await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'A' WHERE no = 1", "DELETE FROM jobs WHERE no = 2")
    async with opened(root) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(bookkeeping, "settle", dying)
            with pytest.raises(KeyError):
                await capture_once(engine)
    async with opened(root) as engine:
        before = engine.position
        assert await capture_once(engine) == [CaptureReport("jobs", unchanged=2)]
        assert engine.position == before
        assert await asyncio.to_thread(outbox, root) == 0


async def test_a_write_that_breaks_a_rule_waits_and_loses_nothing(root: Path) -> None:
    async with opened(root) as engine:
        fields = dict(engine.schemas["jobs"].collection.fields)
        fields["name"] = refold.Field("str", null=True, pattern="^[a-z]*$")
        await engine.define(refold.Collection(name="jobs", key="no", fields=fields))
        names = (("BAD", 1), ("ok", 2))
        await asyncio.to_thread(do, root, *(f"UPDATE jobs SET name = '{name}' WHERE no = {no}" for name, no in names))
        assert await capture_once(engine) == [CaptureReport("jobs", written=1, refused=1)]
        await engine.patch("jobs", 1, {"price": 7.0})
        await engine.settled()
        assert (await asyncio.to_thread(rows, root))[0] == (1, "BAD", "2024-01-01", 1.5)
        (setting,) = await asyncio.to_thread(load_mirrors, root)
        status = await asyncio.to_thread(table_status, root / "old.db", setting)
        assert (status.waiting, [refusal.key for refusal in status.refused], status.problem) == (0, ["1"], None)
        assert {finding.kind for finding in (await engine.verify()).findings} == {"mirror-refused"}
        await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'good' WHERE no = 1")
        assert await capture_once(engine) == [CaptureReport("jobs", written=1)]
        await engine.settled()
        assert (await asyncio.to_thread(rows, root))[0] == (1, "good", "2024-01-01", 7.0)
        assert (await engine.verify()).ok


@pytest.mark.parametrize("root", ["delete", "wal"], indirect=True)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("ALTER TABLE jobs ADD COLUMN note TEXT", "note"),
        ("ALTER TABLE jobs RENAME COLUMN price TO cost", "cost, price"),
        ("DROP TRIGGER refold_jobs_update", "1 of its 4 triggers"),
        ("DROP TABLE jobs", "not there"),
    ],
)
async def test_a_table_that_changes_stops_the_capture_until_it_is_installed_again(
    root: Path, change: str, why: str
) -> None:
    await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'before' WHERE no = 1", change)
    if change == "DROP TABLE jobs":
        async with opened(root) as engine:  # it is made again when the archive is opened
            await capture_once(engine)
            await engine.settled()
            assert [row[1] for row in await asyncio.to_thread(rows, root)] == ["before", "b", None]
        return
    async with opened(root) as engine:
        with pytest.raises(CaptureStopped, match=why):
            await capture_once(engine)
    await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'after' WHERE no = 2")
    await install(root, "old.db", "jobs")
    async with opened(root) as engine:
        found = {record.key: record.values["name"] async for record in engine.find("jobs")}
        assert (found["1"], found["2"]) == ("before", "after")
        fields = {name for name in ("note", "cost") if name in change}
        assert fields <= set(engine.schemas["jobs"].types)


async def test_a_database_that_was_lost_is_made_again(root: Path) -> None:
    before = await asyncio.to_thread(rows, root)
    for name in ("old.db", "old.db-wal", "old.db-shm"):
        (root / name).unlink(missing_ok=True)
    async with opened(root) as engine:
        await engine.settled()
        assert await asyncio.to_thread(rows, root) == before
        await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'again' WHERE no = 1")
        assert await capture_once(engine) == [CaptureReport("jobs", written=1)]


async def test_a_table_that_was_put_back_is_not_taken_for_what_was_captured(root: Path) -> None:
    def put_back() -> None:
        for name in ("old.db", "old.db-wal", "old.db-shm"):
            (root / name).unlink(missing_ok=True)
        do(root, CREATE, "INSERT INTO jobs VALUES (1, 'from a copy', NULL, NULL)")

    await asyncio.to_thread(put_back)
    with pytest.raises(CaptureStopped):
        async with opened(root):
            pass
    assert await asyncio.to_thread(rows, root) == [(1, "from a copy", None, None)]


async def test_rows_that_are_older_than_their_record_are_brought_up_to_date_when_capture_is_installed(
    root: Path,
) -> None:
    async with opened(root) as engine:
        await engine.patch("jobs", 1, {"name": "second"})
        await engine.patch("jobs", 1, {"name": "third"})
    await uninstall(root, "jobs")
    await asyncio.to_thread(
        do, root, "UPDATE jobs SET name = 'second' WHERE no = 1", "UPDATE jobs SET name = 'new' WHERE no = 2"
    )
    await install(root, "old.db", "jobs")
    found = await asyncio.to_thread(rows, root)
    assert (found[0][1], found[1][1]) == ("third", "new")


async def test_taking_it_out_leaves_the_database_as_it_was(root: Path) -> None:
    def schema() -> list[tuple[Any, ...]]:
        with program(root) as connection:
            return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()

    await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'last' WHERE no = 1")
    assert (await uninstall(root, "jobs")).written == 1
    assert await asyncio.to_thread(schema) == [("table", "jobs", CREATE)]
    assert await asyncio.to_thread(load_mirrors, root) == []
    with pytest.raises(InputRefused):
        await uninstall(root, "jobs")


async def test_a_database_that_is_held_too_long_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeping, "WAIT_SECONDS", 0.05)
    async with refold.open(root, folders=False) as engine:
        with closing(
            await asyncio.to_thread(sqlite3.connect, root / "old.db", isolation_level=None, check_same_thread=False)
        ) as holder:
            await asyncio.to_thread(holder.execute, "BEGIN EXCLUSIVE")
            (capture,) = captures(engine)
            if not await asyncio.to_thread((root / "old.db-wal").exists):
                with pytest.raises(StorageFailed, match="another program has held it"):
                    await capture.drain()
            await engine.put("jobs", {"no": 1, "name": "waits"})
            with pytest.raises(ProjectionFailed, match="another program has held it"):
                await engine.settled()
            await asyncio.to_thread(holder.execute, "ROLLBACK")
        await engine.rebuild()
        assert (await asyncio.to_thread(rows, root))[0][1] == "waits"


def test_a_mirror_is_taken_out_of_the_settings_and_nothing_else() -> None:
    text = "[archive]\nfolders = false\n"
    one = '\n[[mirrors]]\ndatabase = "a.db"\ntable = "one"\ncollection = "x"\ncreate = "CREATE TABLE one ([a])"\n'
    two = one.replace("one", "two")
    assert without(text + one + two, "one") == text + two
    assert without(text + one + two + "[cli]\n", "two") == text + one + "[cli]\n"
    assert without(text, "one") == text


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("program"), st.integers(1, 3), st.sampled_from(["name", "price"]), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.integers(1, 3), st.just(""), st.just(0)),
        st.tuples(st.just("engine"), st.integers(1, 3), st.sampled_from(["name", "price"]), st.integers(0, 3)),
        st.tuples(st.sampled_from(["capture", "settle"]), st.just(0), st.just(""), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, polls=st.booleans())
async def test_table_and_records_come_to_agree_however_the_two_write(
    steps: list[tuple[str, int, str, int]], polls: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = await asyncio.to_thread(tmp_path_factory.mktemp, "archive")
    await asyncio.to_thread(do, root, CREATE, "INSERT INTO jobs VALUES (1, 'a', NULL, 0), (2, 'b', NULL, 0)")
    async with refold.open(root, folders=False):
        pass
    await install(root, "old.db", "jobs", polls=polls)
    async with refold.open(root, folders=False, quiet=1e6) as engine:
        (capture,) = captures(engine, batch=2)
        for what, no, field, number in steps:
            value: Any = f"v{number}" if field == "name" else float(number)
            if what == "program":
                columns = f"INSERT INTO jobs (no, {field}) VALUES ({no}, {value!r})"
                await asyncio.to_thread(
                    do, root, f"{columns} ON CONFLICT (no) DO UPDATE SET {field} = excluded.{field}"
                )
            elif what == "drop":
                await asyncio.to_thread(do, root, f"DELETE FROM jobs WHERE no = {no}")
            elif what == "engine":
                await engine.put("jobs", {"no": no, field: value})
            elif what == "capture":
                await capture.drain()
            else:
                await engine.settled()
        await capture.drain()
        await engine.settled()
        assert await asyncio.to_thread(rows, root) == await records(engine)
        assert await asyncio.to_thread(outbox, root) == 0
        assert (await engine.verify()).ok


WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for number in range(int(sys.argv[2]), 100_000):
    connection.execute("INSERT INTO jobs VALUES (?, ?, NULL, ?)", (number + 10, str(number), number))
    connection.execute("UPDATE jobs SET price = ? WHERE no = 1", (number,))
    print(number, flush=True)
"""
TAKER = """
import asyncio, sys
from pathlib import Path
from refold_adapters.capture.following import follow
asyncio.run(follow(Path(sys.argv[1]), poll=0.001, idle=0.05))
"""


def _run(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("root", ["delete", "wal"], indirect=True)
async def test_nothing_is_lost_or_doubled_when_either_side_is_killed(root: Path) -> None:
    def campaign() -> int:
        chance = random.Random(1)
        number = 0
        for _ in range(4):
            writer, taker = _run(WRITER, str(root / "old.db"), str(number)), _run(TAKER, str(root))
            deadline = time.monotonic() + 0.6 + chance.random()
            last = number
            assert writer.stdout is not None
            while time.monotonic() < deadline and (line := writer.stdout.readline()):
                last = int(line)
            for process in chance.sample([writer, taker], 2):
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
            number = last + 2
        return number

    await asyncio.to_thread(campaign)
    async with opened(root) as engine:
        await capture_once(engine)
        await engine.settled()
        kept = await asyncio.to_thread(rows, root)
        assert len(kept) > 50
        assert await records(engine) == kept
        prices = [event.data["price"] async for event in engine.history("jobs", 1)][1:]
        assert prices == sorted(set(prices))
        assert prices[-1] == kept[0][3]
        creates = [event.key async for event in engine.events() if event.kind == "create"]
        assert len(creates) == len(set(creates)) == len(kept)
        assert (await engine.verify()).ok


@pytest.mark.parametrize("root", ["delete", "wal"], indirect=True)
async def test_following_takes_in_what_comes_and_lets_the_archive_go(root: Path) -> None:
    told: list[CaptureReport] = []
    task = asyncio.create_task(follow(root, tell=told.extend, poll=0.001, idle=0.02))
    try:
        await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'x' WHERE no = 1")
        async with asyncio.timeout(20):
            while not told:
                await asyncio.sleep(0.005)
        assert told == [CaptureReport("jobs", written=1)]
        async with opened(root) as engine:
            assert (await records(engine))[0][1] == "x"
            await asyncio.to_thread(do, root, "UPDATE jobs SET name = 'y' WHERE no = 1")
        async with asyncio.timeout(20):
            while len(told) < 2:
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
