"""What came of bringing an archive back, for a person or a script."""

from __future__ import annotations

from typing import Any

import msgspec

from refold.verify import Finding


class RestoreReport(msgspec.Struct, kw_only=True):
    """What a restore made: where, from how many events, and what state that is.

    `events`, `digest` and `vector` are those of the events that were brought back, and so comparable with the source;
    `position` and `digest_after` count in the event that records the restore. `at` is the moment that was asked for,
    `kept` where the old log was put aside, `skipped` what was left out and why, `findings` what the verification of the
    result found.
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
    kept: str | None = None
    skipped: list[str] = []
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether the result verifies."""
        return not self.findings

    def note(self) -> dict[str, Any]:
        """What the event says that records it: no path, and nothing else that only this machine knows."""
        told = {"origin": self.origin, "events": self.events, "vector": self.vector, "digest": self.digest}
        return {**told, "at": self.at} if self.at is not None else told
