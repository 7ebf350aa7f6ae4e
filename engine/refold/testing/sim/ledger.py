"""What was asked of the engines and what they answered, and what therefore has to be found at the end.

acknowledged ⊆ recovered ⊆ attempted
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from refold.events import Event, Kind

Dot = tuple[str, int]


class Attempt(msgspec.Struct):
    """One operation: how many events it may write, and for each the values asked for (None: it is not said)."""

    asked: Sequence[dict[str, Any] | None]
    refused: bool = False


class Ledger:
    """All operations of a run by the name that their events carry in `meta`."""

    def __init__(self) -> None:
        self.attempted: dict[str, Attempt] = {}
        self.acknowledged: dict[str, list[Dot]] = {}

    def attempt(self, asked: Sequence[dict[str, Any] | None]) -> str:
        """Notes an operation before it is begun; its name."""
        op = f"op{len(self.attempted)}"
        self.attempted[op] = Attempt(asked)
        return op

    def acknowledge(self, op: str, events: Iterable[Event | None]) -> None:
        """Notes that an operation was answered with these events."""
        self.acknowledged[op] = [(event.replica, event.seq) for event in events if event is not None]

    def newest(self, replica: str) -> int:
        """The highest acknowledged seq of a replica."""
        return max((dot[1] for dots in self.acknowledged.values() for dot in dots if dot[0] == replica), default=0)

    def missing(self, there: set[Dot]) -> list[str]:
        """Acknowledged operations of which something is not there."""
        return [op for op, dots in self.acknowledged.items() if not there.issuperset(dots)]

    def forget(self, there: set[Dot]) -> None:
        """Lets go of what was lost with a disk."""
        for op in self.missing(there):
            del self.acknowledged[op]

    def judge(self, events: Sequence[Event]) -> Iterator[str]:
        """What is wrong with the events that are there at the end."""
        for op in self.missing({(event.replica, event.seq) for event in events}):
            yield f"{op} was acknowledged and is lost"
        recovered: dict[str, list[Event]] = {}
        for event in events:
            recovered.setdefault(event.meta.get("op", ""), []).append(event)
        for op, group in recovered.items():
            attempt = self.attempted.get(op)
            if attempt is None or len(group) > len(attempt.asked):
                yield f"{len(group)} events say that they are of {op!r}, which did not ask for them"
            elif attempt.refused:
                yield f"{op} was refused and is there"
            else:
                yield from self._whole(op, attempt, sorted(group, key=lambda event: event.seq))

    def _whole(self, op: str, attempt: Attempt, group: list[Event]) -> Iterator[str]:
        dots = [(event.replica, event.seq) for event in group]
        if op in self.acknowledged and self.acknowledged[op] != dots:
            yield f"{op} was answered with {self.acknowledged[op]} and is {dots}"
        first = dots[0]
        if dots != [(first[0], first[1] + index) for index in range(len(dots))] or {e.batch for e in group} != {
            dots[-1][1]
        }:
            yield f"{op} is torn: {dots}"
        if len(group) == len(attempt.asked):
            for event, asked in zip(group, attempt.asked, strict=True):
                yield from _says(op, event, asked)


def _says(op: str, event: Event, asked: dict[str, Any] | None) -> Iterator[str]:
    if asked is None or event.kind is Kind.DELETE:
        return
    said = {name: value for name, value in event.data.items() if name in asked or event.kind is not Kind.CREATE}
    if any(name not in asked or asked[name] != value for name, value in said.items()):
        yield f"{op} asked for {asked}, the event says {event.data}"
