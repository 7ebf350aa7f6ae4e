"""A fresh process looks at an archive after crashes: it opens it as any program would, and reads what is there."""

from __future__ import annotations

import asyncio
import csv
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import refold

from .model import Recovered

COLLECTIONS = {"things": "id", "parts": "no"}


def look(root: Path, elsewhere: Path, *, indexed: bool = True) -> Recovered:
    """What is in the archive once it has been opened and closed, compared with a rebuild of its log at `elsewhere`.

    `indexed` says that the folders' index was there all the time: without it nobody can tell whose an empty folder is.
    """
    found = Recovered()
    digest = asyncio.run(_open(root, found))
    found.complaints += leftovers(root)
    found.bodies = rows(root / "changelog.db", "SELECT position, body FROM events ORDER BY position")
    found.tables = tables(root)
    found.folders = folders(root)
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    shutil.copy(root / "changelog.db", elsewhere)
    if asyncio.run(_rebuild(elsewhere)) != digest:
        found.complaints.append("a replay elsewhere has another digest")
    if tables(elsewhere) != found.tables:
        found.complaints.append("a replay elsewhere makes other tables")
    here, there = tree(root), tree(elsewhere)
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            found.complaints.append(f"a replay elsewhere makes another {name}")
    if indexed:
        empty = [str(path) for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())]
        found.complaints += [f"an empty folder is left: {path}" for path in empty]
    return found


async def _open(root: Path, found: Recovered) -> str:
    async with refold.open(root, replica="office") as engine:
        await engine.settled()
        found.complaints += unfinished(root)
        report = await engine.verify()
        found.complaints += [f"verify: {finding}" for finding in report.findings]
        for projection in (await engine.status()).projections:
            if projection.state != "current":
                found.complaints.append(f"status: {projection}")
        return await engine.digest()


async def _rebuild(root: Path) -> str:
    async with refold.open(root) as engine:
        await engine.settled()
        return await engine.digest()


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """The answer of a query, from a connection of its own."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def tables(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows of the collections' tables by key; none where the crash came before they were defined."""
    path = root / "tables.db"
    there = {name for (name,) in rows(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in COLLECTIONS.keys() & there:
        columns = [row[0] for row in rows(path, f"SELECT name FROM pragma_table_info('{name}')")]
        records = [dict(zip(columns, row, strict=True)) for row in rows(path, f'SELECT * FROM "{name}"')]
        found[name] = {str(record[COLLECTIONS[name]]): record for record in records}
    return found


def folders(root: Path) -> dict[str, dict[str, tuple[str, dict[str, str]]]]:
    """The rows of all CSV files by collection and key, each with its folder."""
    found: dict[str, dict[str, tuple[str, dict[str, str]]]] = {name: {} for name in COLLECTIONS}
    for path in sorted(root.rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = "things" if "id" in row else "parts"
                key = row[COLLECTIONS[name]]
                place = str(path.relative_to(root).parent)
                if key in found[name]:
                    place += f" and {found[name][key][0]}"
                found[name][key] = place, row
    return found


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a root but the databases and the lock; nobody edits files here, so a copy put aside counts."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".db" not in path.name
    }


def unfinished(root: Path) -> Iterator[str]:
    """Files that are there only while something is being made."""
    for path in root.rglob("*"):
        if path.name.endswith(".refold") or ".rebuild." in path.name or ".verify." in path.name:
            yield f"left over: {path.relative_to(root)}"


def leftovers(root: Path) -> Iterator[str]:
    """Files that an archive that was closed does not have."""
    yield from unfinished(root)
    for path in root.iterdir():
        if path.name.endswith(("-wal", "-shm", "-journal")):
            yield f"left over: {path.name}"
