"""Backups read from end to end: the file by its hash, the zip by its structure, each entry, each event, each parent.

What cannot be looked at, for want of a passphrase or a package, is a finding as well: only what was read is in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from refold.errors import ExtraMissing, RefoldError
from refold.verify import Finding
from refold_adapters.stopping import Tell

from .documents import check_documents
from .errors import BackupRefused, BackupUnknown, ParentMissing, PassphraseNeeded, PassphraseWrong
from .history import History, Known
from .manifest import parse_name
from .reading import AskSecret, BackupFile, read_all, why_refused
from .restoring import open_chain


class BackupReport(msgspec.Struct, frozen=True):
    """What a verification looked at and found.

    Kinds of findings: `backup-damaged` (the file is not what it says), `backup-altered` (its hash is not the one that
    the history or its child remembers), `backup-parent` (what it goes on from is missing or does not fit),
    `backup-unverified` (it could not be looked at).
    """

    backups: int
    events: int
    bytes: int
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether everything was read and is in order."""
        return not self.findings


class _Check:
    """One verification."""

    def __init__(self, secret: AskSecret, known: dict[str, Known], tell: Tell) -> None:
        self.secret = secret
        self.known = known
        self.tell = tell
        self.findings: list[Finding] = []
        self.hashes: dict[str, set[str]] = {}
        self.found: dict[str, tuple[Path, str]] = {}
        self.events = self.bytes = 0

    def find(self, kind: str, path: Path, detail: str) -> None:
        """Notes what is not as it should be."""
        self.findings.append(Finding(kind, detail, file=path.name))

    def look(self, path: Path) -> None:
        """Reads one backup."""
        try:
            with ExitStack() as stack:
                try:
                    line = open_chain(path, self.secret, stack)
                except ParentMissing as error:
                    self.find("backup-parent", path, str(error))
                    line = [stack.enter_context(BackupFile(path, self.secret))]
                except BackupRefused as error:
                    if error.path == str(path) and "does not begin where its parent" not in error.why:
                        raise
                    self.find("backup-parent", path, str(error))
                    line = [stack.enter_context(BackupFile(path, self.secret))]
                self._read(line)
        except (PassphraseNeeded, PassphraseWrong, ExtraMissing) as error:
            self.find("backup-unverified", path, str(error))
        except RefoldError as error:
            self.find("backup-damaged", path, why_refused(error))

    def _read(self, line: Sequence[BackupFile]) -> None:
        backup = line[-1]
        self._hash(backup)
        before = self.events
        found = read_all(backup, lambda done: self.tell("events", before + done))
        self.events += found.events
        self.bytes += backup.file.size
        complete = line[0].manifest.parent is None
        if complete:
            check_documents(backup, {each.id: each for each in line[:-1]}, self.tell)

    def _hash(self, backup: BackupFile) -> None:
        parent = backup.manifest.parent
        if parent is not None:
            self.hashes.setdefault(parent.id, set()).add(parent.sha256)
        known = self.known.get(backup.path.name)
        found = backup.file.hash(self.tell)
        if known is not None and known.sha256 != found:
            self.find("backup-altered", backup.path, f"its hash is {found}, the history remembers {known.sha256}")
        self.hashes.setdefault(backup.id, set())
        self.found[backup.id] = backup.path, found

    def close(self) -> None:
        """Compares each file's hash with what its children remember."""
        for id_, (path, found) in self.found.items():
            for wanted in sorted(self.hashes[id_] - {found}):
                self.find("backup-altered", path, f"its hash is {found}, a backup that goes on from it says {wanted}")


def verify(paths: Sequence[Path], history: History, *, whole: bool, secret: AskSecret, tell: Tell) -> BackupReport:
    """Verifies backups, and with `whole` names files that are none though they are called so.

    Raises nothing for what is found; `BackupUnknown` when there is nothing to look at.
    """
    if not paths and not (whole and history.unusable):
        raise BackupUnknown("latest", "the directory")
    check = _Check(secret, {known.file: known for known in history.backups}, tell)
    for unusable in history.unusable if whole else ():
        check.find("backup-damaged", Path(unusable.file), unusable.why)
    for path in paths:
        check.look(path)
    check.close()
    return BackupReport(len(paths), check.events, check.bytes, check.findings)


def with_parents(path: Path, history: History) -> list[Path]:
    """A backup and all it goes on from, as far as they are there."""
    by_id = history.by_id()
    name = parse_name(path.name)
    found = [path]
    known = by_id.get(name.id) if name is not None else None
    while known is not None and known.parent is not None and known.parent.id in by_id:
        known = by_id[known.parent.id]
        if path.parent / known.file in found:
            break
        found.append(path.parent / known.file)
    return found[::-1]
