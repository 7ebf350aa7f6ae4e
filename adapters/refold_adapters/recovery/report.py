"""What came of bringing an archive back, for a person or a script."""

from __future__ import annotations

import msgspec

from refold.verify import Finding


class RestoreReport(msgspec.Struct, kw_only=True):
    """What a restore made: where, from how many events, and what state that is.

    `kept` is where the old log was put aside, `skipped` what was left out and why, `findings` what the verification of
    the result found.
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
    vector: dict[str, int] = {}
    kept: str | None = None
    skipped: list[str] = []
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether the result verifies."""
        return not self.findings
