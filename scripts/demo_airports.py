"""The main job on real data: import, edit, lose everything but the log, lose everything but the folders."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import airportsdata
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import refold
from refold.events import canonical
from refold_adapters.restoring import restore

BATCH = 1000
DATABASES = ("changelog.db", "tables.db", "folders.db")

console = Console()


def airports() -> refold.Collection:
    """The collection: a folder for each country and region."""
    text, number = refold.Field("str"), refold.Field("float", null=True)
    names = ("icao", "iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz", "lid")
    fields = {name: number if name in {"elevation", "lat", "lon"} else text for name in names}
    return refold.Collection(name="airports", key="icao", folder="{country}/{subd}", fields=fields)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints a title, then how long what follows took."""
    console.print(f"\n[bold]{title}[/bold]")
    start = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - start:.1f} s[/dim]")


@contextmanager
def bar(title: str, total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        progress.add_task(title, total=total)
        yield progress


def files(root: Path) -> list[Path]:
    """Every file of the folders, none of the databases."""
    return sorted(
        path for path in root.rglob("*") if path.is_file() and path.name in {"data.csv", "meta.json", "events.jsonl"}
    )


def fingerprint(root: Path) -> tuple[str, int, int]:
    """A hash over the names and bytes of all folders, the number of files and their size."""
    whole, size, found = hashlib.sha256(), 0, files(root)
    for path in found:
        data = path.read_bytes()
        whole.update(f"{path.relative_to(root)}\0{len(data)}\0".encode() + data)
        size += len(data)
    return whole.hexdigest(), len(found), size


def remove_folders(root: Path) -> None:
    """Deletes every folder and the files in the root that are not databases."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name in {"data.csv", "meta.json", "events.jsonl"}:
            path.unlink()


def remove_database(root: Path, name: str) -> None:
    """Deletes a database and what SQLite keeps beside it."""
    for path in root.glob(f"{name}*"):
        path.unlink()


async def bodies(root: Path) -> str:
    """A hash over the canonical bytes of every event, in the order of the log."""
    whole = hashlib.sha256()
    async with refold.open(root, readonly=True) as engine:
        async for event in engine.events():
            whole.update(canonical(event))
    return whole.hexdigest()


async def fill(root: Path) -> str:
    """Imports the airports, edits and deletes some, and shows what the log says; the digest at the end."""
    records = sorted(airportsdata.load("ICAO").values(), key=lambda record: str(record["icao"]))
    async with refold.open(root, replica="demo", actor="demo") as engine:
        with step(f"Import {len(records):,} airports into folders by country and region"):
            await engine.define(airports())
            with bar("import", len(records)) as progress:
                for start in range(0, len(records), BATCH):
                    async with engine.batch(reason="first import") as batch:
                        for record in records[start : start + BATCH]:
                            batch.put("airports", record)
                    progress.advance(progress.task_ids[0], len(batch))
            await engine.settled()
        with step("Edit 500 of them and delete 100"):
            async with engine.batch(actor="surveyor", reason="new survey") as batch:
                for record in records[:5000:10]:
                    batch.patch("airports", record["icao"], {"elevation": (record["elevation"] or 0) + 1})
            async with engine.batch(actor="registrar", reason="closed") as batch:
                for record in records[7:2000:20]:
                    batch.delete("airports", record["icao"])
            await engine.put(
                "airports", {"icao": "EDDB", "name": "Berlin Brandenburg Willy Brandt"}, reason="full name"
            )
            await engine.settled()
        await show(engine)
        return await engine.digest()


async def show(engine: refold.Engine) -> None:
    """The end of the log, and who wrote which field of one record."""
    table = Table(
        "position", "kind", "key", "actor", "reason", "fields", title="The end of the log", title_justify="left"
    )
    async for event in engine.events(engine.position - 4):
        fields = ", ".join(f"{name}={value}" for name, value in event.data.items()) or "-"
        table.add_row(str(event.position), event.kind, event.key, event.actor, event.reason or "", fields)
    console.print(table)
    table = Table("field", "value", "written by", "why", title="Airport 00AK, field by field", title_justify="left")
    fields: dict[str, refold.Event] = {}
    async for event in engine.history("airports", "00AK"):
        fields.update(dict.fromkeys(event.data, event))
    for name, event in fields.items():
        table.add_row(name, str(event.data[name]), f"{event.actor}, event {event.seq}", event.reason or "")
    console.print(table)


async def replay(root: Path) -> str:
    """Opens what is left of an archive, which brings everything back from the log; the digest then."""
    async with refold.open(root) as engine:
        await engine.settled()
        report = await engine.verify()
        if not report.ok:
            raise SystemExit(f"verification found {report.findings}")
        return await engine.digest()


def must(same: bool, what: str) -> None:
    """Says that something is equal, or ends the demonstration."""
    if not same:
        raise SystemExit(f"NOT equal: {what}")
    console.print(f"[green]equal[/green]: {what}")


async def main(root: Path) -> None:
    """The whole story, in `root`."""
    archive, rescued = root / "archive", root / "rescued"
    digest = await fill(archive)
    before, count, size = fingerprint(archive)
    log = await bodies(archive)
    events = (archive / "changelog.db").stat().st_size
    console.print(f"\n{count:,} files in the folders, {size / 1e6:.1f} MB; the log has {events / 1e6:.1f} MB")
    console.print(f"digest {digest}")

    with step("Lose the tables and all folders; restore by replaying the log"):
        remove_folders(archive)
        remove_database(archive, "tables.db")
        remove_database(archive, "folders.db")
        again = await replay(archive)
    must(again == digest, "the digest of the state")
    must(fingerprint(archive)[0] == before, f"every byte of {count:,} files")

    with step("Lose the log and the tables too; rebuild all of it, history included, from the folders alone"):
        for name in DATABASES:
            remove_database(archive, name)
        await restore(archive, rescued, origin="folders")
    must(await replay(rescued) == digest, "the digest of the state")
    must(fingerprint(rescued)[0] == before, f"every byte of {count:,} files")
    must(await bodies(rescued) == log, "every event of the log, hash chain included")
    console.print(
        f"\n[bold green]Proved:[/bold green] the log alone brings back every byte of the folders, and the folders "
        f"alone bring back every event of the log ({count:,} files, digest {digest[:16]}…)."
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="refold-demo-") as place:
            asyncio.run(main(Path(place)))
