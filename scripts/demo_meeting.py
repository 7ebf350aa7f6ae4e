"""The second act: two replicas with one past take different releases of the data apart, and meet over a directory."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from rich.table import Table

import refold
from refold.sync import SyncReport

from .demo_stage import BATCH, airports, bar, console, fingerprint, must, step
from .releases import Release, Unavailable, installed, load

BASE, NORTH, SOUTH = "20241001", "20260315", "20260905"
PREFIX = "K"
"""ICAO codes of the contiguous United States begin so: the airports that this act is about."""

BY_HAND = dict.fromkeys(("iata", "name", "city", "elevation"), "manual")
"""Fields about which people decide; of the others, and of whether an airport is there, the last write holds."""

SHOWN = 8
"""Conflicts that are shown in full."""


def releases(cache: Path) -> dict[str, Release]:
    """The common past and what each side takes after it, by what they are called."""
    try:
        return {f"release {version}": local(load(version, cache)) for version in (BASE, NORTH, SOUTH)}
    except Unavailable as error:
        console.print(f"[yellow]{error}[/yellow]; so both sides take invented edits of release {installed()}")
        return invented(local(load(installed(), cache)))


def local(release: Release) -> Release:
    """The airports of this act."""
    return {key: row for key, row in release.items() if key.startswith(PREFIX)}


def invented(base: Release) -> dict[str, Release]:
    """Edits that stand in for releases where none can be had: the same on every run."""
    one, other = ({key: dict(row) for key, row in base.items()} for _ in range(2))
    keys = sorted(base)
    for key in keys[::10]:
        one[key]["name"] = f"{base[key]['name']} Airfield"
    for key in keys[::400]:
        other[key]["name"] = f"{base[key]['name']} Landing Strip"
    for key in keys[5::50]:
        one[key]["lat"], other[key]["lat"], other[key]["lon"] = 1.0, 2.0, 3.0
    for key in keys[7::200]:
        del other[key]
    return {f"release {installed()}": base, "invented edits": one, "other invented edits": other}


async def take(engine: refold.Engine, old: Release, new: Release, reason: str) -> int:
    """Writes what a release changes of another as one importer would; how many events that took."""
    keys = [key for key in sorted(new.keys() | old.keys()) if new.get(key) != old.get(key)]
    written = 0
    with bar(f"{engine.replica}: {reason}", len(keys)) as progress:
        for start in range(0, len(keys), BATCH):
            async with engine.batch(actor=f"{engine.replica}-import", reason=reason) as batch:
                for key in keys[start : start + BATCH]:
                    if key in new:
                        batch.put("airports", new[key])
                    else:
                        batch.delete("airports", key)
            written += sum(event is not None for event in batch.events)
            progress.advance(progress.task_ids[0], len(batch))
    return written


def told(reports: list[tuple[str, SyncReport]]) -> None:
    """What each session did, one line each."""
    table = Table("replica", "sent", "received", "merged records", "of these open")
    for name, report in reports:
        counts = (report.sent, report.received, report.merged, report.conflicts)
        table.add_row(name, *(f"{count:,}" for count in counts))
    console.print(table)


async def show(engine: refold.Engine) -> list[refold.Conflict]:
    """Counts the conflict list and shows some that are open with base, ours and theirs; all that are open."""
    found = [conflict async for conflict in engine.conflicts()]
    for (status, kind), count in sorted(Counter((one.status, str(one.kind)) for one in found).items()):
        console.print(f"{count:,} {status}: {kind}")
    waiting = sorted((one for one in found if one.open), key=lambda one: (not one.base, one.key))
    title = f"{min(SHOWN, len(waiting))} of {len(waiting)} that wait for somebody, as {engine.replica} sees them"
    table = Table("airport", "field", "base", "ours", "theirs", title=title, title_justify="left")
    for conflict in waiting[:SHOWN]:
        for name, sides in conflict.sides.items():
            if name not in BY_HAND:
                continue
            ours = next(side for side in sides if side.replica == engine.replica)
            theirs = next(side for side in sides if side.replica != engine.replica)
            base = str(conflict.base.get(name, "(was not there)"))
            table.add_row(conflict.key, name, base, str(ours.value), str(theirs.value))
    console.print(table)
    return waiting


async def settle(engine: refold.Engine, conflict: refold.Conflict) -> None:
    """Settles one conflict by hand: what the other side says is taken."""
    sides = next(sides for name, sides in conflict.sides.items() if name in BY_HAND)
    theirs = next(side for side in sides if side.replica != engine.replica)
    events = await engine.resolve(conflict.id, take=theirs.dot, actor="registrar", reason="asked the operator")
    for event in events:
        changes = ", ".join(f"{name}={value}" for name, value in event.data.items())
        console.print(f"{event.key}: {changes} (event {event.replica}:{event.seq} by {event.actor})")


async def meet(root: Path) -> str:
    """The whole act, in `root`; what it proved."""
    data = releases(root / "releases")
    (past, base), (first, ours), (second, theirs) = data.items()
    share, places = root / "share", [root / "north", root / "south"]
    share.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        north, south = [
            await stack.enter_async_context(refold.open(place, replica=place.name, actor="demo")) for place in places
        ]
        with step(f"Two replicas with one past: {past}, {len(base):,} airports {PREFIX}…, handed on over a directory"):
            await north.define(airports(**BY_HAND))
            await take(north, {}, base, past)
            told([(engine.replica, await engine.sync(f"dir://{share}")) for engine in (north, south)])
        must(await north.digest() == await south.digest(), "the digest of the state")

        with step(f"They go apart: north takes {first}, south takes {second}"):
            console.print(f"{await take(north, base, ours, first):,} events by north")
            console.print(f"{await take(south, base, theirs, second):,} events by south")

        with step("They meet over the directory: most of it merges by itself"):
            told([(engine.replica, await engine.sync(f"dir://{share}")) for engine in (north, south, north)])
        must(await north.digest() == await south.digest(), "the digest of the state")
        waiting = await show(north)

        with step("Somebody settles one of them by hand, and they meet again"):
            await settle(north, waiting[0])
            told([(engine.replica, await engine.sync(f"dir://{share}")) for engine in (north, south)])
        done = await south.conflict(waiting[0].id)
        by = done.settled_by.actor if done.settled_by is not None else "nobody"
        must((done.status, by) == ("resolved", "registrar"), f"south lists it as {done.status}, by {by}")

        for engine in (north, south):
            await engine.settled()
        reports = [await engine.verify() for engine in (north, south)]
        must(all(report.ok for report in reports), "log, tables and folders of each replica")
        digest = await north.digest()
        must(digest == await south.digest(), "the digest of the state")
    (one, count, _), (other, *_) = (fingerprint(place) for place in places)
    must(one == other, f"every byte of {count:,} files in the folders of both")
    return (
        f"replicas that were written apart and met over a directory hold the same state and the same bytes "
        f"({reports[0].events:,} events, {count:,} files, digest {digest[:16]}…); {len(waiting) - 1} conflicts are "
        f"still open, with both sides kept."
    )
