"""Folders that hold their records: data.csv, meta.json and events.jsonl in each, all derived, enough for a new log.

A name is imported from its module when it is first asked for, since the disk under the folders has users who need no
more than that.
"""

from typing import TYPE_CHECKING

from refold.lazy import lazily

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
__getattr__ = lazily(__name__, _HOMES)

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
