"""An archive for the tests of its folders: events of two replicas, decided as the engine decides them, and the bytes
that stand in the folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refold.clock import HybridClock
from refold.decide import Ground, Operation, Request, decide
from refold.events import Event, Head
from refold.fold import State, fold_all
from refold.ports import Record
from refold.replay import advance, catch_up, events_after
from refold.schema import Collection, Field, Schema, to_data
from refold_adapters.folders import FolderReplicas, ReadTables
from refold_adapters.folders.disk import Disk, PosixDisk
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables

START = 1_700_000_000_000

ORDERS = Collection(
    name="orders",
    key="id",
    folder="{place}",
    fields={
        "id": Field("str"),
        "place": Field("str", null=True),
        "note": Field("str", null=True),
        "n": Field("int", null=True),
    },
)
PARTS = Collection(
    name="parts",
    key="no",
    folder="{place}",
    fields={"no": Field("int"), "place": Field("str", null=True), "price": Field("float", null=True)},
)


class Writer:
    """A replica that writes: what it has seen, and a clock that runs `skew` milliseconds off."""

    def __init__(self, replica: str, skew: int) -> None:
        self.replica = replica
        self.head = Head(0, bytes(32))
        self.states: dict[Record, State] = {}
        self.now = START + skew
        self.clock = HybridClock(self.tick)

    def tick(self) -> int:
        self.now += 7
        return self.now

    def see(self, events: Sequence[Event]) -> None:
        self.states.update(fold_all(self.states, events))
        for event in events:
            self.clock.observe(event.time)


class World:
    """A root with a log and tables, and what writes to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.log = SqliteLog(root / "changelog.db", owner="office")
        self.tables = SqliteTables(root / "tables.db", self.log.at)
        self.schemas: dict[str, Schema] = {}
        self.office = Writer("office", 0)
        self.lab = Writer("lab", -3_600_000)

    def write(self, writer: Writer, *requests: Request) -> list[Event]:
        ground = Ground(
            writer.replica, writer.head, writer.clock, self.schemas, writer.states, {}, {}, lambda record: []
        )
        decision = decide([[request] for request in requests], ground)
        refused = [answer for answer in decision.answers if isinstance(answer, Exception)]
        if refused:
            raise refused[0]
        if decision.events:
            self.log.append(decision.events, decision.bodies, decision.hashes)
            writer.states.update(decision.states)
            writer.head = decision.head
        while catch_up(self.log, self.tables):
            pass
        return decision.events

    def define(self, collection: Collection) -> None:
        self.write(self.office, Request(Operation.DEFINE, collection.name, "", to_data(collection)))
        self.schemas[collection.name] = Schema(collection)
        self.meet()

    def put(self, collection: str, values: dict[str, Any], writer: Writer | None = None) -> list[Event]:
        schema = self.schemas[collection]
        stored = schema.store(values)
        key = str(stored[schema.collection.key])
        return self.write(writer or self.office, Request(Operation.PUT, collection, key, stored))

    def delete(self, collection: str, key: str, writer: Writer | None = None) -> list[Event]:
        return self.write(writer or self.office, Request(Operation.DELETE, collection, key, {}))

    def meet(self) -> None:
        """Both writers see everything."""
        events = events_after(self.log, 0, 1_000_000)
        for writer in (self.office, self.lab):
            writer.see(events)

    def replicas(self, root: Path | None = None, disk: Disk | None = None, **options: Any) -> FolderReplicas:
        log = SqliteLog(self.root / "changelog.db", readonly=True)
        return FolderReplicas(root or self.root, log, ReadTables(self.root / "tables.db", log), disk=disk, **options)

    def follow(self, replicas: FolderReplicas, step: int = 1000) -> None:
        """Applies what the folders have not taken in, `step` events at once."""
        checkpoint = replicas.checkpoint()
        while events := events_after(self.log, checkpoint.position, step):
            checkpoint = advance(checkpoint, events)
            replicas.apply(events, checkpoint)

    def rebuilt(self, root: Path, step: int = 1000) -> dict[str, bytes]:
        """The files of folders that are made at `root` from nothing."""
        root.mkdir()
        replicas = self.replicas(root)
        self.follow(replicas, step)
        assert replicas.verify() == []
        replicas.close()
        return tree(root)

    def close(self) -> None:
        self.tables.close()
        self.log.close()


def tree(root: Path) -> dict[str, bytes]:
    """Every file below, but the databases, by its path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".db" not in path.name
    }


def directories(root: Path) -> set[str]:
    """Every directory below."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}


class Died(BaseException):
    """What a process that is killed does not get to handle."""


class MortalDisk:
    """A disk on which the process dies before its `life`-th operation that changes anything."""

    def __init__(self, root: Path, life: int, failure: BaseException | None = None) -> None:
        self._root = root
        self._disk = PosixDisk(root)
        self._failure = failure or Died()
        self.life = life
        self.done: list[str] = []

    def _live(self, operation: str) -> None:
        self.done.append(operation)
        if len(self.done) > self.life:
            raise self._failure

    def write(self, place: str, files: Sequence[tuple[str, bytes]], *, compare: bool) -> list[str] | None:
        fresh = self._disk.write(place, [], compare=compare) is None
        names: list[str] = []
        for name, data in reversed(files) if fresh else files:
            self._live(f"write {place}/{name}")
            if fresh:
                (self._root / place / name).write_bytes(data)
            else:
                names += self._disk.write(place, [(name, data)], compare=compare) or []
        return None if fresh else names

    def stream(self, place: str, name: str, chunks: Iterator[bytes]) -> None:
        self._live(f"stream {place}/{name}")
        self._disk.stream(place, name, chunks)

    def append(self, place: str, name: str, size: int, data: bytes) -> None:
        self._live(f"append {place}/{name}")
        self._disk.append(place, name, size, data)

    def sync(self) -> None:
        self._live("sync")
        self._disk.sync()

    def publish(self, place: str, names: Sequence[str]) -> None:
        for name in names:
            self._live(f"publish {place}/{name}")
            self._disk.publish(place, [name])

    def rename(self, place: str, name: str, other: str) -> None:
        self._live(f"rename {place}/{name}")
        self._disk.rename(place, name, other)

    def stats(self, place: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        return self._disk.stats(place, names)

    def remove(self, place: str, names: Sequence[str]) -> None:
        self._live(f"remove {place}")
        self._disk.remove(place, names)

    def read(self, place: str, name: str, offset: int = 0, limit: int = -1) -> bytes | None:
        return self._disk.read(place, name, offset, limit)

    def read_all(self, place: str, names: Sequence[tuple[str, int]]) -> list[bytes] | None:
        return self._disk.read_all(place, names)

    def names(self, place: str) -> list[str]:
        return self._disk.names(place)

    def walk(self) -> Iterator[tuple[str, list[str]]]:
        return self._disk.walk()

    def close(self) -> None:
        self._disk.close()
