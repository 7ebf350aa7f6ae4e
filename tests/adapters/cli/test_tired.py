"""What an operator does at three in the morning, and that every answer says what happened and what to do next."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from .support import Refold


def lose_log(root: Path) -> None:
    for path in root.glob("changelog.db*"):
        path.unlink()


@pytest.mark.parametrize(
    "command", ["get airports EDDF", "ls", "put airports icao=EDDF", "restore -o b", "backup create"]
)
def test_a_lost_log_is_no_archive_to_be_begun(airports: Refold, tmp_path: Path, command: str) -> None:
    lose_log(tmp_path / "a")
    done = airports(*command.split())
    assert done.code == 1 and done.out == ""
    assert done.err.startswith("error: the log is gone") and "--from folders" in done.err and "init" not in done.err
    assert not list((tmp_path / "a").glob("changelog.db"))


def test_a_rotten_log_is_not_called_a_fork_by_its_restore(airports: Refold, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a/changelog.db") as connection:
        (body,) = connection.execute("SELECT body FROM events WHERE position = 2").fetchone()
        connection.execute("UPDATE events SET body = ? WHERE position = 2", (body.replace(b"Frankfurt", b"Frankfurd"),))
    connection.close()
    done = airports("restore", "-o", "b", "--json")
    assert (done.code, done.error["code"], done.error["position"]) == (1, "log-corrupt", 1)
    assert "refold recover" in done.error["hint"] and not (tmp_path / "b").exists()


def test_what_is_missing_is_told_with_what_to_do(airports: Refold, tmp_path: Path) -> None:
    lose_log(tmp_path / "a")
    shutil.rmtree(tmp_path / "a/DE/Hesse")
    done = airports("restore", "--in-place", "--from", "folders")
    assert done.code == 1
    assert done.err.startswith("error: events are missing: office:2\nhint: ") and "refold recover" in done.err


def test_a_dry_run_may_say_where_to(airports: Refold, tmp_path: Path) -> None:
    assert airports("recover", "a", "-o", "b", "--dry-run").code == 0
    assert not (tmp_path / "b").exists()


def test_a_file_is_no_archive(airports: Refold) -> None:
    done = airports("verify", root="airports.csv")
    assert done.code == 10 and done.err.startswith("error: no archive at airports.csv")


def test_a_list_of_no_directory_says_so(airports: Refold) -> None:
    done = airports("backup", "list", "--dir", "nowhere")
    assert done.code == 0 and "no directory" in done.err and "--dir" in done.err


@pytest.mark.parametrize("name", ["@3", "2024", "office:3", ""])
def test_a_tag_that_looks_like_another_moment(airports: Refold, name: str) -> None:
    done = airports("tag", name)
    assert done.code == 1 and done.err.startswith("error: tags: field 'name': a letter or _")
