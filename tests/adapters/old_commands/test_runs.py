"""Runs as a scheduler starts them: settings, the lock, the log file, exit codes, and what a crash leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from refold.errors import Locked, SettingsInvalid
from refold_adapters.lock import Holder, Lock
from refold_adapters.old_commands.running import run
from refold_adapters.old_commands.settings import KEYS, load
from refold_adapters.old_commands.staging import DatabaseBusy
from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order
from tests.adapters.cli.test_process import REFOLD, environment
from tests.faults.space import mounted, resize, used

from .workplace import START, Workshop, clock_from, kinds

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

KILLED = """
import os, signal, sys
from pathlib import Path
from contextlib import closing
from refold_adapters.adopting.layout import preset
from refold_adapters.old_commands import restoring
from refold_adapters.old_commands.outcome import Outcome
from refold_adapters.old_commands.staging import Staging

root, point = Path(sys.argv[1]), sys.argv[2]
def reached(name):
    if name == point:
        os.kill(os.getpid(), signal.SIGKILL)
described = preset("workshop")
outcome = Outcome(command="restore", archive="", db="")
with closing(Staging(described.schema, root / "werkstatt.db", 0)) as staging:
    restoring.restore(root, described, staging, outcome, reached=reached)
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "archive")


def refold(workshop: Workshop, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REFOLD, *arguments], cwd=workshop.root.parent, env=environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_a_file_of_settings_is_all_that_a_crontab_needs(workshop: Workshop) -> None:
    config = workshop.root.parent / "etc/werkstatt.json"
    config.parent.mkdir()
    settings = {"db": "../archive/werkstatt.db", "archive": "../archive", "log": "../runs.log", "wait": 1}
    config.write_text(json.dumps(settings), encoding="utf-8")
    done = refold(workshop, "export", "--config", "etc/werkstatt.json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = r"export: 3 exported, 3 unchanged, 0 put aside, 0 captured, 0 errors, 0 warnings, \d+\.\d\d s\n"
    assert re.fullmatch(summary, done.stdout)
    assert refold(workshop, "verify", "--config", "etc/werkstatt.json", "-q").stdout == ""
    told = json.loads(refold(workshop, "restore", "--config", "etc/werkstatt.json", "--dry-run", "--json").stdout)
    assert (told["ok"], told["restored"], told["dry_run"]) == (True, 6, True)
    assert [line[2:4] for line in workshop.lines()] == [
        [command, kind] for command in ("export", "verify", "restore") for kind in ("started", "summary")
    ]


def test_a_setting_that_nobody_knows_is_refused_with_those_that_are_known(workshop: Workshop, tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"db": "a.db", "archive": ".", "databse": "b.db"}', encoding="utf-8")
    done = refold(workshop, "export", "--config", "c.json", "--json")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["code"]) == (1, "settings-invalid")
    assert "'databse'" in error["message"] and all(key in error["message"] for key in KEYS)
    for text in ("{", "[]", '{"db": 1}', '{"db": "a.db"}', '{"db": "a", "archive": "b", "wait": -1}'):
        config.write_text(text, encoding="utf-8")
        with pytest.raises(SettingsInvalid):
            load(config)
    with pytest.raises(SettingsInvalid, match="preset"):
        workshop.run("verify", preset="bakery")


def test_options_beat_the_file_and_go_with_no_option_of_a_refold_archive(workshop: Workshop, tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"db": "gone.db", "archive": "archive"}', encoding="utf-8")
    assert refold(workshop, "verify", "--config", "c.json").returncode == 4
    beaten = ("--config", "c.json", "--db", "archive/werkstatt.db")
    assert refold(workshop, "verify", *beaten).returncode == 0
    mixed = (
        ("export", "--db", "x", "--format", "csv"),
        ("export", "orders", "--db", "x"),
        ("restore", "--archive", "x", "--in-place"),
        ("verify", "--config", "c.json", "--only", "log"),
    )
    for arguments in mixed:
        done = refold(workshop, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "--config" in done.stderr
    assert refold(workshop, "export", "--db", "x").returncode == 1


def test_each_run_says_in_the_log_what_it_did_and_each_finding_is_a_line(workshop: Workshop) -> None:
    workshop.execute("UPDATE auftraege SET datum = ? WHERE record_id = 2", 'x "\n2026-01-01 ERROR made up')
    assert workshop.code("export") == 3
    text = workshop.log.read_text(encoding="utf-8").splitlines()
    pattern = re.compile(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) (export|verify|restore) [a-z-]+"
        r'( [a-z_]+=([A-Za-z0-9._:/+-]+|"(?:[^"\\\x00-\x1f]|\\.)*"))*'
    )
    assert all(pattern.fullmatch(line) for line in text)
    assert [line.split(" ")[1:4] for line in text] == [
        ["INFO", "export", "started"], ["ERROR", "export", "table-row"], ["INFO", "export", "summary"],
    ]  # fmt: skip
    assert "key=2 file=werkstatt.db field=datum" in text[1]
    assert text[2].endswith("exported=2 unchanged=3 put_aside=0 captured=0 errors=1 warnings=0 exit=3")


