"""The guards of conftest.py guard: the event loop is watched, and CI does not skip what it must run."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import aiofiles
import aiosqlite
import anyio
import pytest

import refold

pytestmark = pytest.mark.anyio


def sleep(folder: Path) -> None:
    time.sleep(0)


def open_file(folder: Path) -> None:
    open(folder / "file", "rb").close()


def write_file(folder: Path) -> None:
    (folder / "file").write_text("x")


def sync(folder: Path) -> None:
    fd = os.open(folder / "file", os.O_RDWR)
    os.fsync(fd)
    os.close(fd)


def sync_only(folder: Path) -> None:
    os.fsync(1)


def rename(folder: Path) -> None:
    os.replace(folder / "file", folder / "other")


def list_folder(folder: Path) -> None:
    os.listdir(folder)


def stat(folder: Path) -> None:
    (folder / "file").exists()


def connect(folder: Path) -> None:
    sqlite3.connect(folder / "db").close()


def execute(folder: Path) -> None:
    memory.execute("select 1")


def commit(folder: Path) -> None:
    memory.commit()


memory = sqlite3.connect(":memory:", check_same_thread=False)
BLOCKING = [sleep, open_file, write_file, sync, sync_only, rename, list_folder, stat, connect, execute, commit]


def as_refold(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same function, as if its code stood in the package."""
    assert isinstance(function, FunctionType)
    home = str(Path(refold.__file__).with_name("imagined.py"))
    return FunctionType(function.__code__.replace(co_filename=home), function.__globals__)


@pytest.mark.parametrize("function", BLOCKING)
async def test_a_blocking_call_of_refold_on_the_loop_is_seen(
    function: Callable[[Path], None], tmp_path: Path, blocked: list[str]
) -> None:
    with pytest.raises(Exception, match="Blocking call to"):
        as_refold(function)(tmp_path)
    assert len(blocked) == 1
    blocked.clear()


@pytest.mark.parametrize("function", [sleep, write_file, list_folder, connect])
async def test_a_worker_thread_may_block_and_so_may_a_test(function: Callable[[Path], None], tmp_path: Path) -> None:
    await asyncio.to_thread(as_refold(function), tmp_path)
    await anyio.to_thread.run_sync(as_refold(function), tmp_path)
    function(tmp_path)


async def test_the_async_libraries_pass(tmp_path: Path) -> None:
    async with aiosqlite.connect(tmp_path / "db") as db:
        await db.execute("create table t (a)")
        await db.commit()
    async with aiofiles.open(tmp_path / "file", "w") as file:
        await file.write("x")
    assert await anyio.Path(tmp_path / "file").read_text() == "x"


SKIPS = """
import pytest
@pytest.mark.skipif(True, reason="needs a moon")
def test_tool(): pass
@pytest.mark.skip(reason="not on this system")
def test_other(): pass
def test_inside(): pytest.skip("needs a star")
"""
SKIPPED_MODULE = """
import pytest
pytest.skip("needs a sun", allow_module_level=True)
"""
SWALLOWED = """
import time, refold, pathlib, pytest
home = str(pathlib.Path(refold.__file__).with_name("imagined.py"))
space = {"time": time}
exec(compile("def swallow():\\n try: time.sleep(0)\\n except Exception: return 1", home, "exec"), space)
@pytest.mark.anyio
async def test_swallow(): assert space["swallow"]() == 1
"""


def run_pytest(folder: Path, test: str, ci: str) -> tuple[int, str]:
    """Runs one test module under this project's conftest.py: the exit code and what was printed."""
    (folder / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (folder / "test_inner.py").write_text(test)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            f"--rootdir={folder}",
            folder,
        ],
        env={**os.environ, "REFOLD_CI": ci, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.parametrize(
    ("test", "ci", "code", "summary"),
    [
        (SKIPS, "1", 1, "1 failed, 1 skipped, 1 error"),
        (SKIPS, "0", 0, "3 skipped"),
        (SKIPPED_MODULE, "1", 2, "1 error"),
        (SKIPPED_MODULE, "0", 5, "1 skipped"),
    ],
)
def test_ci_refuses_to_skip_for_want_of_something(tmp_path: Path, test: str, ci: str, code: int, summary: str) -> None:
    result, output = run_pytest(tmp_path, test, ci)
    assert result == code, output
    assert summary in output


def test_a_swallowed_call_fails_the_test_all_the_same(tmp_path: Path) -> None:
    result, output = run_pytest(tmp_path, SWALLOWED, "0")
    assert result == 1, output
    assert "refold blocked the event loop with time.sleep" in output
