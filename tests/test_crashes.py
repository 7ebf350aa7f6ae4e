"""The short form of `scripts/crash`: fifty processes die at named points and at random moments.

Each half of the points is a run of its own, so that two workers share them; the seeds are known, so a failure can be
repeated: the output names the chain.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from .crash.points import POINTS

ROOT = Path(__file__).parents[1]


def crash(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `scripts/crash` says with these arguments."""
    command = [sys.executable, str(ROOT / "scripts" / "crash"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("half", [0, 1])
def test_what_was_acknowledged_outlives_the_process_and_nothing_is_torn(half: int) -> None:
    points = ",".join(POINTS[half::2])
    done = crash("--quick", "--kills", "25", "--workers", "1", "--seed", f"ci-{half}", "--points", points)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nall " in done.stdout
