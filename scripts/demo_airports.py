"""The main job on real data: import, edit, lose everything but the log, lose everything but the folders; then two
replicas that go apart and meet."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import airportsdata
from rich.table import Table

import refold
from refold.events import canonical
from refold_adapters.recovery import restore

from .demo_meeting import meet
from .demo_stage import BATCH, airports, bar, console, fingerprint, must, step

DATABASES = ("changelog.db", "tables.db", "folders.db")


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
    """A hash over the canonical bytes of every event, in the order of the log, but of those that record a restore."""
    whole = hashlib.sha256()
    async with refold.open(root, readonly=True) as engine:
        async for event in engine.events():
            if event.kind is not refold.Kind.RESTORE:
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
    writers: dict[str, refold.Event] = {}
    async for event in engine.history("airports", "00AK"):
        writers.update(dict.fromkeys(event.data, event))
    for name, event in writers.items():
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


async def main(root: Path) -> None:
    """The whole story, in `root`."""
    archive, rescued = root / "archive", root / "rescued"
    digest = await fill(archive)
    before, count, size = fingerprint(archive)
    records, _, _ = fingerprint(archive, records=True)
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
        report = await restore(archive, rescued, origin="folders")
    must(report.digest == digest, "the digest of the state")
    must(await replay(rescued) == report.digest_after, "the digest with the event that records the restore")
    must(fingerprint(rescued, records=True)[0] == records, "every byte of every folder that holds records")
    must(await bodies(rescued) == log, "every event of the log, hash chain included")
    met = await meet(root / "meeting")
    console.print(
        f"\n[bold green]Proved:[/bold green] the log alone brings back every byte of the folders, and the folders "
        f"alone bring back every event of the log ({count:,} files, digest {digest[:16]}…); {met}"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="refold-demo-") as place:
            asyncio.run(main(Path(place)))
