"""An open backup: its manifest, proved by its id, and its events, each proving itself.

Whatever the file says is checked before it is used; see `zip_reading.py` and `manifest.py`. Events come in batches, in
the order of the log they were taken from, and end in the heads that the manifest states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Self

import msgspec

from refold.errors import RefoldError
from refold.events import Event
from refold.verify import ChainCheck
from refold_adapters.folders.lines import LineRefused, proved

from .encryption import MAGIC, Opened, Secret
from .errors import BackupRefused
from .manifest import (
    DOCUMENTS,
    MANIFEST,
    MANIFEST_LIMIT,
    PROOF,
    SETTINGS,
    Entry,
    Manifest,
    from_bytes,
    id_of,
    parse_name,
    read_heads,
)
from .places import FileSource
from .zip_reading import Source, ZipReading

LINE_LIMIT = 64 << 20
"""The longest line that is read: an event is held in memory whole."""

SETTINGS_LIMIT = 1 << 20
BATCH = 1000

Proved = tuple[Event, bytes, bytes]
"""An event, its canonical bytes and its hash."""

AskSecret = Callable[[], Secret | None]


class BackupFile:
    """A backup that was opened. Raises `BackupRefused`, `PassphraseNeeded`, `PassphraseWrong`, `StorageFailed`."""

    def __init__(self, path: Path, secret: AskSecret = lambda: None) -> None:
        self.path = path
        self.file = FileSource(path)
        try:
            source: Source = self.file
            self.encrypted = self.file.read_at(0, len(MAGIC)) == MAGIC
            if self.encrypted:
                source = Opened(str(path), self.file, secret)
            self._zip = ZipReading(str(path), source)
            data = self._small(MANIFEST, MANIFEST_LIMIT)
            proof = self._small(PROOF, 200)
            self.manifest: Manifest = from_bytes(str(path), data)
            self.id = id_of(data)
            self._prove(data, proof)
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self.file.close()

    def refuse(self, why: str) -> BackupRefused:
        """The error that this file is not what it should be."""
        return BackupRefused(str(self.path), why)

    def _small(self, name: str, limit: int) -> bytes:
        entry = self._zip.entries.get(name)
        if entry is not None and entry.size > limit:
            raise self.refuse(f"entry {name!r} has {entry.size} bytes; at most {limit} are read")
        return b"".join(self._zip.stream(name))

    def _prove(self, data: bytes, proof: bytes) -> None:
        if proof != f"{sha256(data).hexdigest()}  {MANIFEST}\n".encode():
            raise self.refuse("its manifest is not the one that its last entry names")
        name = parse_name(self.path.name)
        if name is not None and name.id != self.id:
            raise self.refuse(f"its manifest makes it backup {self.id}, and not the one that its name says")
        listed = {entry.name: entry.size for entry in self.manifest.entries}
        there = {entry.name: entry.size for entry in self._zip.entries.values()}
        for name_, size in {**there, **listed}.items():
            if name_ in (MANIFEST, PROOF) or (self.manifest.documents and name_.startswith("documents/")):
                continue
            if listed.get(name_) != there.get(name_):
                raise self.refuse(f"entry {name_!r} of {size} bytes is not in both the manifest and the zip")

    def entries(self) -> list[Entry]:
        """What the manifest lists."""
        return self.manifest.entries

    def names(self) -> list[str]:
        """Every name in the zip."""
        return list(self._zip.entries)

    def has(self, entry: Entry) -> bool:
        """Whether an entry of that name and size is in the zip."""
        found = self._zip.entries.get(entry.name)
        return found is not None and found.size == entry.size

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """An entry's bytes in pieces; its size and hash were right if the iterator ends by itself."""
        found, size = sha256(), 0
        for piece in self._zip.stream(entry.name):
            found.update(piece)
            size += len(piece)
            if size > entry.size:
                break
            yield piece
        if (size, found.hexdigest()) != (entry.size, entry.sha256):
            raise self.refuse(f"entry {entry.name!r} is not the one that was put in: its hash is another")

    def lines(self, entry: Entry) -> Iterator[bytes]:
        """The lines of an entry, with their ends."""
        kept: list[bytes] = []
        size = 0
        for piece in self.stream(entry):
            first, *rest = piece.split(b"\n")
            kept.append(first)
            size += len(first)
            if size > LINE_LIMIT:
                raise self.refuse(f"entry {entry.name!r} has a line of more than {LINE_LIMIT} bytes")
            if rest:
                yield b"".join(kept)
                yield from rest[:-1]
                kept, size = [rest[-1]], len(rest[-1])
        if size:
            raise self.refuse(f"entry {entry.name!r} ends in the middle of a line")

    def events(self) -> Iterator[list[Proved]]:
        """The events in batches, each following the one before it. Raises `BackupRefused`."""
        manifest = self.manifest
        check = ChainCheck(read_heads(manifest.heads_from))
        count = 0
        for entry in manifest.entries:
            if not entry.name.startswith("events/"):
                continue
            batch: list[Proved] = []
            for line in self.lines(entry):
                batch.append(self._event(entry, line, check))
                if len(batch) == BATCH:
                    count += len(batch)
                    yield batch
                    batch = []
            if batch:
                count += len(batch)
                yield batch
        if count != manifest.events or check.heads != read_heads(manifest.heads_to):
            raise self.refuse("its events do not end where its manifest says")

    def _event(self, entry: Entry, line: bytes, check: ChainCheck) -> Proved:
        try:
            found = proved(line)
        except LineRefused as error:
            raise self.refuse(f"{entry.name}: {error.why}") from None
        for finding in check.follow(found[0], found[2]):
            raise self.refuse(f"{entry.name}: event {finding.replica}:{finding.seq}: {finding.detail}")
        return found

    def settings(self) -> bytes | None:
        """The bytes of refold.toml, None where there was none."""
        for entry in self.manifest.entries:
            if entry.name == SETTINGS:
                if entry.size > SETTINGS_LIMIT:
                    raise self.refuse(f"entry {entry.name!r} has {entry.size} bytes; at most {SETTINGS_LIMIT} are read")
                return b"".join(self.stream(entry))
        return None

    def document_list(self) -> Entry | None:
        """The entry that lists the users' documents."""
        return next((entry for entry in self.manifest.entries if entry.name == DOCUMENTS), None)


class Verified(msgspec.Struct, frozen=True):
    """What reading a backup from end to end came to."""

    events: int
    bytes: int


def read_all(backup: BackupFile, tell: Callable[[int], None]) -> Verified:
    """Reads every entry of the manifest and proves every event. Raises `BackupRefused`."""
    events = size = 0
    for batch in backup.events():
        events += len(batch)
        tell(events)
    for entry in backup.entries():
        if not entry.name.startswith("events/"):
            size += sum(len(piece) for piece in backup.stream(entry))
        else:
            size += entry.size
    return Verified(events, size)


def why_refused(error: RefoldError) -> str:
    """What is wrong, without the path that stands beside it."""
    return error.why if isinstance(error, BackupRefused) else str(error)
