"""Folders against what was written to them: each file is read and hashed once, and the hashes are in the index.

The walk over the directories finds the folders that are there, so what the index lacks is a stray, and what it has
beyond them is missing. Only where a hash does not fit is a file looked at row by row.

The meta.json of each folder remembers the newest event of every replica there. So the folders are witnesses of the log:
of an end that was cut off, and of a history that was written anew.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterable, Iterator
from hashlib import sha256
from itertools import islice, takewhile, zip_longest

from refold.events import Head
from refold.ports import Changelog
from refold.queries import hashes
from refold.values import show
from refold.verdict import Finding
from refold.verify import Claim, Testimony
from refold_adapters.csv_cells import CsvError, CsvReader, Row

from .blocks import BLOCK, BlockHash
from .content import EVENTS, META, Meta, names_in, read_meta
from .disk import Disk
from .index import File, Folder, Index, Written
from .reading import FoundEvent, read_folder
from .render import Renderer

_PAGE = 500

PIECE = 500
"""Folders that are one piece."""

STRAYS = "strays"


class Verification:
    """One pass over all folders. `current` is the position at which the tables stand, if the folders do so too.

    Every event stands in exactly one folder, so that many is what all of them must hold.
    """

    def __init__(self, index: Index, disk: Disk, renderer: Renderer, log: Changelog, *, current: int | None) -> None:
        self._index = index
        self._log = log
        self._disk = disk
        self._renderer = renderer
        self._current = current
        self._events_seen = 0

    def run(self) -> Iterator[Finding]:
        """Everything that differs."""
        seen = self._events_seen = 0
        walk = self._disk.walk()
        testimony = Testimony(self._log.heads())
        while page := list(islice(walk, _PAGE)):
            folders = self._index.standing([place for place, _ in page])
            claims: list[Claim] = []
            for place, names in page:
                folder = folders.get(place)
                meta: Meta | Written | None = None
                if folder is None:
                    meta = yield from self._stray(place, names)
                else:
                    seen += 1
                    intact = yield from self._folder(folder)
                    meta = folder.written if intact else read_meta(self._disk.read(place, META))
                claims += claims_of(place, meta)
            self._hold(testimony, claims)
        yield from testimony.findings()
        if seen < self._index.count():
            yield from self._missing()
        yield from self._incomplete()

    def pieces(self) -> list[str]:
        """The names of the pieces in which all folders can be looked at: runs of them, and what stands elsewhere."""
        return [STRAYS, *(str(start) for start in range(0, self._index.newest(), PIECE))]

    def piece(self, name: str) -> Iterator[Finding]:
        """Everything that differs in one piece."""
        if name == STRAYS:
            yield from self._strays()
            return
        testimony = Testimony(self._log.heads())
        start = int(name)
        for folder in takewhile(lambda folder: folder.id <= start + PIECE, self._index.all_folders(start)):
            intact = yield from self._folder(folder)
            if folder.stands is not None:
                meta = folder.written if intact else read_meta(self._disk.read(folder.stands, META))
                self._hold(testimony, claims_of(folder.stands, meta))
        yield from testimony.findings()

    def _strays(self) -> Iterator[Finding]:
        """What stands where no folder is, and whether all folders together hold all events."""
        testimony = Testimony(self._log.heads())
        walk = self._disk.walk()
        while page := list(islice(walk, _PAGE)):
            folders = self._index.standing([place for place, _ in page])
            for place, names in page:
                if place not in folders:
                    meta = yield from self._stray(place, names)
                    self._hold(testimony, claims_of(place, meta))
        yield from testimony.findings()
        self._events_seen = sum(one.written.count for one in self._index.all_folders() if one.written is not None)
        yield from self._incomplete()

    def _incomplete(self) -> Iterator[Finding]:
        if self._current is not None and self._events_seen != self._current:
            detail = f"together the folders hold {self._events_seen} events, the log {self._current}"
            yield Finding("folders-incomplete", detail)

    def _hold(self, testimony: Testimony, claims: list[Claim]) -> None:
        older = testimony.hear(claims)
        dots = list({(claim.replica, claim.head.seq) for claim in older})
        if older:
            testimony.compare(older, hashes(dots, self._log))

    def _stray(self, place: str, names: list[str]) -> Generator[Finding, None, Meta | None]:
        meta = read_meta(self._disk.read(place, META)) if META in names else None
        if meta is not None or EVENTS in names:
            for name in sorted(names_in(meta).intersection(names)):
                yield Finding("folder-stray", "no record lives here", folder=place, file=name)
        return meta

    def _missing(self) -> Iterator[Finding]:
        for folder in self._index.all_folders():
            if folder.stands is not None and self._disk.read(folder.stands, META, 0, 1) is None:
                yield from self._folder(folder)

    def _folder(self, folder: Folder) -> Generator[Finding, None, bool]:
        """What differs in one folder; whether its files are surely those that were written."""
        written, place = folder.written, folder.stands
        self._events_seen += written.count if written is not None else 0
        if written is None or place is None or folder.dirt:
            return False
        if self._is_intact(place, written):
            return True
        for collection, file in written.data.items():
            finding = self._file(place, file)
            if finding is not None and finding.kind == "folder-altered" and self._current is not None:
                finding = self._first_row(folder, collection, finding)
            if finding is not None:
                yield finding
        finding = self._file(place, written.meta)
        if finding is not None:
            yield finding
        yield from self._events(place, File(EVENTS, written.size, written.hash))
        return False

    def _is_intact(self, place: str, written: Written) -> bool:
        """Whether all files, if they are small, are what was written: the question asked most, in the fewest calls."""
        files = [*written.data.values(), written.meta, File(EVENTS, written.size, written.hash)]
        if any(file.size >= BLOCK for file in files):
            return False
        found = self._disk.read_all(place, [(file.name, file.size + 1) for file in files])
        if found is None:
            return False
        return all(sha256(data).digest() == file.hash for file, data in zip(files, found, strict=True))

    def _file(self, place: str, file: File) -> Finding | None:
        if file.size < BLOCK:
            data = self._disk.read(place, file.name, 0, file.size + 1)
            if data is not None and sha256(data).digest() == file.hash:
                return None
        else:
            digest, offset, data = sha256(), 0, b""
            while data := self._disk.read(place, file.name, offset, BLOCK):
                digest.update(data)
                offset += len(data)
            if digest.digest() == file.hash:
                return None
        if data is None:
            return Finding("folder-missing", "it was written here", folder=place, file=file.name)
        return Finding("folder-altered", "its hash is not the one it was written with", folder=place, file=file.name)

    def _events(self, place: str, file: File) -> Iterator[Finding]:
        digest, offset = BlockHash(), 0
        while offset <= file.size:
            data = self._disk.read(place, EVENTS, offset, min(BLOCK, file.size - offset + 1))
            if data is None:
                yield Finding("folder-missing", "it was written here", folder=place, file=EVENTS)
                return
            if not data:
                break
            digest.update(data[: file.size - offset])
            offset += len(data)
        if digest.digest() != file.hash:
            yield self._first_line(place)
        elif offset > file.size:
            yield Finding("folder-torn", f"bytes stand beyond the {file.size} that count", folder=place, file=EVENTS)

    def _first_line(self, place: str) -> Finding:
        for found in read_folder(self._disk, place, read_meta(self._disk.read(place, META))):
            if not isinstance(found, FoundEvent):
                return found
        return Finding("folder-altered", "its lines are not those that were written", folder=place, file=EVENTS)

    def _first_row(self, folder: Folder, collection: str, finding: Finding) -> Finding:
        """The finding with the first row that differs, counted from the header as 1."""
        sheet = self._renderer.sheet(collection)
        if sheet is None or finding.folder is None or finding.file is None:
            return finding
        wanted = _rows(piece.decode() for piece, _ in self._renderer.pages(folder, collection, sheet))
        for have, want in zip_longest(_rows(_text(self._disk, finding.folder, finding.file)), wanted):
            if isinstance(have, CsvError):
                detail, number = have.why, have.row
            elif want is None or isinstance(want, CsvError):
                detail, number = "it is one too many", have.number if have else 0
            elif have is None:
                detail, number = "it is missing", want.number
            elif have.cells != want.cells:
                detail, number = f"it has {_difference(have, want)}", have.number
            else:
                continue
            return Finding(
                "folder-altered", detail, collection=collection, folder=finding.folder, file=finding.file, row=number
            )
        return finding


def claims_of(place: str, meta: Meta | Written | None) -> list[Claim]:
    """What a folder remembers of each replica."""
    if meta is None:
        return []
    witness = f"{place}/{META}" if place else META
    if isinstance(meta, Written):
        return [Claim(witness, replica, head) for replica, head in meta.vector.items()]
    try:
        heads = {replica: Head(head.seq, bytes.fromhex(head.hash)) for replica, head in meta.vector.items()}
    except ValueError:
        return []
    return [Claim(witness, replica, head) for replica, head in heads.items() if len(head.hash) == 32]


def _rows(pieces: Iterable[str]) -> Iterator[Row | CsvError]:
    reader = CsvReader()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.close()


def _text(disk: Disk, place: str, name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offset = 0
    while data := disk.read(place, name, offset, BLOCK):
        offset += len(data)
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def _difference(have: Row, want: Row) -> str:
    for index, (one, other) in enumerate(zip_longest(have.cells, want.cells), 1):
        if one != other:
            return f"{show(one)} in column {index}, and not {show(other)}"
    return "other cells"
