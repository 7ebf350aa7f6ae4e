"""What holds for every test: one backend, a watched event loop, known randomness, and no silent gaps in CI."""

import builtins
import os
import sqlite3
from collections.abc import Generator, Iterator
from typing import TypeVar

import blockbuster.blockbuster
import pytest
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import settings

CI = os.environ.get("REFOLD_CI") == "1"
WATCHED = ["refold", "refold_adapters"]

# CI runs the same examples every time: a red build is then the doing of the change, and can be repeated anywhere.
# At a desk, and in the deep profile, examples are random, so that new ones are found where somebody looks.
# No deadline: it would measure the machine.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.register_profile("deep", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile("ci" if CI else "dev")


@pytest.fixture
def anyio_backend() -> str:
    """The only event loop that refold runs on."""
    return "asyncio"


class LoopGuard(BlockBuster):
    """BlockBuster, which wraps what can block, with the calls that matter here and that it leaves out."""

    def __init__(self) -> None:
        super().__init__(WATCHED)
        # Neither goes to the disk: the kernel has the working directory at hand.
        for harmless in ("os.getcwd", "os.path.abspath"):
            del self.functions[harmless]
        for module, name in [
            (builtins, "open"),
            (sqlite3, "connect"),
            *((os, name) for name in ("open", "fsync", "fdatasync", "sync", "scandir", "truncate", "ftruncate")),
        ]:
            full_name = f"{module.__name__}.{name}"
            self.functions[full_name] = BlockBusterFunction(module, name, scanned_modules=WATCHED)


@pytest.fixture(autouse=True)
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fails the test when refold blocks the event loop, even if the error that this raises there is swallowed.

    Worker threads have no running loop, so what is done in them passes; so do the tests' own looks at the disk.
    """
    calls: list[str] = []

    class LoopBlocked(blockbuster.blockbuster.BlockingError):
        def __init__(self, func: str) -> None:
            super().__init__(func)
            calls.append(func)

    monkeypatch.setattr(blockbuster.blockbuster, "BlockingError", LoopBlocked)
    guard = LoopGuard()
    guard.activate()
    try:
        yield calls
    finally:
        guard.deactivate()
    if calls:
        pytest.fail(f"refold blocked the event loop with {', '.join(calls)}", pytrace=False)


def gap(reason: str) -> bool:
    """Whether a skip with this reason is one that CI has to make impossible."""
    return CI and reason.removeprefix("Skipped: ").startswith("needs ")


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def refuse_gap(report: Report) -> Report:
    """The report, failed when it is of a skip that is a gap."""
    if report.skipped and isinstance(report.longrepr, tuple) and gap(report.longrepr[2]):
        report.outcome = "failed"
        report.longrepr = f"a test that CI must run was skipped: {report.longrepr[2]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return refuse_gap((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return refuse_gap((yield))
