"""The conformance suites over the adapters that ship with refold."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from refold.ports import Changelog, Store, Tables
from refold.testing import ChangelogConformance, StoreConformance, TablesConformance, Ticks
from refold.testing.conformance_changelog import OWNER
from refold.testing.conformance_tables import ReadEvents
from refold_adapters.archive import open_store
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables

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


class TestFileStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(
            str(self.path), replica="home", new_id=lambda: "other", clock=Ticks(), readonly=False, folders=False
        )
