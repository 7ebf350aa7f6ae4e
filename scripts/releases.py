"""Releases of airportsdata, the real history of the demo and the oracle: fetched once with pip, read from the wheel."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile, ZipFile

Row = dict[str, str | float | None]
Release = dict[str, Row]

NUMBERS = ("elevation", "lat", "lon")
TEXTS = ("icao", "iata", "name", "city", "subd", "country", "tz", "lid")
SECONDS = 60


class Unavailable(Exception):
    """A release that is neither installed nor in the cache, and could not be fetched."""


def installed() -> str:
    """The release that is installed."""
    return metadata.version("airportsdata")


def load(version: str, cache: Path) -> Release:
    """The airports of a release, by ICAO code. Raises `Unavailable`."""
    if version == installed():
        return parse((files("airportsdata") / "airports.csv").read_text(encoding="utf-8"))
    wheel = fetch(version, cache)
    try:
        with ZipFile(wheel) as archive:
            return parse(archive.read("airportsdata/airports.csv").decode())
    except (BadZipFile, KeyError) as error:
        raise Unavailable(f"{wheel.name} is no wheel of airportsdata: {error}") from error


def fetch(version: str, cache: Path) -> Path:
    """The wheel of a release, downloaded if it is not in the cache. Raises `Unavailable`."""
    pattern = f"airportsdata-{version}-*.whl"
    cache.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(cache.glob(pattern))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--only-binary", ":all:", "--retries", "1", "--timeout", "10", "--dest", str(cache)]
        try:
            done = subprocess.run(
                [*command, f"airportsdata=={version}"], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"airportsdata {version} did not come within {SECONDS} s") from None
        if not (found := sorted(cache.glob(pattern))):
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
            raise Unavailable(f"airportsdata {version} cannot be had: {said[-1]}")
    return found[0]


def parse(text: str) -> Release:
    """The rows of a release's CSV by key; a column that an older release lacks is empty."""
    release: Release = {}
    for cells in csv.DictReader(io.StringIO(text, newline="")):
        row: Row = {name: cells.get(name, "") for name in TEXTS}
        row |= {name: float(cells[name]) if cells[name] else None for name in NUMBERS}
        release[cells["icao"]] = row
    return release
