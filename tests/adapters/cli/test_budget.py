"""`verify --budget`: what it covers, what it notes, and what becomes of the note."""

import json
from pathlib import Path

import pytest

from refold_adapters.verified import NAME

from .support import Refold


def covered(refold: Refold, *options: str) -> tuple[int, dict[str, object]]:
    done = refold("verify", "--json", *options)
    return done.code, done.json["coverage"]


def test_runs_go_on_until_all_is_checked(airports: Refold) -> None:
    for number in range(5):
        code, told = covered(airports, "--budget", "0s")
        assert (code, told["pieces"], told["checked"], told["never"]) == (0, 5, 1, 4 - number)
        assert (told["oldest"] is None) is (number < 4)
    code, told = covered(airports, "--budget", "10m", "--only", "folders")
    assert (told["pieces"], told["checked"], told["never"]) == (2, 2, 0)
    assert "coverage" not in airports("verify", "--json").json
    said = airports("verify", "--budget", "10m").out
    assert said.startswith("5 of 5 pieces were checked now") and "every piece was checked since 20" in said


def test_damage_is_told_by_every_run_until_it_is_mended(airports: Refold, tmp_path: Path) -> None:
    path = tmp_path / "a/DE/Hesse/data.csv"
    before = path.read_bytes()
    path.write_bytes(before + b"x")
    codes = [covered(airports, "--budget", "0s")[0] for _ in range(8)]
    first = codes.index(4)
    assert codes == [0] * first + [4] * (8 - first)
    path.write_bytes(before)
    assert covered(airports, "--budget", "0s")[0] == 0


@pytest.mark.parametrize(
    "text", ["", "no", '{"format": 9, "replica": "office", "pieces": {}}', '{"format": 1}', "[" * 9999]
)
def test_a_note_that_cannot_be_read_is_none(airports: Refold, tmp_path: Path, text: str) -> None:
    (tmp_path / "a" / NAME).write_text(text)
    assert covered(airports, "--budget", "0s")[1]["never"] == 4
    assert json.loads((tmp_path / "a" / NAME).read_text())["replica"] == "office"


def test_a_note_of_another_log_is_none(airports: Refold, tmp_path: Path) -> None:
    covered(airports, "--budget", "10m")
    assert airports("restore", "-o", "b").code == 0
    (tmp_path / "b" / NAME).write_bytes((tmp_path / "a" / NAME).read_bytes())
    done = airports("verify", "--json", "--budget", "0s", root="b")
    assert done.json["coverage"]["never"] == 4


def test_what_cannot_be_noted_is_said_and_changes_no_verdict(airports: Refold, tmp_path: Path) -> None:
    (tmp_path / "a" / NAME).mkdir()
    done = airports("verify", "--budget", "10m")
    assert (done.code, done.out.splitlines()[-1]) == (0, "ok: 4 events")
    assert "could not be noted" in done.err


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "10 m", "1.5h", "10m2h", "٣m"])
def test_lengths_of_time_that_are_none(airports: Refold, text: str) -> None:
    done = airports("verify", "--budget", text)
    assert done.code == 2 and "90s, 10m" in done.err
