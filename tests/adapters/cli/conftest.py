"""Archives made by commands."""

from pathlib import Path

import pytest

from refold_adapters.cli.app import run

from .support import AIRPORTS, Refold, Result


@pytest.fixture
def refold(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refold:
    """Runs a command on the archive `a` in a directory of the test's own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("REFOLD_DIR", "REFOLD_ACTOR", "REFOLD_BATCH_SIZE", "REFOLD_REPLICA"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str, root: str = "a") -> Result:
        capsys.readouterr()
        code = run(["-C", root, *arguments])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def airports(refold: Refold, tmp_path: Path) -> Refold:
    """The same, with three airports imported."""
    (tmp_path / "airports.csv").write_text(AIRPORTS, encoding="utf-8")
    assert refold("init", "--replica", "office").code == 0
    plan = ("--key", "icao", "--folder", "{country}/{subd}", "--actor", "ann")
    done = refold("import", "airports", "airports.csv", *plan)
    assert (done.code, done.err) == (0, "")
    return refold
