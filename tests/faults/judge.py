"""What must hold after an operation that the disk let down, whatever it had done by then.

    acknowledged ⊆ recovered ⊆ attempted

The archive opens, verifies, and is what a replay of its log makes elsewhere: digest, tables and every byte of the
folders. Opening it again changes nothing, it takes a write, and the same operation, done again, ends well.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

import refold
from refold import RefoldError
from refold.events import Event, canonical, decode
from refold_adapters.backup import BackupUnknown, newest, read_history, verify
from refold_adapters.folders import FoundEvent, read_events
from refold_adapters.folders.disk import EDITED
from refold_adapters.hand_edits import edits_of
from refold_adapters.share import segments
from tests.crash.look import leftovers, rows, tables, tree

from .cases import EDITED as EDITED_FILES
from .cases import MOVED, NOW, Case, Report, thing

EMPTY = sha256(b"").hexdigest()[:8]
KEPT = ".before-restore"
"""What a log that was put aside is called."""


def is_own(name: str) -> bool:
    """Whether no replay makes a file: settings, receipts, and what stood torn where nobody can tell it from an edit."""
    return name in {"refold.toml", "refold-receipt.json"} or (EDITED in name and EMPTY not in name)


class Found(msgspec.Struct):
    """What an archive holds: the bytes of its events in order, and what they were written for."""

    bodies: list[bytes] = []
    operations: set[str] = set()
    complaints: list[str] = []


def operation(event: Event) -> str:
    """What an event was written for."""
    return event.meta.get("op") or f"{event.collection}/{event.key}"


def bodies(root: Path) -> list[bytes]:
    """The bytes of the events of a log, in its order."""
    found = rows(root / "changelog.db", "SELECT body FROM events ORDER BY position")
    return [body for (body,) in found]


async def _state(root: Path, complaints: list[str]) -> str:
    async with refold.open(root) as engine:
        await engine.settled()
        complaints += [f"verify: {finding}" for finding in (await engine.verify()).findings]
        for projection in (await engine.status()).projections:
            if projection.state != "current":
                complaints.append(f"status: {projection}")
        return await engine.digest()


async def _write(root: Path, key: str) -> None:
    async with refold.open(root) as engine:
        if "things" in engine.schemas:
            await engine.put("things", thing(key, "north"))


def examine(root: Path, elsewhere: Path) -> Found:
    """An archive after it was opened and closed. Raises what opening it raises."""
    found = Found()
    digest = asyncio.run(_state(root, found.complaints))
    found.complaints += [left for left in leftovers(root) if KEPT not in left]
    found.bodies = bodies(root)
    found.operations = {operation(decode(body)) for body in found.bodies}
    here = tree(root)
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    shutil.copy(root / "changelog.db", elsewhere)
    replayed = asyncio.run(_state(elsewhere, found.complaints))
    there = tree(elsewhere)
    if replayed != digest:
        found.complaints.append("a replay elsewhere has another digest")
    if tables(elsewhere) != tables(root):
        found.complaints.append("a replay elsewhere makes other tables")
    differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    found.complaints += [f"a replay elsewhere makes another {name}" for name in differing if not is_own(name)]
    if asyncio.run(_state(root, found.complaints)) != digest or tree(root) != here or bodies(root) != found.bodies:
        found.complaints.append("opening it again changed it")
    return found


class Said(msgspec.Struct):
    """A report, read: what was attempted and acknowledged, the codes of errors, and what a verification found."""

    attempted: set[str] = set()
    acknowledged: set[str] = set()
    errors: list[str] = []
    findings: list[str] = []


def read(lines: Sequence[str]) -> Said:
    """The report of one process, or as much of it as there is."""
    said = Said()
    for line in lines:
        sign, _, name = line.partition(" ")
        if sign == "?":
            said.attempted.add(name)
        elif sign == "!":
            said.acknowledged.add(name)
        elif sign == "x":
            said.errors.append(name)
        elif sign == "f":
            said.findings.append(name)
    return said


def judge(case: Case, place: Path, base: Path, said: Said) -> list[str]:
    """Everything that is wrong at `place`, where `case` began with a copy of `base`."""
    scratch = place.with_name(f"{place.name}-elsewhere")
    complaints = [
        *_witnessed(case, place, base, said),
        *_shared(case, place, base, said),
        *_backed(case, place, base, said),
        *_pruned(case, place, said),
    ]
    refused = False
    for name in case.archives:
        try:
            complaints += _archive(case, name, place, base, said, scratch)
        except RefoldError as error:
            refused = error.code in case.refusals and "restore" not in said.acknowledged
            if not refused:
                complaints.append(f"{name} cannot be opened: {error.code}: {error}")
    complaints += _made(case, place, base, said, scratch)
    if complaints:
        return complaints
    complaints += _again(case, place)
    complaints += _left_over(place)
    if case.edits and not complaints:
        complaints += asyncio.run(_edited(place / "archive"))
    if refused and not complaints:
        for name in case.archives:
            complaints += _archive(case, name, place, base, said, scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    return complaints


def _witnessed(case: Case, place: Path, base: Path, said: Said) -> Iterator[str]:
    """The folders alone, before anybody opens the archive, still tell every event that they told.

    That of a record on its way from one folder to another may be in neither: the two are renamed one after the other.
    """
    moving = {MOVED} if "moved" in said.attempted else set()
    for name in case.archives:
        found = {canonical(one.event) for one in read_events(place / name) if isinstance(one, FoundEvent)}
        if lost := {operation(decode(body)) for body in set(bodies(base / name)) - found} - moving:
            yield f"{name}: its folders tell no more of {sorted(lost)}"


def _shared(case: Case, place: Path, base: Path, said: Said) -> Iterator[str]:
    """A share on which a session ended has what the session put there."""
    if not case.shares or "sync" not in said.acknowledged:
        return
    found: set[bytes] = set()
    for segment in segments.scan(place / "share"):
        if isinstance(segment, segments.Segment):
            found.update(segments.read(segment))
    if lost := set(bodies(base / "archive")) - found:
        yield f"{len(lost)} events are not on the share, and the session ended well"


def _backed(case: Case, place: Path, base: Path, said: Said) -> Iterator[str]:
    """Every backup under its name is in order, and one that was acknowledged is there, with every event."""
    if not case.backs or not (place / "backups").is_dir():
        if case.backs and "backup" in said.acknowledged:
            yield "a backup was acknowledged, and is not there"
        return
    names = [path for path in (place / "backups").iterdir() if path.suffix == ".zip"]
    try:
        history = read_history(place / "backups", lambda: None)
        found = verify(names, history, whole=True, secret=lambda: None, tell=lambda what, done: None)
        yield from (f"backups: {finding}" for finding in found.findings)
        last = max((known.position or 0 for known in history.backups), default=0)
    except BackupUnknown:
        last = 0
    if "backup" in said.acknowledged and last < len(bodies(base / "archive")):
        yield f"a backup was acknowledged, and ends at {last}"


def _pruned(case: Case, place: Path, said: Said) -> Iterator[str]:
    """The backups that are left are in order, the newest and what it needs among them."""
    if not case.prunes:
        return
    names = [path for path in (place / "many").iterdir() if path.suffix == ".zip"]
    history = read_history(place / "many", lambda: None)
    found = verify(names, history, whole=True, secret=lambda: None, tell=lambda what, done: None)
    yield from (f"backups: {finding}" for finding in found.findings)
    if newest(history).millis != NOW + 3:
        yield "the newest backup is gone"
    if "prune" in said.acknowledged and len(names) != 2:
        yield f"{len(names)} backups are left"


async def _edited(root: Path) -> list[str]:
    """Whether edits by hand are in the records, and nothing of them is left in the folders."""
    async with refold.open(root) as engine:
        cell, row = await engine.get("things", "base-0"), await engine.get("things", "by-hand")
        left = await edits_of(engine, sure=True)
    found = cell is not None and cell.values["n"] == 77 and row is not None and row.values["n"] == 5
    return [*([] if found else ["an edit is lost"]), *(f"an edit is left: {edit}" for edit in left.listed)]


def _left_over(place: Path) -> Iterator[str]:
    """What is there only while something is made, and stays although it was made."""
    for path in place.rglob("*"):
        if path.name.endswith((".partial", ".refold", ".tmp")) or (path.is_dir() and not any(path.iterdir())):
            yield f"left over: {path.relative_to(place)}"


def _by_hand() -> Iterator[str]:
    """How complaints name the files that were edited: they stay so until the edits are adopted."""
    for file in EDITED_FILES:
        folder, _, name = file.rpartition("/")
        yield file
        yield f"folder='{folder}', file='{name}'"


def _archive(case: Case, name: str, place: Path, base: Path, said: Said, scratch: Path) -> Iterator[str]:
    found = examine(place / name, scratch)
    told = [one for one in found.complaints if not (case.edits and any(file in one for file in _by_hand()))]
    yield from (f"{name}: {complaint}" for complaint in told)
    before = bodies(base / name)
    if case.same and found.bodies[: len(before)] != before:
        yield f"{name}: its log does not go on from what it was"
    if lost := set(before) - set(found.bodies):
        yield f"{name}: {len(lost)} events of {len(before)} are lost"
    known = {operation(decode(body)) for body in before}
    attempted = said.attempted | ({"/restores", "/tags"} if "restore" in said.attempted else set())
    acknowledged = said.acknowledged - {"restore", "sync", "backup", "prune"}
    if "sync" in said.attempted:
        peers = {operation(decode(body)) for one in ("archive", "other") for body in bodies(base / one)}
        attempted |= peers
        acknowledged |= peers if "sync" in said.acknowledged else set()
    if missing := acknowledged - found.operations:
        yield f"{name}: acknowledged and lost: {sorted(missing)}"
    if extra := found.operations - known - attempted:
        yield f"{name}: nobody attempted {sorted(extra)}"
    asyncio.run(_write(place / name, "proof"))


def _made(case: Case, place: Path, base: Path, said: Said, scratch: Path) -> Iterator[str]:
    """The archive that the case makes: all that was acknowledged is in it, and it is whole where it has to be."""
    if not case.makes:
        return
    root = place / case.makes
    if not (root / "changelog.db").exists():
        if said.acknowledged:
            yield f"{case.makes} was acknowledged, and is not there"
        if root.exists() and not case.grows and any(root.iterdir()):
            yield f"{case.makes} is there in part"
        return
    try:
        found = examine(root, scratch)
    except RefoldError as error:
        yield f"{case.makes} cannot be opened: {error.code}: {error}"
        return
    yield from (f"{case.makes}: {complaint}" for complaint in found.complaints)
    if missing := said.acknowledged - {"restore"} - found.operations:
        yield f"{case.makes}: acknowledged and lost: {sorted(missing)}"
    if case.copies and (lost := set(bodies(base / "archive")) - set(found.bodies)):
        yield f"{case.makes}: {len(lost)} events of the source are not in it"


def _again(case: Case, place: Path) -> list[str]:
    """The same operation, once nothing is wrong any more."""
    try:
        asyncio.run(case.act(place, Report(place.with_name(f"{place.name}-again"))))
    except RefoldError as error:
        made = bool(case.makes) and not case.grows and (place / case.makes).exists()
        if not (made and error.code == "exists"):
            return [f"done again, it failed: {error.code}: {error}"]
    return []
