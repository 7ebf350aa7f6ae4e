"""What only a process of its own can show: signals, pipes, locks, a terminal, missing packages."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from .support import AIRPORTS

ROOT = Path(__file__).parents[3]
REFOLD = [sys.executable, "-c", "from refold_adapters.cli import main; main()"]
HOLD = """
import asyncio, sys, refold
async def hold():
    async with refold.open(sys.argv[1], create=False):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(hold())
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": f"{ROOT / 'engine'}:{ROOT / 'adapters'}", **more}


@contextmanager
def bounded(process: "subprocess.Popen[str]", seconds: float = 60) -> Iterator["subprocess.Popen[str]"]:
    """The process, which is killed when it is not done in time: whoever reads from it then finds the end."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        with process:
            yield process
    finally:
        timer.cancel()


def refold(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*REFOLD, *arguments],
        cwd=cwd, env=env or environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "airports.csv").write_text(AIRPORTS, encoding="utf-8")
    assert refold("init", cwd=tmp_path).returncode == 0
    assert refold("import", "airports", "airports.csv", "--key", "icao", cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.fixture
def held(archive: Path) -> Iterator[Path]:
    """The archive while another process writes it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(archive)],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with bounded(holder):
        assert holder.stdin and holder.stdout and holder.stdout.readline() == "held\n"
        yield archive
        holder.stdin.close()
    assert holder.returncode == 0


def test_a_second_writer_is_told_who_holds_the_lock(held: Path) -> None:
    done = refold("patch", "airports", "EDDF", "elevation=1", "--json", cwd=held)
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, done.stdout, error["code"]) == (11, "", "locked")
    assert error["pid"] > 0 and error["host"] and error["since"].endswith("Z")
    assert refold("restore", "--in-place", cwd=held).returncode == 11
    assert refold("restore", "--in-place", "--from", "folders", cwd=held).returncode == 11


def test_readers_need_no_lock(held: Path) -> None:
    for command in ("ls", "log", "status", "digest", "verify"):
        done = refold(command, cwd=held)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert refold("restore", "-o", "new", cwd=held).returncode == 0


def test_a_reader_that_stops_reading_is_no_failure(tmp_path: Path) -> None:
    rows = "".join(f"K{number},{'x' * 100}\n" for number in range(5000))
    (tmp_path / "many.csv").write_text("key,text\n" + rows, encoding="utf-8")
    env = environment()
    refold("init", cwd=tmp_path)
    assert refold("import", "many", "many.csv", "--key", "key", cwd=tmp_path).returncode == 0
    for command in (["ls", "many"], ["log", "--json"], ["export", "many", "--format", "csv"]):
        with bounded(
            subprocess.Popen(
                [*REFOLD, *command], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        ) as process:
            assert process.stdout and process.stderr
            assert process.stdout.readline() != ""
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 0


def test_ctrl_c_ends_a_follower_with_130(archive: Path) -> None:
    with bounded(subprocess.Popen(
        [*REFOLD, "log", "--follow", "--json"],
        cwd=archive, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )) as process:  # fmt: skip
        assert process.stdout and process.stderr
        seen = [json.loads(process.stdout.readline())["position"] for _ in range(4)]
        assert refold("patch", "airports", "EDDF", "elevation=365", cwd=archive).returncode == 0
        seen.append(json.loads(process.stdout.readline())["position"])
        process.send_signal(signal.SIGINT)
        error = json.loads(process.stderr.read())["error"]
    assert (process.returncode, error["code"], seen) == (130, "interrupted", [1, 2, 3, 4, 5])


def test_ctrl_c_leaves_an_import_whole_batches(archive: Path) -> None:
    rows = "".join(f"K{number},x\n" for number in range(20_000))
    (archive / "many.csv").write_text("icao,name,country,subd\n" + rows.replace(",x", ",x,,"), encoding="utf-8")
    with bounded(subprocess.Popen(
        [*REFOLD, "import", "airports", "many.csv", "--batch-size", "2"],
        cwd=archive, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )) as process:  # fmt: skip
        with bounded(subprocess.Popen(
            [*REFOLD, "log", "--follow", "--after", "4", "--json"],
            cwd=archive, env=environment(), stdout=subprocess.PIPE, text=True,
        )) as follower:  # fmt: skip
            assert follower.stdout
            assert json.loads(follower.stdout.readline())["key"] == "K0"
            follower.terminate()
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert process.stderr.read().startswith("error: interrupted\n")
    assert process.returncode == 130
    written = json.loads(refold("status", "--json", cwd=archive).stdout)["collections"]["airports"] - 3
    assert 0 < written < 20_000 and written % 2 == 0
    assert refold("verify", cwd=archive).returncode == 0


def test_a_pipe_is_a_file_too(archive: Path) -> None:
    pipe = archive / "pipe.csv"
    os.mkfifo(pipe)
    with bounded(subprocess.Popen(
        [*REFOLD, "import", "fresh", "pipe.csv", "--key", "icao", "--json"],
        cwd=archive, env=environment(), stdout=subprocess.PIPE, text=True,
    )) as process:  # fmt: skip
        pipe.write_text(AIRPORTS, encoding="utf-8")
        assert process.stdout
        assert json.loads(process.stdout.read())["created"] == 3


def test_the_archive_comes_from_the_environment(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = refold("status", "--json", cwd=elsewhere, env=environment(REFOLD_DIR=str(archive)))
    assert json.loads(done.stdout)["collections"] == {"airports": 3}
    assert refold("status", cwd=elsewhere).returncode == 10


def test_stdin_is_a_file_too(archive: Path) -> None:
    done = subprocess.run(
        [*REFOLD, "import", "fresh", "-", "--key", "icao", "--json"],
        cwd=archive, env=environment(), input=AIRPORTS, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["created"] == 3


def on_terminal(archive: Path, *arguments: str, **more: str) -> str:
    """What a person at a terminal of 100 columns sees."""
    main, other = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="100", **more)
    process = subprocess.Popen([*REFOLD, *arguments], cwd=archive, env=env, stdout=other, stderr=other)
    os.close(other)
    pieces = []
    try:
        while piece := os.read(main, 65536):
            pieces.append(piece)
    except OSError:  # Linux says so when the other side has closed
        pass
    os.close(main)
    assert process.wait(60) == 0
    return b"".join(pieces).decode()


def test_a_terminal_gets_tables_and_colour_unless_it_wants_none(archive: Path) -> None:
    assert refold("put", "airports", "icao=EVIL", "name=\x1b[2Jx", "country=", "subd=", cwd=archive).returncode == 0
    shown = on_terminal(archive, "ls", "airports")
    assert "\x1b[1m" in shown and "Frankfurt am Main" in shown
    assert "\x1b[2J" not in shown and "\\x1b[2Jx" in shown
    plain = on_terminal(archive, "ls", "airports", NO_COLOR="1")
    assert "\x1b[3" not in plain and "Frankfurt am Main" in plain
    assert "\x1b" not in refold("ls", "airports", cwd=archive).stdout


def test_without_its_packages_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "click").mkdir()
    (tmp_path / "click/__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'click'\", name='click')\n", encoding="utf-8"
    )
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    done = refold("status", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: click is not installed\nhint: pip install 'refold[cli]'\n"


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert refold("--version", cwd=tmp_path).stdout.startswith("refold 0.")
