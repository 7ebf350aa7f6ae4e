"""The oracle on a small invented history, and on a product that is wrong: it has to find that."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import refold.conflict
import refold.fold

from .oracle.replicas import Outcome, replay

SCRIPT = Path(__file__).parents[1] / "scripts" / "oracle"

Release = dict[str, dict[str, Any]]


def invented() -> dict[str, Release]:
    """Four releases of thirty places: each changes names and numbers, closes some and opens others."""
    history = {}
    for number in range(4):
        rows = {}
        for place in range(30):
            if (place + number) % 7 == 0:
                continue
            rows[f"P{place:02}"] = {
                "icao": f"P{place:02}",
                "name": f"=Pläce {place}, {number if place % 3 == 0 else 0}",
                "country": "DE" if place % 2 else "AT",
                "subd": ("", "Süd/Ost", "süd/ost")[(place + number * (place % 5 == 0)) % 3],
                "elevation": None if (place + number) % 5 == 0 else float(place * (number + 1)),
                "lat": -1.5 * place,
            }
        history[f"r{number}"] = rows
    return history


async def outcome(place: Path, seed: str) -> Outcome:
    """What the oracle says of the invented history."""
    return await replay(place, invented(), seed)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", ["one", "two", "three"])
async def test_replicas_end_as_plain_dictionaries_say(tmp_path: Path, seed: str) -> None:
    found = await outcome(tmp_path, seed)
    assert not found.complaints, "\n".join(found.complaints[:10])
    assert found.events > 300 and found.records == found.rows == found.cells > 60
    assert found.disputes == sum(found.conflicts.values()) > 30


@pytest.mark.anyio
async def test_another_winner_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refold.conflict, "choose", lambda policy, field, sides, history: sides[0].value)
    assert (await outcome(tmp_path, "one")).complaints


@pytest.mark.anyio
async def test_a_conflict_that_is_passed_over_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.conflict_list._entries", lambda record, found: [])
    complaints = (await outcome(tmp_path, "one")).complaints
    assert any("not listed" in complaint for complaint in complaints)


@pytest.mark.parametrize(("arguments", "code"), [([], 1), (["--allow-offline"], 0)])
def test_without_releases_nothing_is_said_to_be_right(arguments: list[str], code: int) -> None:
    command = [sys.executable, str(SCRIPT), "--releases", "19700101", "19700102", *arguments]
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert "nothing was checked" in done.stderr and not done.stdout
