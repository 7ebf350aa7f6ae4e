"""A workshop's archive and what the older tool makes of it, beside the commands that take its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from refold_adapters.old_commands.outcome import Outcome
from refold_adapters.old_commands.running import exit_code, run
from refold_adapters.old_commands.settings import OldSettings
from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order

START = 1_767_225_600_000
"""2026-01-01 in Unix milliseconds."""


def clock_from(start: int = START, step: int = 7) -> Callable[[], int]:
    """A clock that goes on by so many milliseconds each time that it is asked."""
    times = iter(range(start, start + 10**9, step))
    return lambda: next(times)


class Workshop:
    """An archive of orders under `root`, whose database and folders agree unless a test says otherwise."""

    def __init__(self, root: Path, numbers: range = range(1, 7), *, exported: bool = True) -> None:
        self.root = root
        self.db = root / "werkstatt.db"
        self.log = root.parent / "runs.log"
        old_tool.fill(root, [order(number) for number in numbers])
        for number in numbers if exported else ():
            old_tool.export(root, order(number), backslash=number % 2 == 0)

    def settings(self, **other: Any) -> OldSettings:
        """How its commands are run."""
        return OldSettings(**{"db": self.db, "archive": self.root, "log": self.log, "wait": 0.0, **other})

    def run(self, command: str, *, dry_run: bool = False, **other: Any) -> Outcome:
        """Runs a command; what it came to."""
        said: list[str] = []
        return run(command, self.settings(**other), clock_from(), dry_run=dry_run, said=said.append)

    def code(self, command: str, **other: Any) -> int:
        """Runs a command; its exit code."""
        return exit_code(self.run(command, **other))

    def execute(self, sql: str, *values: Any) -> None:
        """What the old program does to its database."""
        with closing(sqlite3.connect(self.db)) as connection, connection:
            connection.execute(sql, values)

    def rows(self) -> dict[int, dict[str, Any]]:
        """The rows of the table by their keys."""
        with closing(sqlite3.connect(self.db)) as connection:
            connection.row_factory = sqlite3.Row
            return {row["record_id"]: dict(row) for row in connection.execute("SELECT * FROM auftraege")}

    def place(self, number: int) -> Path:
        """The folder of an order."""
        return self.root / str(Path(order(number)["file_path"]).parent)

    def lines(self) -> Iterator[list[str]]:
        """The log file, line by line, in words."""
        for line in self.log.read_text(encoding="utf-8").splitlines():
            yield line.split(" ")


def kinds(outcome: Outcome) -> list[tuple[str, str | None]]:
    """What was found: each kind with its key."""
    return sorted((finding.kind, finding.key) for finding in outcome.findings)
