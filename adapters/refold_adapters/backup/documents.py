"""The users' own files in the folders: taken along on demand, each once, and found again in the chain of parents.

`documents.jsonl` lists every document there was, in the order of a walk, a line each; `backup` is the id of the backup
that holds its bytes, null for the one at hand. A document whose size and time of change are those that the parent
knows is not read again. Both lists have one order, so they are merged as they are read, and neither is held in memory.
Links are not followed, and what is refold's own is left out: it comes back from the events.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from refold_adapters.documents.own import OwnFiles
from refold_adapters.folders import INDEX

from .manifest import DOCUMENTS, Documents, Entry
from .places import stored
from .reading import BackupFile
from .zip_reading import is_plain_name
from .zip_writing import ZipWriting

FOLDER = "documents/"
_PIECE = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINE = 1 << 16


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: its path in the archive, and which backup holds its bytes (null: the one that lists it)."""

    path: str
    size: int
    sha256: str
    mtime_ns: int
    backup: str | None

    @property
    def entry(self) -> Entry:
        """The entry of a zip that its bytes are in."""
        return Entry(FOLDER + self.path, self.size, self.sha256)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Document).decode


def documents_of(backup: BackupFile) -> Iterator[Document]:
    """The documents that a backup lists. Raises `BackupRefused`."""
    entry = backup.document_list()
    if entry is None or backup.manifest.documents is None:
        return
    count = 0
    last: tuple[str, ...] = ()
    for line in backup.lines(entry):
        try:
            document = _decode(line) if len(line) <= _LINE else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            document = None
        if document is None or not is_plain_name(document.path) or document.size < 0:
            raise backup.refuse(f"{DOCUMENTS} has a line that is no document: {line[:100]!r}")
        if not last < _order(document.path):
            raise backup.refuse(f"{DOCUMENTS} is out of order at {document.path!r}")
        last = _order(document.path)
        count += 1
        yield document
    if count != backup.manifest.documents.count:
        raise backup.refuse(f"{DOCUMENTS} lists {count} documents, the manifest {backup.manifest.documents.count}")


