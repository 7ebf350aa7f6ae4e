"""Commands that are imported when they are asked for.

A crontab that runs `refold verify` every hour has no use for the modules of twenty other commands, and importing them
would take longer than its work. Which module has which command is told beforehand; `test_docs.py` holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from importlib import import_module

import click


class Commands(MutableMapping[str, click.Command]):
    """The commands of modules in `package`, by name. Each module has them in a list `COMMANDS`."""

    def __init__(self, package: str, modules: Mapping[str, Sequence[str]]) -> None:
        self._package = package
        self._module = {name: module for module, names in modules.items() for name in names}
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            found = import_module(f".{self._module[name]}", self._package).COMMANDS
            self._loaded |= {str(command.name): command for command in found}
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._module[name] = ""
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._module[name]
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._module)

    def __len__(self) -> int:
        return len(self._module)
