"""Scans after any run of changes say what a naive reader says, who holds everything in dictionaries."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

import refold
from refold import Engine
from refold_adapters.documents import record
from refold_adapters.documents.scanning import scanning
from refold_adapters.settings import DOCUMENTS
from refold_adapters.wording import Wording

from .world import OLD, digest, fill, home, told, values, write

KEYS = ("a", "b")
PLACES = ("x/1", "y/z/2")
CONTENTS = st.sampled_from([b"one.....", b"two.....", b"three..."])  # of one size, so that only bytes tell them apart
AHEAD = 4_000_000_000
KEY, PLACE = st.sampled_from(KEYS), st.sampled_from(PLACES)


Name = tuple[str, str, str | None]
"""Kind, path and key of a finding."""

Outcome = tuple[str | None, str]
"""The path and the hash that a record comes to have; no path where it is left as it is."""


class Memory(NamedTuple):
    stat: tuple[int, int, int]
    hash: str
    rot: str | None = None


class Naive:
    """What stands on the disk, read whole each time, and what a look may go by that does not read everything."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: dict[str, tuple[str | None, str]] = {key: (home(key), digest(key.encode() * 8)) for key in KEYS}
        self.memory: dict[str, Memory] = {}

    def files(self) -> list[str]:
        found = [path for path in self.root.rglob("*") if path.is_file() and path.suffix in {".pdf", ""}]
        names = {path.relative_to(self.root).as_posix() for path in found}
        return sorted(name for name in names if "/" in name)

    def visible(self, path: str, *, full: bool) -> Memory:
        found = os.stat(self.root / path)
        stat = found.st_size, found.st_mtime_ns, found.st_ino
        known, settled = self.memory.get(path), found.st_mtime < time.time() - 600
        if known is not None and known.stat == stat and settled and not full:
            return known
        hashed = digest((self.root / path).read_bytes())
        if known is not None and known.hash != hashed and known.stat[:2] == stat[:2] and settled:
            return Memory(stat, known.hash, hashed)
        return Memory(stat, hashed)

    def scan(self, *, full: bool, recording: bool) -> set[Name]:
        """The findings that are left; with `recording` the records follow what was found."""
        files = self.files()
        self.memory = {path: known for path, known in self.memory.items() if path in files}
        found: dict[Name, Outcome] = {}
        for key, (path, said) in self.records.items():
            if path is not None:
                self.judge(path, key, said, path in files, full, found)
        pointed = {path for path, _ in self.records.values()}
        strangers = {path: self.visible(path, full=False) for path in files if path not in pointed}
        places = self.move(strangers, found)
        self.memory |= {path: strangers[path] for path in places}
        for path in strangers.keys() - places:
            found["orphaned", path, None] = None, ""
        for name, (path, said) in list(found.items()) if recording else ():
            if path is not None and name[0] in {"new", "changed", "hash", "moved"}:
                self.records[str(name[2])] = path, said
                del found[name]
        return set(found)

    def judge(self, path: str, key: str, said: str, there: bool, full: bool, found: dict[Name, Outcome]) -> None:
        if not there:
            found["missing", path, key] = None, said
            return
        seen = self.memory[path] = self.visible(path, full=full)
        now = seen.rot or seen.hash
        if not said:
            found["new", path, key] = path, now
        elif len(said) != 64:
            found["hash", path, key] = path, now
        elif said != now:
            found["rot" if seen.rot and said == seen.hash else "changed", path, key] = path, now

    def move(self, strangers: dict[str, Memory], found: dict[Name, Outcome]) -> set[str]:
        """Makes moves of what is missing and stands elsewhere; all the places where it may be."""
        lost = {name: said for name, (_, said) in found.items() if name[0] == "missing" and said}
        places: set[str] = set()
        for name, said in lost.items():
            there = [path for path, seen in strangers.items() if (seen.rot or seen.hash) == said]
            if there:
                rivals = {path for (_, path, _), other in lost.items() if other == said}
                only = there[0] if len(there) == len(rivals) == 1 else None
                del found[name]
                found["moved", name[1], name[2]] = only, said
                places.update(there)
        return places


