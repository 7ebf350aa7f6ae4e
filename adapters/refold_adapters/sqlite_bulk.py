"""Many rows a statement.

sqlite3 lets go of Python's interpreter lock while SQLite works, and asks for it back afterwards; beside another thread
that computes, it may have to wait for it at every statement. So rows are written many at once, in runs of a few fixed
sizes, so that a batch of any size takes few statements and few different ones are ever prepared. Longer runs than
these cost SQLite more than they save.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

_STEPS = (1, 8, 64, 512)

_RUNS = (50, 25, 10, 5, 2, 1)
"""Rows of one statement."""

_PARAMETERS = 1000
"""Parameters of one statement, unless a single row has more."""


def marks(count: int) -> str:
    """`count` placeholders."""
    return ", ".join("?" * count)


def padded(values: Sequence[Any]) -> Iterator[list[Any]]:
    """The values in runs of 1, 8, 64 or 512, the last one repeated, so that few different statements are prepared."""
    rest = iter(values)
    while part := list(islice(rest, _STEPS[-1])):
        size = next(step for step in _STEPS if step >= len(part))
        yield part + [part[-1]] * (size - len(part))


def insert_many(connection: sqlite3.Connection, head: str, rows: Sequence[tuple[Any, ...]], tail: str = "") -> None:
    """Inserts rows: `head` is the statement before VALUES, `tail` what follows them."""
    if not rows:
        return
    one = f"({marks(len(rows[0]))})"
    start = 0
    for size in _RUNS:
        if size * len(rows[0]) > _PARAMETERS and size > 1:
            continue
        while len(rows) - start >= size:
            sql = f"{head} VALUES {', '.join([one] * size)} {tail}"
            connection.execute(sql, list(chain.from_iterable(rows[start : start + size])))
            start += size
        if start == len(rows):
            return
