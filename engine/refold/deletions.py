"""The deletion log: which records were deleted, when, by whom and why, and whether they still are. Pure.

A record that is deleted keeps its history, so the log is the deletion log. It is read in runs of a bounded size; of an
event that is no delete, only the bytes are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from .decide import settled_values
from .events import Event, Kind, stored_event
from .fold import decode_state
from .ports import Changelog, Tables
from .replay import load_schemas

RUN = 1000
"""Events read in one visit to the store."""

_DELETE = bytes([0xA0 + len(Kind.DELETE)]) + Kind.DELETE.encode()
"""How the kind of a delete is spelt in canonical bytes: a msgpack text of six letters."""


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """One delete: what was deleted, at which position and time (see `refold.clock`), by whom, and why if that was said.

    `standing` is whether the record is still deleted: not created again since, nor kept by a strategy.
    """

    collection: str
    key: str
    position: int
    time: int
    actor: str
    reason: str | None
    standing: bool


class DeletionQuery(msgspec.Struct, frozen=True):
    """Which deletes to list; no collections and no actor stand for any."""

    collections: Collection[str] = ()
    actor: str | None = None

    def fits(self, event: Event) -> bool:
        """Whether an event is one of them."""
        return (
            event.kind is Kind.DELETE
            and (not self.collections or event.collection in self.collections)
            and self.actor in (None, event.actor)
        )


def deletions(query: DeletionQuery, after: int, end: int, log: Changelog, tables: Tables) -> tuple[int, list[Deletion]]:
    """The deletes among the next events after a position, up to an end, and the position that was read to."""
    bodies = log.bodies(after, max(0, min(RUN, end - after)))
    events = [stored_event(position, body) for position, body in bodies if _DELETE in body]
    found = [event for event in events if query.fits(event)]
    return (bodies[-1][0] if bodies else end), _standing(found, log, tables) if found else []


def _standing(events: Sequence[Event], log: Changelog, tables: Tables) -> list[Deletion]:
    schemas = load_schemas(tables)
    states = tables.load({event.record for event in events})
    deleted = {
        record: not settled_values(
            decode_state(data), record, schemas.get(record[0]), lambda record: log.at(tables.history([record]))
        )[1]
        for record, data in states.items()
    }
    return [
        Deletion(
            collection=event.collection,
            key=event.key,
            position=event.position,
            time=event.time,
            actor=event.actor,
            reason=event.reason,
            standing=deleted.get(event.record, True),
        )
        for event in events
    ]
