"""The conformance suites over the adapters that ship with refold."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest

from refold.events import Event
from refold.ports import Changelog, Projection, Store, Tables
from refold.replay import catch_up
from refold.testing import (
    ChangelogConformance,
    ProjectionConformance,
    StoreConformance,
    TablesConformance,
    Ticks,
    append,
)
from refold.testing.conformance_changelog import OWNER
from refold.testing.conformance_tables import ReadEvents
from refold_adapters.archive import open_store
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables

from .folders.world import World, tree

pytestmark = pytest.mark.anyio


class TestSqliteLog(ChangelogConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.made = 0

    def make(self) -> Changelog:
        self.made += 1
        return SqliteLog(self.path / f"{self.made}.db", owner=OWNER)

    def reopen(self, log: Changelog) -> Changelog:
        assert isinstance(log, SqliteLog)
        log.close()
        return SqliteLog(log.path)


class TestSqliteTables(TablesConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.made = 0

    def make(self, read_events: ReadEvents) -> Tables:
        self.made += 1
        self.read_events = read_events
        return SqliteTables(self.path / f"{self.made}.db", read_events)

    def reopen(self, tables: Tables) -> Tables:
        assert isinstance(tables, SqliteTables)
        tables.close()
        return SqliteTables(tables.path, self.read_events)


class TestFolderReplicas(ProjectionConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path
        self.worlds: list[World] = []
        self.roots: dict[int, Path] = {}
        yield
        for world in self.worlds:
            world.close()

    def make(self, events: Sequence[Event]) -> Projection:
        world = World(self.path / str(len(self.worlds)))
        self.worlds.append(world)
        if events:
            append(world.log, [msgspec.structs.replace(event, position=0) for event in events])
        while catch_up(world.log, world.tables):
            pass
        projection = world.replicas()
        self.roots[id(projection)] = world.root
        return projection

    def content(self, projection: Projection) -> dict[str, bytes]:
        return tree(self.roots[id(projection)])


class TestFileStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(
            str(self.path), replica="home", new_id=lambda: "other", clock=Ticks(), readonly=False, folders=False
        )


class TestFileStoreWithFolders(StoreConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(str(self.path), replica="home", new_id=lambda: "other", clock=Ticks(), readonly=False)
