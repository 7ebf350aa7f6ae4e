"""What commands say: data to stdout, everything about it to stderr.

A person at a terminal gets tables; anything else gets the same rows as tab-separated text, so that columns stay where
they are whatever their width. Text that came from records is never written raw: a control character in a value could
otherwise move the cursor, or break a line in two.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from refold.errors import RefoldError

if TYPE_CHECKING:
    from rich.progress import Progress
_encode = msgspec.json.encode
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_ESCAPES |= {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r", ord("\\"): "\\\\"}


class OutputClosed(Exception):
    """Whoever read the output has stopped reading."""


def write(text: str) -> None:
    """Writes data to stdout. Raises `OutputClosed`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputClosed from None
    except UnicodeEncodeError:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()


def say(text: str) -> None:
    """Writes a line about what is going on to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def document(value: Any) -> None:
    """Writes one JSON document."""
    write(json_text(value) + "\n")


def json_text(value: Any) -> str:
    """A value as JSON in one line; fields of records in their stored spelling."""
    return _encode(value).decode()


def safe(text: str) -> str:
    """A text without control characters, as one field of a line."""
    return text.translate(_ESCAPES)


def cell(value: Any) -> str:
    """A stored or Python value as one cell for people."""
    if value is None:
        return ""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = json_text(value)
    return safe(text[1:-1] if text[:1] == '"' else text)


def at_terminal() -> bool:
    """Whether stdout is a person's."""
    return sys.stdout.isatty()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, header: bool = True) -> None:
    """Writes rows that are few: a table at a terminal, else tab-separated with a header."""
    if not at_terminal():
        lines = [columns, *rows] if header else list(rows)
        write("".join("\t".join(line) + "\n" for line in lines))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", show_header=header)
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(Text(text) for text in row))
    Console().print(made)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Writes names and what they are, a line each."""
    table(("", ""), list(rows), header=False)


def complain(error: RefoldError, *, as_json: bool) -> None:
    """Says what went wrong and what to do about it."""
    fields = error.fields()
    hint = error.hint.format(**fields) if "{" in error.hint else error.hint
    trouble(error.code, str(error), hint, fields, as_json=as_json)


def trouble(code: str, message: str, hint: str, fields: dict[str, Any], *, as_json: bool) -> None:
    """Writes an error to stderr: two lines, or one JSON document."""
    if as_json:
        say(json_text({"error": {"code": code, "message": message, "hint": hint, **fields}}))
        return
    say(f"error: {safe(message)}")
    if hint:
        say(f"hint: {hint}")


class Bar(Protocol):
    """Where a command tells how far it has come."""

    def __call__(self, done: int) -> None:
        """So much is done."""


class Bars:
    """Progress bars by name, each made when it is first told of."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def total(self, name: str, total: int | None) -> None:
        """Makes a bar and says where it ends."""
        if self._progress is not None and name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)

    def __call__(self, name: str, done: int) -> None:
        """So much of `name` is done."""
        if self._progress is not None:
            self.total(name, None)
            self._progress.update(self._tasks[name], completed=done)


@contextmanager
def progress(*, quiet: bool, of_bytes: bool = False) -> Iterator[Bars]:
    """Progress bars on stderr while inside, if stderr is a terminal and nobody wants quiet."""
    if quiet or not sys.stderr.isatty():
        yield Bars(None)
        return
    from rich import progress as shapes
    from rich.console import Console

    count = shapes.DownloadColumn() if of_bytes else shapes.MofNCompleteColumn()
    columns = (
        shapes.SpinnerColumn(),
        shapes.TextColumn("{task.description}"),
        shapes.BarColumn(),
        count,
        shapes.TimeElapsedColumn(),
    )
    with shapes.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield Bars(shown)
