"""The page for operators: every command of its exercise, as it would be pasted, and what it promises about them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/recovery.md"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the command `refold` on the path."""
    tool = tmp_path / "bin/refold"
    tool.parent.mkdir()
    code = "from refold_adapters.cli import main; main()"
    tool.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n", encoding="utf-8")
    tool.chmod(0o755)
    return tmp_path


def run(command: str, place: Path) -> str:
    """What a command prints, in a shell; it must succeed."""
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def test_the_exercise_brings_everything_back(place: Path) -> None:
    printed = {command: run(command, place) for command in COMMANDS}
    digest = printed["refold -C shop digest"].strip()
    assert len(digest) == 64
    assert f"digest\t{digest}\n" in printed["refold recover share left -o rescued"]
    assert "total\t13" in printed["refold -C rescued get orders 1"]
    assert not (place / "shop").exists()


def test_the_page_is_about_commands_that_were_run() -> None:
    assert len(COMMANDS) > 10
