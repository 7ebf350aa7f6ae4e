"""The history: what backups there are, read from one small file, and made anew from the backups when it does not fit.

The files are the truth. An entry of history.json is believed while a file of that name and size is there; the name
holds the hash of the manifest, so it stands for the content, and `verify` reads the content itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from refold.clock import format_time, from_millis
from refold.errors import RefoldError, StorageFailed
from refold.events import Head

from .encryption import read_header
from .errors import BackupUnknown, ParentMissing, PassphraseNeeded, PassphraseWrong
from .manifest import Manifest, Parent, parse_name, read_heads
from .places import HISTORY, FileSource, replace_history, stored
from .reading import AskSecret, BackupFile, why_refused

FORMAT = 1
_LIMIT = 256 << 20


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One backup of a directory. What only an encrypted manifest tells is null until it was opened with its secret."""

    id: str
    file: str
    kind: str
    created: str
    size: int
    sha256: str
    encrypted: bool
    parent: Parent | None
    description: str = ""
    replica: str | None = None
    after: int | None = None
    position: int | None = None
    events: int | None = None
    documents: int | None = None
    digest: str | None = None
    heads: dict[str, tuple[int, str]] | None = None

    @property
    def millis(self) -> int:
        """When it was made, in Unix milliseconds."""
        name = parse_name(self.file)
        return name.millis if name is not None else 0


class Unusable(msgspec.Struct, frozen=True):
    """A file that has the name of a backup and is none, and why."""

    file: str
    why: str


class History(msgspec.Struct, frozen=True):
    """A directory of backups, oldest first; `stale` when its history.json does not tell this."""

    backups: list[Known]
    unusable: list[Unusable] = []
    stale: bool = False

    def by_id(self) -> dict[str, Known]:
        """The backups by their id."""
        return {known.id: known for known in self.backups}


class _Stored(msgspec.Struct, frozen=True):
    format: int
    backups: list[Known]


def known_of(file: str, size: int, digest: str, manifest: Manifest, id: str, *, encrypted: bool) -> Known:  # noqa: A002
    """What the history says of a backup whose manifest is at hand."""
    return Known(
        id=id,
        file=file,
        kind=manifest.kind,
        created=manifest.created,
        size=size,
        sha256=digest,
        encrypted=encrypted,
        parent=manifest.parent,
        description=manifest.description,
        replica=manifest.replica,
        after=manifest.after,
        position=manifest.position,
        events=manifest.events,
        documents=manifest.documents.count if manifest.documents is not None else None,
        digest=manifest.digest,
        heads=manifest.heads_to,
    )


def _written(directory: Path) -> dict[str, Known]:
    """What history.json says, by file; nothing where it says nothing that makes sense."""
    try:
        with (directory / HISTORY).open("rb") as file:
            data = file.read(_LIMIT)
        found = msgspec.json.decode(data, type=_Stored)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageFailed(str(directory / HISTORY), "reading the history", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if found.format != FORMAT:
        return {}
    return {known.file: known for known in found.backups if _fits(known)}


def _fits(known: Known) -> bool:
    name = parse_name(known.file)
    return name is not None and (name.id, name.kind, name.encrypted) == (known.id, known.kind, known.encrypted)


def read_history(directory: Path, secret: AskSecret = lambda: None) -> History:
    """What is there. Files that history.json does not tell of are opened, encrypted ones as far as `secret` opens them.

    Raises `StorageFailed`.
    """
    written = _written(directory)
    backups: list[Known] = []
    unusable: list[Unusable] = []
    names: set[str] = set()
    with stored(directory, "listing the backups"):
        there = sorted(os.listdir(directory)) if directory.exists() else []
        sizes = {name: (directory / name).stat().st_size for name in there if parse_name(name)}
    for name, size in sizes.items():
        known = written.get(name)
        if known is not None and known.size == size:
            names.add(name)
            backups.append(known)
            continue
        try:
            backups.append(_examine(directory / name, secret))
        except StorageFailed:
            raise
        except RefoldError as error:
            unusable.append(Unusable(name, why_refused(error)))
    return History(backups, unusable, stale=names != written.keys() or len(names) != len(backups))


def _examine(path: Path, secret: AskSecret) -> Known:
    try:
        with BackupFile(path, secret) as backup:
            return known_of(
                path.name, backup.file.size, backup.file.hash(), backup.manifest, backup.id, encrypted=backup.encrypted
            )
    except (PassphraseNeeded, PassphraseWrong):
        return _in_the_clear(path)


def _in_the_clear(path: Path) -> Known:
    """What the name and the clear header of an encrypted backup tell."""
    name = parse_name(path.name)
    assert name is not None
    source = FileSource(path)
    try:
        header = read_header(str(path), source)[0]
        parent = Parent(header.parent, "") if header.parent is not None else None
        created = format_time(from_millis(name.millis))
        return Known(name.id, path.name, name.kind, created, source.size, source.hash(), True, parent)
    finally:
        source.close()


def write_history(directory: Path, backups: Iterable[Known]) -> None:
    """Replaces history.json. Raises `StorageFailed`."""
    told = msgspec.json.encode(_Stored(FORMAT, sorted(backups, key=lambda known: known.file)))
    replace_history(directory, msgspec.json.format(told, indent=1) + b"\n")


def find(history: History, name: str, directory: Path) -> Known:
    """The backup that a person means: `latest`, an id, its beginning, or a file's name. Raises `BackupUnknown`."""
    if name == "latest" and history.backups:
        return newest(history)
    found = [known for known in history.backups if known.file == name or (len(name) >= 4 and known.id.startswith(name))]
    if len(found) != 1:
        raise BackupUnknown(name, str(directory))
    return found[0]


def newest(history: History) -> Known:
    """The backup that was made last."""
    by_id = history.by_id()
    return max(history.backups, key=lambda known: _rank(known, by_id))


def _rank(known: Known, by_id: Mapping[str, Known]) -> tuple[int, int, str]:
    """Sorts backups by time, and one that goes on from another after it, also when a clock was set back between."""
    line, seen = [known], {known.id}
    while (parent := line[-1].parent) is not None and parent.id in by_id and parent.id not in seen:
        line.append(by_id[parent.id])
        seen.add(parent.id)
    return max(before.millis for before in line), len(line), known.id


def chain(known: Known, by_id: Mapping[str, Known], directory: Path) -> list[Known]:
    """The backups that it takes to restore one, the full one first. Raises `ParentMissing`."""
    found = [known]
    while (parent := found[-1].parent) is not None:
        before = by_id.get(parent.id)
        if before is None or before in found:
            raise ParentMissing(str(directory / found[-1].file), parent.id)
        found.append(before)
    return found[::-1]


def is_complete(known: Known, by_id: Mapping[str, Known]) -> bool:
    """Whether everything that it takes to restore it is there."""
    try:
        chain(known, by_id, Path())
    except ParentMissing:
        return False
    return True


def heads_of(known: Known) -> dict[str, Head]:
    """Where the replicas stood in it; nothing where it is not known."""
    return read_heads(known.heads) if known.heads is not None else {}


def restorable(history: History) -> Sequence[Known]:
    """Those that have all they need, the newest first."""
    by_id = history.by_id()
    found = [known for known in history.backups if is_complete(known, by_id)]
    return sorted(found, key=lambda known: _rank(known, by_id), reverse=True)
