"""Packages whose names are imported from their modules when they are first asked for (PEP 562).

So whoever needs little of a package, as a command that a scheduler runs every minute, does not wait for all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package, given the names that its modules have for others; it gives those modules too."""
    home = {name: module for module, names in homes.items() for name in names}

    def found(name: str) -> Any:
        if name in home:
            value = getattr(import_module(f".{home[name]}", package), name)
            setattr(sys.modules[package], name, value)
            return value
        if name in homes:
            return import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found
