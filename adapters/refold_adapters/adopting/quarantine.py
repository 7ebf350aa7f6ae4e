"""What could not be adopted, byte for byte, until somebody has corrected it: a folder in the archive's `quarantine/`.

Each folder that was left out, in whole or in part, has a copy there of its data file and its meta.json, at its own
path, beside `finding.json`, which says what is wrong. A row of the table that was left out is a data file of its own in
`quarantine/DATABASE/KEY`. Correcting the data file and adopting from the quarantine takes
the rows in; the entry is then moved to `quarantine/.adopted`, so nothing that was ever put aside is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from refold.errors import StorageFailed
from refold.names import encode_name
from refold_adapters.durable import sync_file
from refold_adapters.folders.disk import QUARANTINE

from .candidates import Finding
from .layout import Layout

FINDING = "finding.json"
ADOPTED = ".adopted"
LAYOUT = ".layout.toml"
"""The layout by which the entries were read, so that they can be taken in without naming it again."""


class Note(msgspec.Struct):
    """What `finding.json` says: the SHA-256 of the data file as it was put aside, and what is wrong with it."""

    sha256: str
    findings: list[Finding]


class Entry(msgspec.Struct):
    """One folder in the quarantine and what is wrong with it."""

    folder: str
    findings: list[Finding]


class Quarantine:
    """The quarantine of the archive under `root`."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self._archive = root
        self._layout = layout
        self.root = root / QUARANTINE

    def put(self, folder: str, findings: Sequence[Finding]) -> None:
        """Copies a folder's files. What is there already with the same bytes stays; what differs is kept beside it."""
        source = self._archive / folder
        try:
            files = {
                name: (source / name).read_bytes()
                for name in (self._layout.data, self._layout.meta)
                if (source / name).is_file() and not (source / name).is_symlink()
            }
            self._put(self.root / (folder or "_"), files, findings)
        except OSError as error:
            raise StorageFailed(str(source), "putting it into the quarantine", str(error)) from error

    def remember(self, text: str) -> None:
        """Keeps the layout, in TOML, if anything was put here."""
        try:
            if self.root.is_dir():
                _write(self.root / LAYOUT, text.encode())
        except OSError as error:
            raise StorageFailed(str(self.root), "noting the layout", str(error)) from error

    def put_row(self, key: str, data: bytes, findings: Sequence[Finding]) -> None:
        """Keeps a row of the table, as a data file in a folder of the database's name and its key."""
        assert self._layout.table is not None
        place = (
            self.root / self._layout.table.database / (encode_name(key.encode("utf-8", "backslashreplace").decode()))
        )
        try:
            self._put(place, {self._layout.data: data}, findings)
        except OSError as error:
            raise StorageFailed(str(place), "putting a row into the quarantine", str(error)) from error

    def _put(self, place: Path, files: dict[str, bytes], findings: Sequence[Finding]) -> None:
        data = files.get(self._layout.data)
        note = Note(sha256(data or b"").hexdigest(), list(findings))
        files[FINDING] = msgspec.json.format(msgspec.json.encode(note), indent=2) + b"\n"
        stands = place / self._layout.data
        if data is not None and stands.exists() and stands.read_bytes() != data:
            place = place.with_name(f"{place.name}~{sha256(data).hexdigest()[:8]}")
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(place / name, content)

    def sync(self) -> None:
        """Returns once everything that was put is durable."""
        for directory, _, names in os.walk(self.root):
            for name in [*(Path(directory) / name for name in names), Path(directory)]:
                sync_file(name)

    def entries(self) -> Iterator[Entry]:
        """What is in the quarantine, by folder."""
        if not self.root.is_dir():
            return
        for directory, below, names in os.walk(self.root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if FINDING in names:
                path = Path(directory)
                try:
                    findings = _note(path).findings
                except (OSError, msgspec.DecodeError) as error:
                    findings = [Finding("unreadable", str(error), file=FINDING)]
                yield Entry(path.relative_to(self.root).as_posix(), findings)

    def is_corrected(self, folder: str) -> bool:
        """Whether the data file of an entry is another than the one that was put aside."""
        place = self.root / folder
        try:
            return sha256((place / self._layout.data).read_bytes()).hexdigest() != _note(place).sha256
        except (OSError, msgspec.DecodeError):
            return False

    def release(self, folder: str) -> None:
        """Moves an entry to those that were adopted."""
        source, target = self.root / folder, self.root / ADOPTED / folder
        try:
            number = 1
            while target.exists():
                number += 1
                target = self.root / ADOPTED / f"{folder}~{number}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)
        except OSError as error:
            raise StorageFailed(str(source), "moving it out of the quarantine", str(error)) from error


def _note(place: Path) -> Note:
    return msgspec.json.decode((place / FINDING).read_bytes(), type=Note)


def _write(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    beside = path.with_name(path.name + ".partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
