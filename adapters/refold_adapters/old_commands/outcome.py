"""What a run of an older tool's command came to: counts, findings, and one line that says it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from refold_adapters.adopting.candidates import Finding

from .run_log import RunLog

LISTED = 10_000
"""Findings that are kept to be listed; further ones are counted, and stand in the log file."""

COUNTS = {
    "export": ("exported", "unchanged", "put_aside", "captured"),
    "verify": ("verified",),
    "restore": ("restored", "created", "changed", "removed"),
}
"""What each command counts, besides errors and warnings, in the order in which it is told."""

WARNINGS = frozenset({"duplicate", "put-aside", "lock-left", "not-locked", "unfinished"})
"""Kinds of findings that tell of something that was settled, and that nobody has to act on."""


@dataclass(kw_only=True)
class Outcome:
    """What one run did.

    `kind` is `plain`, or `refold` for folders that were adopted. Of export: `exported` folders were written,
    `unchanged` ones were so already, `put_aside` are data files that somebody had edited, `captured` writes of the old
    program that became events. `verified` rows stand in a folder and in the table alike. Of restore: `restored` rows
    are in the database, of which so many were `created` or `changed`, and `removed` ones are gone from it; `kept` is
    where the old database is. `counts` has findings by kind, `unlisted` those beyond the list.
    """

    command: str
    archive: str
    db: str
    kind: str = "plain"
    dry_run: bool = False
    exported: int = 0
    unchanged: int = 0
    put_aside: int = 0
    captured: int = 0
    verified: int = 0
    restored: int = 0
    created: int = 0
    changed: int = 0
    removed: int = 0
    kept: str | None = None
    errors: int = 0
    warnings: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unlisted: int = 0
    seconds: float = 0.0
    log: RunLog | None = None

    def found(self, findings: Iterable[Finding]) -> None:
        """Takes in what was found, into the log file too."""
        for finding in findings:
            is_error = finding.kind not in WARNINGS
            self.errors += is_error
            self.warnings += not is_error
            self.counts[finding.kind] = self.counts.get(finding.kind, 0) + 1
            if len(self.findings) < LISTED:
                self.findings.append(finding)
            else:
                self.unlisted += 1
            if self.log is not None:
                about = ("key", "folder", "file", "row", "field", "detail")
                pairs = {name: getattr(finding, name) for name in about}
                self.log("ERROR" if is_error else "WARNING", finding.kind, **pairs)

    def document(self) -> dict[str, Any]:
        """As scripts read it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "log"}

    @property
    def told(self) -> dict[str, int]:
        """The counts of this command."""
        return {name: getattr(self, name) for name in (*COUNTS[self.command], "errors", "warnings")}

    def summary(self) -> str:
        """One line for people, alerts and grep."""
        counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in self.told.items())
        return f"{self.command}: {counts}, {self.seconds:.2f} s"
