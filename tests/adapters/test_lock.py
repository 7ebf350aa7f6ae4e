"""The lock: one holder at a time, who is named to the others, and which goes with its process."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import refold
from refold.errors import Locked, SettingsInvalid, StorageFailed
from refold_adapters.lock import Lock
from refold_adapters.settings import Settings, load_settings

pytestmark = pytest.mark.anyio

HOLD = """
import asyncio, sys, refold
async def main():
    async with refold.open(sys.argv[1], folders=False, clock=lambda: 1_700_000_000_000):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


def hold(path: Path) -> "subprocess.Popen[str]":
    """A process that has the archive open until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


async def test_another_process_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(Locked) as caught:
            await refold.open(tmp_path, folders=False).__aenter__()
        error = caught.value
        assert (error.pid, error.host, error.since) == (process.pid, socket.gethostname(), "2023-11-14T22:13:20.000Z")
        async with refold.open(tmp_path, folders=False, readonly=True) as reader:
            assert reader.position == 0
    finally:
        process.communicate()
    assert process.returncode == 0
    async with refold.open(tmp_path, folders=False):
        pass


async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    process = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    async with refold.open(tmp_path, folders=False) as engine:
        assert (await engine.verify()).ok


async def test_an_engine_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    async with refold.open(tmp_path, folders=False):
        with pytest.raises(Locked) as caught:
            await refold.open(tmp_path, folders=False).__aenter__()
        assert caught.value.pid == os.getpid()


def test_a_lock_is_free_again_whatever_its_file_says(tmp_path: Path) -> None:
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    one.acquire(0)
    with pytest.raises(Locked):
        other.acquire(0)
    (tmp_path / "lock").write_text("rubbish")
    with pytest.raises(Locked, match="unknown"):
        other.acquire(0)
    one.release()
    one.release()
    other.acquire(0)
    other.release()


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        Lock(tmp_path / "never" / "lock").acquire(0)


@pytest.mark.parametrize(
    "text",
    [
        "archive = 3",
        "[archive]\nfolders = 'yes'",
        "[archive]\ncolour = 'red'",
        "[archive]\nchangelog = '../log.db'",
        "[archive]\nchangelog = 'log.txt'",
        "[archive]\nchangelog = '.db'",
        "[archive]\ntables = 'CHANGELOG.db'",
        "[archive]\ntables = 'folders.db'",
        "[archive",
        "\ud800",
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "refold.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SettingsInvalid):
        load_settings(tmp_path)


def test_settings(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings()
    (tmp_path / "refold.toml").write_text(
        "[archive]\nchangelog = 'log.db'\nfolders = false\n[collections.a]\nkey = 'x'"
    )
    assert load_settings(tmp_path) == Settings("log.db", "tables.db", False)
    (tmp_path / "refold.toml").unlink()
    (tmp_path / "refold.toml").mkdir()
    with pytest.raises(StorageFailed):
        load_settings(tmp_path)
