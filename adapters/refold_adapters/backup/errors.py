"""What can be wrong with a backup, one error an idea."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from refold.errors import RefoldError


@dataclass(eq=False)
class BackupRefused(RefoldError):
    """A file that is no backup, or not the one that it says it is; nothing of it was used."""

    code: ClassVar[str] = "backup-refused"
    message: ClassVar[str] = "{path}: {why}"
    hint: ClassVar[str] = (
        "take another copy of this file, or another backup; `refold backup verify` looks at all of them"
    )
    path: str
    why: str


@dataclass(eq=False)
class BackupUnknown(RefoldError):
    """No backup of that name, or none at all, is in the directory."""

    code: ClassVar[str] = "backup-unknown"
    message: ClassVar[str] = "no backup {name!r} in {directory}"
    hint: ClassVar[str] = "`refold backup list` shows what is there; --dir says where"
    name: str
    directory: str


@dataclass(eq=False)
class ParentMissing(RefoldError):
    """An incremental backup whose parent is not there."""

    code: ClassVar[str] = "parent-missing"
    message: ClassVar[str] = "{path} goes on from backup {parent}, which is not there"
    hint: ClassVar[str] = "put the parent's file beside it, or take an earlier backup or a full one"
    path: str
    parent: str


@dataclass(eq=False)
class PassphraseNeeded(RefoldError):
    """An encrypted backup, and nothing to open it with."""

    code: ClassVar[str] = "passphrase-needed"
    message: ClassVar[str] = "{path} is encrypted with a {what}"
    hint: ClassVar[str] = "say --passphrase-file or --key-file, or set REFOLD_PASSPHRASE"
    path: str
    what: str


@dataclass(eq=False)
class PassphraseWrong(RefoldError):
    """A passphrase or key that does not open this backup; its header is as it was written, or was altered with care."""

    code: ClassVar[str] = "passphrase-wrong"
    message: ClassVar[str] = "the {what} does not open {path}"
    hint: ClassVar[str] = "try the one that was in use when the backup was made"
    path: str
    what: str
