"""Whose turn it is, when an archive is verified a part at a time. Pure.

An archive is looked at in pieces, each of which is whole in itself. What was found wrong comes first, so that damage is
told again until it is mended; then what was never looked at, or has grown since; then what was looked at longest ago.
A run begins no piece once its time is used up, so it ends late by one piece at most, and as every run goes on with the
oldest, runs of any length come round to everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class Piece(msgspec.Struct, frozen=True):
    """A piece of an archive: its name, of which part it is, and how far it reaches, in whatever that part counts by."""

    name: str
    part: str
    reach: int = 0


class Checked(msgspec.Struct, frozen=True):
    """When a piece was looked at last, in Unix milliseconds, how far it reached then, how many findings there were."""

    when: int
    reach: int = 0
    findings: int = 0


class Coverage(msgspec.Struct, frozen=True):
    """What a run has covered: of how many pieces, how many were looked at in this run, how many never were.

    `oldest` is when the piece was looked at that waits longest, in Unix milliseconds; None while some never were.
    """

    pieces: int
    checked: int
    never: int
    oldest: int | None


def _known(piece: Piece, checked: Mapping[str, Checked]) -> Checked | None:
    """When the piece was looked at, as it is now."""
    last = checked.get(piece.name)
    return last if last is not None and last.reach == piece.reach else None


def turns(pieces: Sequence[Piece], checked: Mapping[str, Checked]) -> list[Piece]:
    """The pieces in the order in which they are to be looked at."""

    def rank(piece: Piece) -> tuple[int, int]:
        if piece.name in checked and checked[piece.name].findings:
            return 0, 0
        known = _known(piece, checked)
        return (1, 0) if known is None else (2, known.when)

    return sorted(pieces, key=rank)


def coverage(pieces: Sequence[Piece], checked: Mapping[str, Checked], done: int) -> Coverage:
    """What is covered once `done` pieces were looked at."""
    known = [last for piece in pieces if (last := _known(piece, checked)) is not None]
    never = len(pieces) - len(known)
    return Coverage(len(pieces), done, never, None if never else min((last.when for last in known), default=None))
