"""Folders that hold their records: data.csv, meta.json and events.jsonl in each, all derived, enough for a new log.

A name is imported from its module when it is first asked for, since the disk under the folders has users who need no
more than that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .disk import INDEX
    from .lines import LineRefused, from_line, to_line
    from .reading import FoundEvent, FoundHead, Rebuilt, read_events, rebuild_log
    from .replicas import FolderReplicas
    from .source import ReadTables

_HOMES = {
    "disk": ("INDEX",),
    "lines": ("LineRefused", "from_line", "to_line"),
    "reading": ("FoundEvent", "FoundHead", "Rebuilt", "read_events", "rebuild_log"),
    "replicas": ("FolderReplicas",),
    "source": ("ReadTables",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """One of the names that users of the package need, or a module of it."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "INDEX",
    "FolderReplicas",
    "FoundEvent",
    "FoundHead",
    "LineRefused",
    "ReadTables",
    "Rebuilt",
    "from_line",
    "read_events",
    "rebuild_log",
    "to_line",
]
