"""What came of bringing an archive back, for a person or a script."""

from __future__ import annotations

from typing import Any

import msgspec

from refold.verify import Finding

LISTED = 1000
"""How many findings of a source, ranges, or records a report lists; it counts the others."""

_NOTED = 100


class RestoreReport(msgspec.Struct, kw_only=True):
    """What a restore made: where, from how many events, and what state that is.

    `events`, `digest`, `vector` and `heads` (hashes of the newest events) are those of what was brought back, and so
    comparable with the source; `position` and `digest_after` count in the event that records the restore. `at` is the
    moment that was asked for, `receipt` the file in the archive that tells all this, `kept` where the old log was put
    aside, `skipped` what was left out and why, `findings` what the verification of the result found.
    """

    path: str
    origin: str
    replica: str = ""
    events: int = 0
    position: int = 0
    records: int = 0
    folders: int = 0
    bytes: int = 0
    seconds: float = 0.0
    digest: str = ""
    digest_after: str = ""
    at: str | None = None
    vector: dict[str, int] = {}
    heads: dict[str, str] = {}
    receipt: str | None = None
    receipt_hash: str = ""
    kept: str | None = None
    skipped: list[str] = []
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether the result verifies."""
        return not self.findings

    def told(self) -> dict[str, Any]:
        """What a receipt says of the sources and of what they lack."""
        return {"sources": [], "missing": [], "missing_count": 0, "left_out": 0}

    def note(self) -> dict[str, Any]:
        """What the event says that records it: no path, and nothing else that only this machine knows."""
        told = {"origin": self.origin, "events": self.events, "vector": self.vector, "digest": self.digest}
        return {**told, "at": self.at} if self.at is not None else told


class SourceReport(msgspec.Struct):
    """What one source came to: `events` it has, `used` of them in the result, `alone` that no other source has.

    `ranges` are the dots of what was used, `damage` counts what was wrong with it, of which `findings` are the first.
    """

    name: str
    label: str
    kind: str
    events: int = 0
    used: int = 0
    alone: int = 0
    ranges: list[str] = []
    damage: int = 0
    findings: list[Finding] = []


class ForkReport(msgspec.Struct):
    """Two histories under one id: from `dot` on, each branch by its hash, with the sources that vouch for it."""

    dot: str
    branches: dict[str, list[str]]


class RecoveryReport(RestoreReport, kw_only=True):
    """What a recovery found and made; see `RestoreReport` for what it made.

    `missing` are dots that were written and that no source has; `touched` the records whose events had to be left out,
    `touched_count` of them. `left_out` counts the events that are kept beside. `unproved` are dots that nothing but
    their place vouches for, `disagreed` those where something remembers another event. `published` is whether there
    is a new archive.
    """

    sources: list[SourceReport] = msgspec.field(default_factory=list[SourceReport])
    missing: list[str] = msgspec.field(default_factory=list[str])
    missing_count: int = 0
    touched: list[str] = msgspec.field(default_factory=list[str])
    touched_count: int = 0
    left_out: int = 0
    forks: list[ForkReport] = msgspec.field(default_factory=list[ForkReport])
    unproved: list[str] = msgspec.field(default_factory=list[str])
    disagreed: list[str] = msgspec.field(default_factory=list[str])
    published: bool = False
    dry_run: bool = False

    @property
    def whole(self) -> bool:
        """Whether everything that is known to have been written was recovered."""
        return not (self.missing_count or self.left_out or self.forks or self.disagreed)

    def told(self) -> dict[str, Any]:
        """See `RestoreReport.told`."""
        names = ("kind", "events", "used", "alone", "ranges", "damage")
        return {
            "sources": [
                {"source": each.label, **{name: getattr(each, name) for name in names}} for each in self.sources
            ],
            "missing": self.missing,
            "missing_count": self.missing_count,
            "left_out": self.left_out,
        }

    def note(self) -> dict[str, Any]:
        """See `RestoreReport.note`."""
        sources = [{"source": each.label, "events": each.events, "used": each.used} for each in self.sources]
        told = {**super().note(), "sources": sources}
        if self.missing_count:
            told |= {"missing": self.missing[:_NOTED], "missing_count": self.missing_count}
        return told | ({"left_out": self.left_out} if self.left_out else {})
