"""The page for who moves an older archive: every command of it, as it would be pasted, and what it promises."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from .adapters.adopting import old_tool
from .adapters.adopting.old_tool import order

PAGE = Path(__file__).parents[1] / "docs/workshop.md"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
LEAVES_OUT = {command for command in COMMANDS if command.startswith("refold adopt")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with an older archive, and the command `refold` on the path."""
    shop = tmp_path / "shop"
    for number in range(1, 9):
        old_tool.export(shop, order(number), backslash=number % 2 == 0)
    row = order(2, datum="31.12.2024")
    data = old_tool.spelt(row)
    (shop / "2024/076002/data.csv").write_bytes(data)
    (shop / "2024/076002/meta.json").write_bytes(old_tool.meta(row, data))
    old_tool.fill(shop, [order(number) for number in range(3, 9)])
    tool = tmp_path / "bin/refold"
    tool.parent.mkdir()
    code = "from refold_adapters.cli import main; main()"
    tool.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n", encoding="utf-8")
    tool.chmod(0o755)
    return tmp_path


def run(command: str, place: Path) -> str:
    """What a command prints, in a shell; it must end as the page says."""
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (3 if command in LEAVES_OUT else 0), (command, done.stdout, done.stderr)
    return done.stdout


def test_the_archive_moves_and_comes_back(place: Path) -> None:
    before = old_tool.everything(place / "shop")
    documents = {name: data for name, data in before.items() if name.endswith(".pdf")}
    printed: dict[str, str] = {}
    for command in COMMANDS:
        printed[command] = run(command, place)
        if command == COMMANDS[0]:
            assert old_tool.everything(place / "shop") == before
    after = old_tool.everything(place / "rescued")
    assert documents == {name: after[name] for name in documents}
    assert "Autohaus Nord" in printed["refold -C shop diff moved @end auftraege"]
    assert "kennzeichen\tB-XY 99\n" in printed["refold -C rescued get auftraege 3"]
    assert "adopt" in printed["refold -C rescued blame auftraege 1"]
    with closing(sqlite3.connect(place / "rescued/werkstatt.db")) as connection:
        rows = dict(connection.execute("SELECT record_id, kunde_name FROM auftraege").fetchall())
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'refold%'")]
    assert rows == {1: "Autohaus Nord", **{number: order(number)["kunde_name"] for number in range(2, 9)}}
    assert names == []
    for number in range(1, 9):
        old_tool.read(place / f"rescued/2024/{76000 + number:06d}")


def test_the_page_is_about_commands_that_were_run() -> None:
    assert len(COMMANDS) > 30