class World:
    """The archive beside the naive reader, and the changes that both see."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine, self.root, self.naive = engine, root, Naive(root)
        self.time = OLD

    def write(self, path: str, data: bytes) -> None:
        self.time += 10
        write(self.root, path, data, self.time)

    def edit(self, key: str, data: bytes) -> None:
        self.write(home(key), data)

    def stray(self, place: str, data: bytes) -> None:
        self.write(place, data)

    def touch(self, key: str) -> None:
        if (self.root / home(key)).exists():
            self.time += 10
            os.utime(self.root / home(key), (self.time, self.time))

    def ahead(self, key: str, data: bytes) -> None:
        """A time of change that proves nothing, as that of a file which is being written now."""
        write(self.root, home(key), data, AHEAD)

    def spoil(self, key: str, data: bytes) -> None:
        """Other bytes under the same size, time and inode."""
        path = self.root / home(key)
        if path.exists() and self.naive.records[key][0] == home(key) and len(data) == path.stat().st_size:
            before = path.stat()
            path.write_bytes(data)
            os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))

    def replace(self, key: str, data: bytes) -> None:
        """Another file of the same size and time."""
        path = self.root / home(key)
        if path.exists():
            before = path.stat()
            beside = path.with_name("beside")
            beside.write_bytes(data)
            os.utime(beside, ns=(before.st_mtime_ns, before.st_mtime_ns))
            beside.replace(path)

    def move(self, key: str, place: str) -> None:
        if (self.root / home(key)).exists():
            (self.root / place).parent.mkdir(parents=True, exist_ok=True)
            (self.root / home(key)).replace(self.root / place)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def forget(self) -> None:
        for path in self.root.glob(DOCUMENTS + "*"):
            path.unlink()
        self.naive.memory.clear()

    async def point(self, key: str, place: str | None) -> None:
        self.naive.records[key] = place, self.naive.records[key][1]
        await self.engine.patch("orders", key, {"path": place})

    async def say(self, key: str, hashed: str | None) -> None:
        self.naive.records[key] = self.naive.records[key][0], hashed or ""
        await self.engine.patch("orders", key, {"sha256": hashed})

    async def scan(self, full: bool, recording: bool) -> None:
        wanted = self.naive.scan(full=full, recording=recording)
        async with scanning(self.engine, self.root, full=full) as look:
            if recording:
                await record(look, self.engine, Wording("ann"))
            report = await asyncio.to_thread(look.conclude)
        assert told(report) == wanted
        for key, (path, said) in self.naive.records.items():
            assert await values(self.engine, key) == (path, said or None)


CHANGES = st.one_of(
    st.tuples(st.sampled_from(["edit", "ahead", "spoil", "replace"]), KEY, CONTENTS),
    st.tuples(st.just("touch"), KEY),
    st.tuples(st.just("move"), KEY, PLACE),
    st.tuples(st.just("stray"), PLACE, CONTENTS),
    st.tuples(st.just("remove"), st.one_of(KEY.map(home), PLACE)),
    st.tuples(st.just("forget")),
    st.tuples(st.just("point"), KEY, st.one_of(st.none(), PLACE)),
    st.tuples(st.just("say"), KEY, st.sampled_from([None, "no hash", digest(b"one....."), digest(b"two.....")])),
)
LOOKS = st.sampled_from([(False, False), (False, False), (False, True), (True, False)])
RUNS = st.lists(st.tuples(st.lists(CHANGES, min_size=1, max_size=3), LOOKS), min_size=8, max_size=16)


@settings(max_examples=15)
@given(RUNS)
def test_scans_say_what_a_naive_reader_says(runs: list[tuple[list[tuple[str, ...]], tuple[bool, bool]]]) -> None:
    async def run(root: Path) -> None:
        async with refold.open(root, folders=False) as engine:
            await fill(engine, root, KEYS)
            world = World(engine, root)
            await world.scan(False, False)
            for changes, (full, recording) in runs:
                for name, *arguments in changes:
                    done = getattr(world, name)(*arguments)
                    if done is not None:
                        await done
                await world.scan(full, recording)

    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(Path(place) / "archive"))
