"""Disks that are full: an operation with so many bytes left on a small file system, and again once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from .cases import Case
from .stage import Stage

PAGE = 4096
ROOM = 64 << 20


class Full(msgspec.Struct):
    """An operation with so many pages left: what the caller was told, whether it fitted, and what was wrong."""

    case: str
    pages: int
    told: list[str]
    complaints: list[str]


def allowed() -> bool:
    """Whether this process may mount."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A file system of its own at a directory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "refold-faults", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def resize(place: Path, size: int) -> None:
    """How many bytes fit on it from now on."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def used(place: Path) -> int:
    """How many bytes are taken."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def need(stage: Stage, case: Case, small: Path) -> int:
    """How many pages a case may take more than it begins with, at most."""
    place = stage.place(case, small)
    before = used(small)
    peak = 0
    pages = 64
    while True:
        resize(small, before + pages * PAGE)
        outcome = stage.lead(case, place, lambda: None, lambda: None)
        resize(small, ROOM)
        peak = pages
        stage.clear(place)
        if not outcome.said.errors and not outcome.complaints:
            return peak
        if outcome.complaints or pages * PAGE > ROOM // 2:
            raise AssertionError(f"{case.name}: {outcome}")
        pages *= 2
        place = stage.place(case, small)


def fill(stage: Stage, case: Case, small: Path, pages: int) -> Full:
    """Leads a case with so many pages left, then makes room, and judges."""
    place = stage.place(case, small)
    resize(small, used(small) + pages * PAGE)
    outcome = stage.lead(case, place, lambda: None, lambda: None)
    resize(small, ROOM)
    complaints = outcome.complaints or stage.judged(case, place, outcome.said)
    silent = not (outcome.said.errors or outcome.said.findings or outcome.said.acknowledged)
    if silent and not outcome.complaints and case.speaks:
        complaints = [*complaints, "it neither failed nor acknowledged anything"]
    stage.clear(place)
    return Full(case.name, pages, outcome.said.errors, complaints)
