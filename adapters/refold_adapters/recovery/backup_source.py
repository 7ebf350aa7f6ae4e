"""Backups as a source: every line of their events that proves itself, from as much of a file as can be read.

A backup tells how far its events go, so what is missing from a damaged one is known. One that is encrypted needs its
secret; without it, that is said, and the other sources go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from refold.errors import RefoldError, StorageFailed
from refold.verify import Finding
from refold_adapters.backup.encryption import Secret, passphrase
from refold_adapters.backup.manifest import parse_name, read_heads
from refold_adapters.backup.reading import BackupFile
from refold_adapters.folders.lines import LineRefused, proved

from .source import Damage, Item, Known, Reading

PASSPHRASE = "REFOLD_PASSPHRASE"
"""The variable with the passphrase that opens encrypted backups."""


def is_backup(path: Path) -> bool:
    """Whether this is a backup, or a directory of backups, by the names of files."""
    if path.is_dir():
        return any(parse_name(name) is not None for name in os.listdir(path))
    return path.is_file() and parse_name(path.name) is not None


def _secret() -> Secret | None:
    text = os.environ.get(PASSPHRASE)
    return passphrase(text) if text is not None else None


def backup_events(path: Path) -> Iterator[Item]:
    """What one backup holds, or all in a directory. Raises `StorageFailed`."""
    if not path.is_dir():
        yield from _one(path)
        return
    for name in sorted(name for name in os.listdir(path) if parse_name(name) is not None):
        yield from _one(path / name)


def _one(path: Path) -> Iterator[Item]:
    reading = Reading()
    try:
        with BackupFile(path, _secret) as backup:
            for replica, head in read_heads(backup.manifest.heads_to).items():
                yield Known(replica, head.seq, head.hash, path.name)
            for entry in backup.entries():
                if entry.name.startswith("events/"):
                    finding = Finding("backup-damaged", file=f"{path.name}/{entry.name}")
                    try:
                        for line in backup.lines(entry):
                            yield _line(reading, line, finding)
                    except StorageFailed:
                        raise
                    except RefoldError as error:
                        yield Damage(Finding("backup-damaged", str(error), file=f"{path.name}/{entry.name}"))
    except StorageFailed:
        raise
    except RefoldError as error:
        yield Damage(Finding("backup-damaged", str(error), file=path.name))


def _line(reading: Reading, line: bytes, finding: Finding) -> Item:
    try:
        _, body, _ = proved(line)
    except LineRefused as refused:
        return Damage(Finding(finding.kind, refused.why, file=finding.file), line)
    return reading.event(body, sealed=True, finding=finding)
