"""A process whose disk fails: it writes on whatever happens, and says what it was told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import refold
from refold.engine import Engine

from .work import THINGS

ROOT = Path(__file__).resolve().parents[2]


class Told(msgspec.Struct):
    """What the process was told: of each write, None or the code of an error, and of all that comes after."""

    writes: list[str | None] = []
    settled: str | None = None
    states: dict[str, str] = {}
    left: str | None = None

    @property
    def acknowledged(self) -> set[int]:
        """The writes that were."""
        return {n for n, code in enumerate(self.writes) if code is None}


async def _write(engine: Engine, told: Told, count: int, size: int) -> None:
    await engine.define(THINGS)
    for n in range(count):
        try:
            await engine.put("things", {"id": str(n), "place": f"p{n % 3}", "n": n, "note": "x" * size})
            told.writes.append(None)
        except refold.RefoldError as error:
            told.writes.append(error.code)
    try:
        await engine.settled()
    except refold.RefoldError as error:
        told.settled = error.code
    try:
        told.states = {projection.name: projection.state for projection in (await engine.status()).projections}
    except refold.RefoldError as error:
        told.states = {"status": error.code}


async def _live(root: str, count: int, size: int, *, folders: bool) -> Told:
    told = Told()
    try:
        async with refold.open(root, replica="office", folders=folders) as engine:
            await _write(engine, told, count, size)
    except refold.RefoldError as error:
        told.left = error.code
    return told


def write(root: Path, *, count: int = 12, size: int = 10, folders: bool = False, inject: Sequence[str] = ()) -> Told:
    """Runs the process, under `strace` where calls are to fail; raises when it ends by anything but its own hand."""
    command = [sys.executable, "-m", "tests.crash.faulty", str(root), str(count), str(size), str(int(folders))]
    if inject:
        traced = ",".join(rule.partition(":")[0] for rule in inject)
        rules = [part for rule in inject for part in ("-e", f"inject={rule}")]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={traced}", *rules, *command]
    path = os.pathsep.join(str(ROOT / name) for name in ("engine", "adapters", "."))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the process ended with {done.returncode}: {done.stderr.decode()}")
    return msgspec.json.decode(done.stdout, type=Told)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    result = asyncio.run(_live(arguments[0], int(arguments[1]), int(arguments[2]), folders=arguments[3] == "1"))
    sys.stdout.buffer.write(msgspec.json.encode(result))
