"""Commands are imported when they are asked for, and each is where the command line looks for it."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import refold
import refold_adapters.documents
import refold_adapters.folders
from refold_adapters.cli.app import MODULES
from tests.adapters.adopting import old_tool
from tests.adapters.adopting.old_tool import order

from .test_process import environment

HEAVY = ("asyncio", "rich", "refold.engine", "refold.fold", "sqlite3", "aiosqlite", "refold_adapters.archive")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_has_the_commands_that_are_looked_for_in_it(module: str) -> None:
    found = import_module(f"refold_adapters.cli.{module}").COMMANDS
    assert sorted(str(command.name) for command in found) == sorted(MODULES[module])


@pytest.mark.parametrize("command", ["export", "verify", "restore"])
def test_the_commands_of_schedulers_start_without_what_they_may_not_need(command: str) -> None:
    code = f"import sys; from refold_adapters.cli.app import app; app.commands[{command!r}]; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert set(HEAVY) & set(done.stdout.split()) == set()


def test_a_run_on_plain_folders_imports_no_engine(tmp_path: Path) -> None:
    old_tool.fill(tmp_path, [order(1)])
    old_tool.export(tmp_path, order(1))
    for command in ("export", "verify", "restore"):
        words = [command, "--db", str(tmp_path / "werkstatt.db"), "--archive", str(tmp_path)]
        code = f"import sys; from refold_adapters.cli.app import run; code = run({words!r}); print(code, *sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
        )
        ended, *modules = done.stdout.splitlines()[-1].split()
        assert ended == "0"
        assert {name for name in HEAVY if name != "sqlite3"} & set(modules) == {"refold.fold"}


def test_every_public_name_is_where_the_package_looks_for_it() -> None:
    for package in (refold, refold_adapters.folders, refold_adapters.documents):
        home = {name: module for module, names in package._HOMES.items() for name in names}
        assert sorted(home) == sorted(package.__all__)
        for name in package.__all__:
            assert getattr(package, name) is getattr(import_module(f"{package.__name__}.{home[name]}"), name)
    with pytest.raises(AttributeError):
        _ = refold.nothing_of_this_name
