"""What comes out: the results with their medians, the machine, and both as text, Markdown or JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from .measure import Row


class Result(msgspec.Struct, frozen=True):
    """One row with its medians over the rounds; `runs` holds each round's raw figure, figure and ratio.

    The ratio is the median of the rounds' ratios, not the ratio of the medians: a slow minute of the machine then
    weighs on both sides of one round, not on one side of the result.
    """

    group: str
    name: str
    unit: str
    raw: float | None
    refold: float | None
    ratio: float | None
    target: float | None
    of: str
    least: bool
    met: bool | None
    error: str | None
    runs: list[tuple[float | None, float, float | None]]


def result(row: Row, rounds: Sequence[Mapping[str, Mapping[str, float]]], errors: Mapping[str, str]) -> Result:
    """The result of a row, given the figures of every measurement in each round."""
    raws = [found[row.raw][row.raw_figure] for found in rounds if row.raw in found] if row.raw else []
    runs: list[tuple[float | None, float, float | None]] = []
    for found in rounds:
        if row.measurement not in found:
            continue
        value = found[row.measurement][row.figure]
        raw = found[row.raw][row.raw_figure] if row.raw and row.raw in found else None
        runs.append((raw, value, value / raw if raw else None))
    values = [value for _, value, _ in runs]
    ratios = [ratio for _, _, ratio in runs if ratio is not None]
    ratio = median(ratios) if ratios else None
    reached = ratio if row.of == "ratio" else median(values) if values else None
    met = None
    if row.target is not None and reached is not None:
        met = reached >= row.target if row.least else reached <= row.target
    return Result(
        row.group,
        row.name,
        row.unit,
        median(raws) if raws else None,
        median(values) if values else None,
        ratio,
        row.target,
        row.of,
        row.least,
        met,
        errors.get(row.measurement) or errors.get(row.raw or ""),
        runs,
    )


def _file_system(path: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    inside = [mount for mount in mounts if path.resolve().is_relative_to(mount[1])]
    return max(inside, key=lambda mount: len(mount[1]))[2] if inside else "unknown"


def machine(scratch: Path) -> dict[str, str]:
    """What was measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        cpu = ""
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "file system": _file_system(scratch),
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cells(found: Result) -> list[str]:
    """A result as the cells of a table's row."""
    ratios = [ratio for _, _, ratio in found.runs if ratio is not None]
    spread = f"{_number(min(ratios))} to {_number(max(ratios))}" if len(ratios) > 1 else ""
    sign = "≥" if found.least else "≤"
    target = "" if found.target is None else f"{sign} {_number(found.target)}"
    if target and found.of == "figure":
        target += f" {found.unit}"
    verdict = "" if found.met is None else "yes" if found.met else "no"
    if found.error is not None:
        verdict = "skipped" if found.error.startswith("skipped") else "failed"
    unit = f" {found.unit}" if found.refold is not None else ""
    return [
        found.name,
        _number(found.raw),
        _number(found.refold) + unit,
        _number(found.ratio),
        spread,
        target,
        verdict,
    ]


HEADINGS = ["work", "raw", "refold", "ratio", "ratios of the rounds", "reach", "met"]


def text(results: Sequence[Result]) -> str:
    """The table for a terminal."""
    rows = [HEADINGS, *map(cells, results)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    errors: dict[str, list[str]] = {}
    for found in results:
        if found.error is not None:
            errors.setdefault(found.error, []).append(found.name)
    lines += [f"{error}: {'; '.join(names)}" for error, names in errors.items()]
    return "\n".join(lines)


def markdown(results: Sequence[Result], described: Mapping[str, str], runs: int) -> str:
    """The table for the docs, with the machine."""
    about = "; ".join(f"{name}: {value}" for name, value in described.items())
    rows = [HEADINGS, ["---", *["---:"] * 4, "---", "---"], *map(cells, results)]
    return "\n".join([f"Medians of {runs} rounds. {about}.", "", *(f"| {' | '.join(row)} |" for row in rows)])