def test_a_log_that_was_rotated_away_is_not_written_again(workshop: Workshop) -> None:
    workshop.run("verify")
    rotated = workshop.log.rename(workshop.log.with_suffix(".log.1"))
    before = rotated.read_bytes()
    workshop.run("verify")
    assert rotated.read_bytes() == before
    assert len(list(workshop.lines())) == 2


def test_a_log_on_a_full_disk_stops_nothing_and_is_told(workshop: Workshop) -> None:
    outcome = workshop.run("export", log=Path("/dev/full"))
    assert (outcome.exported, kinds(outcome)) == (3, [("log-incomplete", None)])


def test_who_waits_is_told_who_holds_the_lock_and_gives_up_in_time(workshop: Workshop) -> None:
    lock = Lock(workshop.root / "changelog.db.lock")
    lock.acquire(START)
    said: list[str] = []
    try:
        with pytest.raises(Locked) as refusal:
            run("export", workshop.settings(wait=1.0), clock_from(step=150), said=said.append)
    finally:
        lock.release()
    assert (refusal.value.pid, refusal.value.since) == (os.getpid(), "2026-01-01T00:00:00.000Z")
    assert said == [f"waiting: {refusal.value}"]
    assert [line[1:4] for line in workshop.lines()] == [
        ["INFO", "export", "started"], ["INFO", "export", "waiting"],
        ["ERROR", "export", "failed"], ["INFO", "export", "summary"],
    ]  # fmt: skip


HOLD = """
import sys
from pathlib import Path
from refold_adapters.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire(0)
print("held", flush=True)
sys.stdin.read()
"""


