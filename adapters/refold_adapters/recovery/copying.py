"""Events from one log to another, a batch at a time; the log that takes them proves each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice

from refold.events import Event, stored_event
from refold.moment import Cut
from refold.ports import Changelog

Tell = Callable[[str, int], None]

_PAGE = 1000


def events_of(source: Changelog, upto: Cut | None = None) -> Iterator[tuple[Event, bytes]]:
    """The events of a log in its order, with their bytes; only those of a moment. Raises `LogCorrupt`."""
    position = 0
    while bodies := source.bodies(position, _PAGE):
        for position, body in bodies:
            event = stored_event(position, body)
            if upto is None or upto.has(event):
                yield event, body


def append_all(log: Changelog, events: Iterable[tuple[Event, bytes]], tell: Tell) -> int:
    """Appends events with their canonical bytes to a log, which proves each; how many.

    Raises `EventsMissing`, `EventForked`, `StorageFailed`.
    """
    pairs = iter(events)
    count = 0
    while batch := list(islice(pairs, _PAGE)):
        bodies = [body for _, body in batch]
        log.append([event for event, _ in batch], bodies, [sha256(body).digest() for body in bodies])
        count += len(batch)
        tell("log", count)
    return count
