"""The short forms of `scripts/faults`: calls that fail, disks that fill up, power that fails, processes that die,
inputs nobody writes.

Each is a run of the script with a known seed; a failure names the experiments, and how to lead them again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .faults.cases import CASES
from .faults.shim import compiler
from .faults.space import allowed

ROOT = Path(__file__).parents[1]

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")
needs_mount = pytest.mark.skipif(not allowed(), reason="needs root, and to be allowed to mount")


def faults(*arguments: str) -> dict[str, Any]:
    """The figures of a run of `scripts/faults`."""
    command = [sys.executable, str(ROOT / "scripts" / "faults"), *arguments, "--json", "-", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in {0, 1}, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert (figures["wrong"] != []) is (done.returncode == 1)
    return figures


@needs_compiler
def test_calls_that_fail() -> None:
    figures = faults(
        "calls", "--cases", "put,backup,in-place-folders", "--passages", "1", "--sample", "16", "--seed", "short"
    )
    assert figures["wrong"] == []
    assert figures["experiments"] == 16
    assert {"storage-failed", "projection-failed"} <= figures["told"].keys()


@needs_compiler
@needs_mount
def test_disks_that_are_full() -> None:
    figures = faults("space", "--cases", "put,restore", "--steps", "32", "--seed", "short")
    assert figures["wrong"] == []
    assert figures["told"]["storage-failed"] > 2


@needs_compiler
def test_power_that_fails() -> None:
    figures = faults("power", "--crashes", "2", "--seed", "short")
    assert figures["wrong"] == []
    assert {group.partition(" ")[0] for group in figures["groups"]} == CASES.keys()


@needs_compiler
def test_processes_that_die() -> None:
    cases = "restore,in-place-folders,recover,rebuild,prune,edits"
    figures = faults("kills", "--cases", cases, "--passages", "1", "--seed", "short")
    assert figures["wrong"] == []
    assert figures["experiments"] == 12


def test_inputs_that_nobody_writes() -> None:
    figures = faults("fuzz", "--inputs", "11000", "--seed", "short")
    assert figures["wrong"] == []
    assert min(figures["groups"].values()) >= 500
    assert figures["told"]["refused"] > 3000


PLANTED = {
    "acknowledge_first": ("acknowledged and lost", "calls --cases put --passages 3 --match :FSYNC:.*:EIO"),
    "sync_errors_swallowed": ("was not told", "calls --cases put --passages 1 --match :SYNCFS:.*ALWAYS:EIO"),
    "short_write_is_whole": ("folder-altered", "calls --cases put --passages 99 --sample 40 --match :WRITE:.*SHORT"),
    "raw_errors": ("no error of ours", "calls --cases put --passages 6 --match :UNLINK:.*ONCE:EIO"),
    "no_space_swallowed": ("verify: ", "space --cases put --steps 8 --match :(40|48|56|64|72)$"),
    "log_synced_later": ("acknowledged and lost", "power --cases put --crashes 8 --match :0.0:"),
    "folders_never_synced": ("folder-altered", "power --cases put --crashes 12 --match :0.0:"),
    "folders_checkpoint_first": ("folder", "power --cases put --crashes 150 --match :0.0:"),
    "renamed_before_durable": ("tell no more", "power --cases put --crashes 300 --match free:0.5"),
    "directories_not_durable": ("is not there", "power --cases create --crashes 30 --match free:0.0:"),
    "edits_forgotten": ("things/by-hand", "kills --cases edits"),
    "parents_pruned_first": ("backups: ", "kills --cases prune"),
    "published_without_sync": ("is not there", "power --cases restore --crashes 6 --match :0.0:"),
    "segments_not_synced": ("not on the share", "power --cases share --crashes 6 --match :0.0:"),
    "old_wal_comes_back": ("are lost", "power --cases in-place-folders --crashes 200 --match free:0.[58]"),
    "trailing_bytes_taken": ("passed over", "fuzz --decoders frame --inputs 500"),
    "length_unbounded": ("MemoryError", "fuzz --decoders frame --inputs 500"),
    "holder_raw": ("DecodeError at", "fuzz --decoders lock --inputs 500"),
    "words_slow": ("TimeoutError", "fuzz --decoders vector --inputs 1000"),
}
"""A bug for each: what is said of it, and the run that has to find it."""


@needs_compiler
@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(plant: str) -> None:
    words, run = PLANTED[plant]
    if run.startswith("space") and not allowed():
        pytest.skip("needs root, and to be allowed to mount")
    figures = faults(*run.split(), "--seed", "planted", "--plant", plant, "--enough", "1")
    assert any(words in complaint for one in figures["wrong"] for complaint in one["complaints"]), figures