def test_of_two_processes_the_second_waits_until_the_first_has_ended_or_was_killed(workshop: Workshop) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workshop.root / "changelog.db.lock")],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    options = ("--db", "archive/werkstatt.db", "--archive", "archive")
    with holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline() == "held\n"
        refused = refold(workshop, "verify", *options, "--wait", "0", "--json")
        error = json.loads(refused.stderr.splitlines()[-1])["error"]
        assert (refused.returncode, error["code"], error["pid"]) == (11, "locked", holder.pid)
        waiter = subprocess.Popen(
            [*REFOLD, "verify", *options], cwd=workshop.root.parent, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with waiter:
            assert waiter.stdout and waiter.stderr
            assert f"in use by process {holder.pid}" in waiter.stderr.readline()
            holder.kill()
            out = waiter.stdout.read()
    assert waiter.returncode == 0
    assert f"warning: lock-left: changelog.db.lock: process {holder.pid} on" in out
    assert refold(workshop, "verify", *options).stdout.startswith("verify: ")


def test_a_lock_that_was_given_back_was_left_by_nobody(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    lock.acquire(START)
    lock.release()
    lock.acquire(START)
    assert lock.left is None
    os.ftruncate(lock._descriptor, 0)
    os.pwrite(lock._descriptor, b'{"pid":7,"host":"h","since":"s"}', 0)
    os.close(lock._descriptor)
    again = Lock(tmp_path / "lock")
    again.acquire(START)
    assert again.left == Holder(7, "h", "s")
    again.release()


@pytest.mark.parametrize("command", ["export", "verify", "restore"])
def test_a_database_that_the_old_program_holds_is_waited_for_and_then_told(workshop: Workshop, command: str) -> None:
    with closing(sqlite3.connect(workshop.db, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        before = old_tool.everything(workshop.root / "2024")
        with pytest.raises(DatabaseBusy, match="another program has held it for 0"):
            workshop.run(command)
        assert old_tool.everything(workshop.root / "2024") == before
    done = subprocess.Popen(
        [*REFOLD, command, "--db", "archive/werkstatt.db", "--archive", "archive", "--wait", "0"],
        cwd=workshop.root.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.wait(60) == 0


def test_an_old_program_that_holds_its_database_makes_the_exit_code_11(workshop: Workshop) -> None:
    with closing(sqlite3.connect(workshop.db, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        options = ("--db", "archive/werkstatt.db", "--archive", "archive", "--wait", "0", "--json")
        done = refold(workshop, "export", *options)
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (11, "database-busy")


@pytest.mark.parametrize("point", ["gathered", "filled", "proved"])
def test_killed_while_it_changes_a_database_it_has_changed_nothing(workshop: Workshop, point: str) -> None:
    workshop.execute("UPDATE auftraege SET kunde_name = 'garbled'")
    before = workshop.rows()
    done = subprocess.run([sys.executable, "-c", KILLED, workshop.root, point], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert workshop.rows() == before
    assert workshop.run("restore").changed == 6
    assert workshop.rows() == {number: order(number) for number in range(1, 7)}


@pytest.mark.parametrize("point", ["gathered", "filled", "proved", "kept"])
def test_killed_while_it_makes_a_database_the_old_one_is_where_it_was(workshop: Workshop, point: str) -> None:
    damaged = workshop.db.read_bytes()[:5000]
    workshop.db.write_bytes(damaged)
    done = subprocess.run([sys.executable, "-c", KILLED, workshop.root, point], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert workshop.db.read_bytes() == damaged
    assert workshop.run("restore").restored == 6
    assert not list(workshop.root.glob("*.restoring*"))


def test_killed_at_any_time_an_export_leaves_files_that_are_whole_and_the_next_one_finishes(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "archive", range(1, 300))
    workshop.execute("UPDATE auftraege SET kunde_name = 'Neu', updated_at = '2026-01-01T00:00:00'")
    options = ("--db", "archive/werkstatt.db", "--archive", "archive")
    wholes = {old_tool.spelt(order(number), backslash=number % 2 == 0) for number in range(1, 300)}
    news = {
        old_tool.spelt(order(number, kunde_name="Neu", updated_at="2026-01-01T00:00:00")) for number in range(1, 300)
    }
    process = subprocess.Popen([*REFOLD, "export", *options], cwd=tmp_path, env=environment())
    first = workshop.place(1)
    deadline = time.monotonic() + 30
    while not list(first.glob("*.refold")) and process.poll() is None and time.monotonic() < deadline:
        pass
    process.kill()
    process.wait()
    assert {path.read_bytes() for path in workshop.root.rglob("data.csv")} <= wholes | news
    assert workshop.run("export").errors == 0
    assert {path.read_bytes() for path in workshop.root.rglob("data.csv")} == news
    assert not list(workshop.root.rglob("*.refold"))
    assert workshop.run("verify").verified == 299


@needs_root
def test_a_share_that_is_read_only_is_verified_and_restored_from(workshop: Workshop, tmp_path: Path) -> None:
    db = shutil.copy(workshop.db, tmp_path / "werkstatt.db")
    subprocess.run(["mount", "--bind", workshop.root, workshop.root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", workshop.root], check=True)
        assert kinds(workshop.run("verify")) == [("not-locked", None)]
        outcome = workshop.run("restore", db=tmp_path / "new.db")
        assert (outcome.restored, kinds(outcome)) == (6, [("not-locked", None)])
        done = refold(workshop, "export", "--db", str(db), "--archive", "archive")
        assert (done.returncode, "Read-only" in done.stderr) == (1, True)
        assert refold(workshop, "restore", "--db", "archive/werkstatt.db", "--archive", "archive").returncode == 1
    finally:
        subprocess.run(["umount", "--lazy", workshop.root], check=True)
    assert workshop.rows() == {number: order(number) for number in range(1, 7)}


@needs_root
def test_a_disk_that_is_full_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "small") as small:
        workshop = Workshop(small / "archive", range(1, 40))
        workshop.execute("UPDATE auftraege SET kunde_name = ?, updated_at = '2026-01-01T00:00:00'", "N" * 5000)
        before, rows = old_tool.everything(workshop.root / "2024"), workshop.rows()
        resize(small, used(small) + 16 * 4096)
        for command in ("export", "restore"):
            done = refold(workshop, command, "--db", "archive/werkstatt.db", "--archive", "archive", "--json")
            assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (1, "storage-failed"), command
            left = old_tool.everything(workshop.root / "2024")
            assert {name: data for name, data in left.items() if not name.endswith(".refold")} == before
            assert workshop.rows() == rows
        resize(small, 64 << 20)
        assert workshop.run("export", log=None).exported == 39
        assert workshop.run("verify", log=None).verified == 39
