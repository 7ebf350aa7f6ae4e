"""Events and records in the shapes that scripts and people read."""

from __future__ import annotations

from typing import Any

from refold import Event, Record
from refold.clock import format_time

from .output import cell, json_text

EVENT_COLUMNS = ("position", "time", "kind", "collection", "key", "data", "actor", "reason")


def event_document(event: Event) -> dict[str, Any]:
    """An event as scripts read it."""
    return {
        "position": event.position,
        "replica": event.replica,
        "seq": event.seq,
        "time": format_time(event.time),
        "kind": event.kind,
        "collection": event.collection,
        "key": event.key,
        "data": event.data,
        "context": event.context,
        "actor": event.actor,
        "reason": event.reason,
        "hash": event.hash.hex(),
    }


def event_row(event: Event, width: int | None = None) -> tuple[str, ...]:
    """An event as a row for people, its data cut to `width`."""
    data = " ".join(f"{name}={cell(value)}" for name, value in event.data.items())
    if width is not None and len(data) > width:
        data = data[: max(1, width - 1)] + "…"
    row = (event.position, format_time(event.time), str(event.kind), event.collection, event.key)
    return (*(cell(value) for value in row), data, cell(event.actor), cell(event.reason))


def record_document(record: Record) -> dict[str, Any]:
    """A record as scripts read it."""
    return {
        "collection": record.collection,
        "key": record.key,
        "values": record.values,
        "version": record.version,
        "folder": record.folder,
        "deleted": record.deleted,
    }


def record_line(record: Record) -> str:
    """The same as one line of JSON."""
    return json_text(record_document(record)) + "\n"
