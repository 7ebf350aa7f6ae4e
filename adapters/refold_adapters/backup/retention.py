"""Which backups are kept: a pure decision over what the history says, and the order in which the others go.

Every rule keeps the newest backup of each of so many periods that have one, counted back from the newest; periods are
those of UTC, weeks as ISO 8601 counts them. What a kept backup goes on from is kept as well, and so is the newest that
can be restored, whatever the rules say. A backup whose parent is missing counts for nothing and is left alone.

Children go before their parents. So whenever it is broken off, no backup is there without what it goes on from, that
had it before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Policy(msgspec.Struct, frozen=True):
    """How many backups, and of how many periods one each, are kept."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    @property
    def keeps_any(self) -> bool:
        """Whether any rule was given."""
        return any(msgspec.structs.astuple(self))


class Candidate(msgspec.Struct, frozen=True):
    """A backup: its id, when it was made (Unix milliseconds), and the id of what it goes on from."""

    id: str
    millis: int
    parent: str | None


class Decision(msgspec.Struct, frozen=True):
    """What is kept and why, what goes, in this order, generation by generation, and what is left alone."""

    keep: dict[str, list[str]]
    remove: list[list[str]]
    left: list[str]


_Period = Callable[[datetime], tuple[int, ...]]
_PERIODS: dict[str, _Period] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}


def decide(candidates: Sequence[Candidate], policy: Policy) -> Decision:
    """What becomes of each backup."""
    by_id = {candidate.id: candidate for candidate in candidates}
    lines = {candidate.id: _line(candidate, by_id) for candidate in candidates}
    whole = {id_: line for id_, line in lines.items() if line is not None}
    rank = {id_: (max(by_id[each].millis for each in line), len(line), id_) for id_, line in whole.items()}
    newest_first = sorted(whole, key=lambda id_: rank[id_], reverse=True)
    keep: dict[str, list[str]] = {}
    for id_ in newest_first[: policy.last]:
        keep.setdefault(id_, []).append("last")
    for rule, period in _PERIODS.items():
        for id_ in _first_of_each([by_id[id_] for id_ in newest_first], period, getattr(policy, rule)):
            keep.setdefault(id_, []).append(rule)
    if newest_first and newest_first[0] not in keep:
        keep[newest_first[0]] = ["the newest"]
    for id_ in list(keep):
        for parent in whole[id_][1:]:
            keep.setdefault(parent, []).append(f"needed by {id_}")
    generations: dict[int, list[str]] = {}
    for id_ in newest_first:
        if id_ not in keep:
            generations.setdefault(len(whole[id_]), []).append(id_)
    return Decision(
        {id_: keep[id_] for id_ in newest_first if id_ in keep},
        [generations[depth] for depth in sorted(generations, reverse=True)],
        sorted(id_ for id_, line in lines.items() if line is None),
    )


def _line(candidate: Candidate, by_id: dict[str, Candidate]) -> list[str] | None:
    """The backup and all it goes on from; None where something is missing."""
    line = [candidate.id]
    while (parent := by_id[line[-1]].parent) is not None:
        if parent not in by_id or parent in line:
            return None
        line.append(parent)
    return line


def _first_of_each(newest_first: Sequence[Candidate], period: _Period, count: int) -> list[str]:
    found: dict[tuple[int, ...], str] = {}
    for candidate in newest_first:
        at = period(_EPOCH + timedelta(milliseconds=candidate.millis))
        if at not in found:
            if len(found) == count:
                break
            found[at] = candidate.id
    return list(found.values())
