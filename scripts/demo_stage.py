"""What both acts of the demonstration share: how a step is shown, and how folders are compared."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import refold

BATCH = 1000

console = Console()


def airports(**strategies: str) -> refold.Collection:
    """The collection: a folder for each country and region. `strategies` settle fields otherwise than by the last
    write."""
    names = ("icao", "iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz", "lid")
    numbers = {"elevation", "lat", "lon"}
    fields = {
        name: refold.Field("float" if name in numbers else "str", null=name in numbers, strategy=strategies.get(name))
        for name in names
    }
    return refold.Collection(name="airports", key="icao", folder="{country}/{subd}", fields=fields)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints a title, then how long what follows took."""
    console.print(f"\n[bold]{title}[/bold]")
    start = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - start:.1f} s[/dim]")


@contextmanager
def bar(title: str, total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        progress.add_task(title, total=total)
        yield progress


def files(root: Path) -> list[Path]:
    """Every file of the folders, none of the databases."""
    return sorted(
        path for path in root.rglob("*") if path.is_file() and path.name in {"data.csv", "meta.json", "events.jsonl"}
    )


def fingerprint(root: Path, *, records: bool = False) -> tuple[str, int, int]:
    """A hash over names and bytes of all folders, or of those that hold records; the number of files and their size."""
    whole, size, found = hashlib.sha256(), 0, [path for path in files(root) if not records or path.parent != root]
    for path in found:
        data = path.read_bytes()
        whole.update(f"{path.relative_to(root)}\0{len(data)}\0".encode() + data)
        size += len(data)
    return whole.hexdigest(), len(found), size


def must(same: bool, what: str) -> None:
    """Says that something is equal, or ends the demonstration."""
    if not same:
        raise SystemExit(f"NOT equal: {what}")
    console.print(f"[green]equal[/green]: {what}")
