"""Folders that hold their records: data.csv, meta.json and events.jsonl in each, all derived, enough for a new log."""

from .disk import INDEX
from .lines import LineRefused, from_line, to_line
from .reading import FoundEvent, FoundHead, Rebuilt, read_events, rebuild_log
from .replicas import FolderReplicas
from .source import ReadTables

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
