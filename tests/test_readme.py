"""The README and the tour of the house, tried as a new user tries them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import refold
from refold.schema import from_toml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


def blocks(language: str) -> list[str]:
    """The fenced blocks in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def python(code: str, place: Path) -> str:
    """What a program prints that stands in a file of its own and runs in `place`."""
    (place / "pasted.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "pasted.py"], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_screen_works_when_pasted(tmp_path: Path) -> None:
    printed = python(blocks("python")[0], tmp_path)
    assert "front-desk" in printed and "billing" in printed and "12.5" in printed
    names = {path.name for path in (tmp_path / "archive" / "Autohaus Süd").iterdir()}
    assert names == {"data.csv", "meta.json", "events.jsonl"}
    commands = [line for line in "".join(blocks("console")).splitlines() if line.startswith("$ refold")]
    assert len(commands) == 6
    for line in commands:
        words = shlex.split(line.removeprefix("$ refold"), comments=True)
        run = [sys.executable, "-c", "from refold_adapters.cli import main; main()", *words]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "rescued" / "Autohaus Süd" / "data.csv").is_file()


def test_the_embedding_example_works(tmp_path: Path) -> None:
    printed = python(blocks("python")[1] + "\nimport asyncio\nasyncio.run(serve())\n", tmp_path)
    assert "True" in printed


def test_replicas_meet_as_the_example_says(tmp_path: Path) -> None:
    code = "\n".join([*blocks("python")[1:3], "import asyncio", "asyncio.run(serve())", "asyncio.run(meet())"])
    assert "[10.0, 12.0] {'total': 12.0} last-write-wins" in python(code, tmp_path)


def test_a_device_pushes_as_the_example_says(tmp_path: Path) -> None:
    code = "\n".join([blocks("python")[1], blocks("python")[3], "import asyncio"])
    assert python(code + "\nasyncio.run(serve())\nasyncio.run(push())\n", tmp_path).endswith("1 0 0 0 0\n")


def test_the_toml_example_defines_what_it_says() -> None:
    (airports,) = from_toml(blocks("toml")[0])
    assert airports.name == "airports" and airports.fields["elevation"].null


@pytest.mark.anyio
async def test_the_second_version_reads_what_the_first_wrote(tmp_path: Path) -> None:
    first, second = (from_toml(text)[0] for text in blocks("toml")[:2])
    async with refold.open(tmp_path / "one") as one, refold.open(tmp_path / "two") as two:
        await one.define(first)
        place = {"country": "DE", "subd": "BY", "opened": None, "code": "123456"}
        await one.put("airports", {"icao": "EDDM", "elevation": 1487.0, **place})
        await one.sync(two)
        await two.define(second)
        await one.put("airports", {"icao": "EDMO", "elevation": 12.5, **place})
        await one.sync(two)
        for engine in (one, two):
            shown = {record.key: record.values async for record in engine.find("airports")}
            assert [values["elevation_ft"] for _, values in sorted(shown.items())] == [1487, None]
            assert all(values["closed"] is False and "opened" not in values for values in shown.values())
            (conflict,) = [found async for found in engine.conflicts("open")]
            assert (conflict.kind, conflict.key) == ("conversion-conflict", "EDMO")
        assert await one.digest() == await two.digest()


def test_every_local_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("package", ["engine/refold", "adapters/refold_adapters"])
def test_the_tour_names_every_module(package: str) -> None:
    tour = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_]+", tour))
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    packages = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}
    assert (modules | packages) - words == set()


def test_the_tour_names_no_module_that_is_gone() -> None:
    tour = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = {path.name for path in ROOT.glob("*/refold*/**/*.py")} | {
        path.name for path in (ROOT / "tests").rglob("*.py")
    }
    assert set(re.findall(r"\b[a-z_]+\.py\b", tour)) - modules == set()


def test_a_device_pulls_as_the_example_says(tmp_path: Path) -> None:
    runs = "asyncio.run(serve())\ncursor = asyncio.run(pull())\nprint('again')\nasyncio.run(pull(cursor))\n"
    first, _, again = python(
        "\n".join([blocks("python")[1], blocks("python")[4], "import asyncio", runs]), tmp_path
    ).partition("again")
    assert "put orders 076330" in first and "put" not in again
