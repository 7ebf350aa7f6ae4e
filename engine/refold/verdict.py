"""What a verification came to: its findings, the one word for all of them, and how each is repaired. Pure.

A verdict is the gravest kind of damage among the findings, by what it puts in doubt: `rot`, `fork` and `cut-tail` are
about the log, the only truth; `unverified` says that a part could not be read, which is never ok; `documents` is about
files that records point to, which no log brings back; `altered` is about what can be made anew from the log;
`torn-tail` is work that a crash left unfinished and that the next opening finishes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from .rota import Coverage

FINDINGS_LIMIT = 1000
"""Findings of one part after which no more are listed: what comes after the first thousand tells nobody more."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is not as it should be; fields that say nothing are left out.

    `witness` is who knows better, `repair` the command that mends it. Kinds: `log-rot` (an event does not decode, is
    not in canonical form, or is not the one that its successor follows), `log-chain` (it does not follow its replica's
    event before), `log-order` (it stands before something it had seen), `log-position` (positions are not the unbroken
    run that appending makes), `log-cut` (the log ends before a head that a witness knows), `log-fork` (a witness knows
    another event at a dot), `log-torn` (a commit that never ended), `table-altered`, `table-missing`, `table-stray`,
    `tables-behind`, `version-unknown` (events of a schema version that no definition here declares), those of
    projections, those of documents (`document-rot`: other bytes, though size and time of change are those of the right
    ones), and `unreadable`.
    """

    kind: str
    detail: str = ""
    position: int | None = None
    replica: str | None = None
    seq: int | None = None
    collection: str | None = None
    key: str | None = None
    folder: str | None = None
    file: str | None = None
    row: int | None = None
    witness: str | None = None
    repair: str | None = None


class Verdict(StrEnum):
    """How an archive stands, from sound to the gravest damage."""

    SOUND = "sound"
    TORN = "torn-tail"
    ALTERED = "altered"
    DOCUMENTS = "documents"
    UNVERIFIED = "unverified"
    CUT = "cut-tail"
    FORK = "fork"
    ROT = "rot"


_GRAVITY = list(Verdict)
_VERDICTS = {
    **dict.fromkeys(("log-rot", "log-chain", "log-order", "log-position"), Verdict.ROT),
    "log-fork": Verdict.FORK,
    "log-cut": Verdict.CUT,
    **dict.fromkeys(("log-torn", "folder-torn", "folders-behind", "tables-behind"), Verdict.TORN),
    **dict.fromkeys(("table-altered", "table-missing", "table-stray", "digest-differs"), Verdict.ALTERED),
    **dict.fromkeys(("folder-altered", "folder-missing", "folder-stray", "folders-incomplete"), Verdict.ALTERED),
    "projection-altered": Verdict.ALTERED,
    **dict.fromkeys(
        (f"document-{kind}" for kind in ("rot", "changed", "missing", "moved", "outside", "hash", "unsettled")),
        Verdict.DOCUMENTS,
    ),
}

FROM_FOLDERS = "refold restore --in-place --from folders"
TABLES = "refold rebuild tables"
FOLDERS = "refold restore --folders"
OPENING = "refold export"
RECORDING = "refold scan --record"
COPIES = "refold backup restore latest -o NEW"
_REPAIRS = {
    **dict.fromkeys(("log-rot", "log-chain", "log-order", "log-position", "log-cut", "log-fork"), FROM_FOLDERS),
    **dict.fromkeys(("log-torn", "folders-behind", "tables-behind", "projection-failed"), OPENING),
    **dict.fromkeys(("table-altered", "table-missing", "table-stray", "digest-differs"), TABLES),
    **dict.fromkeys(("folder-altered", "folder-missing", "folder-stray", "folders-incomplete", "folder-torn"), FOLDERS),
    **dict.fromkeys(("document-changed", "document-moved", "document-hash"), RECORDING),
    **dict.fromkeys(("document-rot", "document-missing"), COPIES),
}


def verdict(findings: Iterable[Finding]) -> Verdict:
    """The gravest of what was found; a kind that is not known puts the archive in doubt."""
    found = {_VERDICTS.get(finding.kind, Verdict.UNVERIFIED) for finding in findings}
    return max(found, key=_GRAVITY.index, default=Verdict.SOUND)


def repair_of(finding: Finding) -> str | None:
    """The command that mends a finding, where there is one; a finding that says so already is believed."""
    if finding.repair is not None or finding.witness is None:
        return finding.repair or _REPAIRS.get(finding.kind)
    witness = shlex.quote(finding.witness)
    return {"log-cut": f"refold sync {witness}", "log-fork": f"refold recover . {witness} -o NEW"}.get(finding.kind)


_OF_THE_LOG = {Verdict.ROT, Verdict.FORK, Verdict.CUT}


def judged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, the gravest first, each with its repair.

    While the log itself is in doubt, only what mends the log is named: to make tables and folders fit a log that was
    cut or exchanged would destroy the witnesses of what it was.
    """
    ordered = sorted(findings, key=lambda finding: -_GRAVITY.index(verdict([finding])))
    doubt = verdict(ordered) in _OF_THE_LOG
    return [
        msgspec.structs.replace(
            finding, repair=None if doubt and verdict([finding]) not in _OF_THE_LOG else repair_of(finding)
        )
        for finding in ordered
    ]


class Report(msgspec.Struct, frozen=True):
    """What a verification looked at and found; of one that had a budget, what it has covered."""

    findings: list[Finding]
    events: int
    coverage: Coverage | None = None

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return not self.findings

    @property
    def verdict(self) -> Verdict:
        """The gravest of the findings."""
        return verdict(self.findings)