def _order(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


class Listing:
    """The documents of a parent, met in order."""

    def __init__(self, documents: Iterator[Document], holder: str) -> None:
        self._documents = documents
        self._holder = holder
        self._next = next(documents, None)

    def find(self, path: str) -> Document | None:
        """What the parent knows of a path, which comes after those asked for before; `backup` is never null."""
        order = _order(path)
        while self._next is not None and _order(self._next.path) < order:
            self._next = next(self._documents, None)
        found = self._next
        if found is None or found.path != path:
            return None
        return found if found.backup is not None else msgspec.structs.replace(found, backup=self._holder)


def listing_of(backup: BackupFile) -> Listing:
    """The documents that a backup knows."""
    return Listing(documents_of(backup), backup.id)


class _Walk:
    """The documents below a root, in the order of their paths' components; what is left out is said in `skipped`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._own = OwnFiles(root)
        self.skipped: list[str] = []

    def files(self, place: str = "") -> Iterator[str]:
        """Their paths from the root."""
        with stored(self._root / place, "listing documents"), os.scandir(self._root / place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        if place and INDEX in names:
            self.skipped.append(f"{place} is an archive of its own, and is not in this backup")
            return
        replica = self._own.is_replica(names)
        for entry in entries:
            path = f"{place}/{entry.name}" if place else entry.name
            if self._own.owns(entry.name, at_root=not place, replica=replica):
                continue
            if not is_plain_name(path):
                self.skipped.append(f"{path!r} has a name that a zip cannot carry everywhere; it is left out")
            elif entry.is_dir(follow_symlinks=False):
                yield from self.files(path)
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                self.skipped.append(f"{path} is no plain file; it is left out")


def add_documents(
    root: Path, zipped: ZipWriting, before: Listing | None, tell: Callable[[str, int], None]
) -> tuple[Documents, list[str]]:
    """Puts the documents below `root` into a zip, and their list; what was left out, and why."""
    walk = _Walk(root)
    count = fresh = size = 0
    with stored(root, "listing documents"), tempfile.TemporaryFile() as lines:
        for path in walk.files():
            known = before.find(path) if before is not None else None
            document = _taken(root, path, known, zipped, walk.skipped)
            if document is None:
                continue
            lines.write(_encode(document) + b"\n")
            count += 1
            if document.backup is None:
                fresh, size = fresh + 1, size + document.size
            tell("documents", count)
        lines.seek(0)
        zipped.add(DOCUMENTS, iter(lambda: lines.read(_PIECE), b""))
    return Documents(count, fresh, size), walk.skipped


def _taken(root: Path, path: str, known: Document | None, zipped: ZipWriting, skipped: list[str]) -> Document | None:
    """A document, its bytes in the zip unless a parent has them; None when it cannot be read, which is said."""
    try:
        descriptor = os.open(root / path, _READ)
    except OSError as error:
        skipped.append(f"{path} cannot be read: {error.strerror}")
        return None
    with os.fdopen(descriptor, "rb", 0) as file:
        found = os.fstat(file.fileno())
        if known is not None and (known.size, known.mtime_ns) == (found.st_size, found.st_mtime_ns):
            return known
        with stored(root / path, "reading a document"):
            entry = zipped.add(FOLDER + path, iter(lambda: file.read(_PIECE), b""), listed=False)
        return Document(path, entry.size, entry.sha256, found.st_mtime_ns, None)


def check_documents(backup: BackupFile, line: Mapping[str, BackupFile], tell: Callable[[str, int], None]) -> int:
    """Reads every document that this file holds, and looks that those of its parents are there; how many it lists.

    Raises `BackupRefused`.
    """
    count = 0
    held = {name for name in backup.names() if name.startswith(FOLDER)}
    for document in documents_of(backup):
        count += 1
        if document.backup is None:
            for _ in backup.stream(document.entry):
                pass
            held.discard(document.entry.name)
        elif document.backup not in line or not line[document.backup].has(document.entry):
            raise backup.refuse(f"document {document.path!r} is not in backup {document.backup}, where it should be")
        tell("documents", count)
    for name in sorted(held):
        raise backup.refuse(f"entry {name!r} is not listed")
    return count


def restore_documents(
    backup: BackupFile, line: Mapping[str, BackupFile], root: Path, tell: Callable[[str, int], None]
) -> list[str]:
    """Writes the documents that a backup lists below `root`; those that would replace a file are left out and said.

    Raises `BackupRefused`, `StorageFailed`.
    """
    skipped = []
    for count, document in enumerate(documents_of(backup), 1):
        holder = line.get(document.backup) if document.backup is not None else backup
        if holder is None:
            raise backup.refuse(f"document {document.path!r} is in backup {document.backup}, which is not there")
        with stored(root / document.path, "writing a document"):
            if not _write(root, document, holder):
                skipped.append(f"{document.path} is there already and was not replaced")
        tell("documents", count)
    return skipped


def _write(root: Path, document: Document, holder: BackupFile) -> bool:
    """Writes one document, never through a link; whether it was not there."""
    *folders, name = document.path.split("/")
    above = os.open(root, _DIRECTORY)
    try:
        for folder in folders:
            try:
                os.mkdir(folder, dir_fd=above)
            except FileExistsError:
                pass
            below = os.open(folder, _DIRECTORY, dir_fd=above)
            os.close(above)
            above = below
        try:
            descriptor = os.open(name, _WRITE, 0o644, dir_fd=above)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb", _PIECE) as file:
            for piece in holder.stream(document.entry):
                file.write(piece)
            file.flush()
            os.utime(file.fileno(), ns=(document.mtime_ns, document.mtime_ns))
    finally:
        os.close(above)
    return True
