"""Files that people edited: found before anything is written over them, and put aside.

A data file is an edit when it has another hash than every writing of it that is known: the one in the index, the one in
meta.json, and, after a crash, the one that was about to be published. Before such a file is replaced or removed it gets
the name `data.csv.edited-HASH8`, byte for byte, and the meta.json that says what it was made of is kept beside it under
`meta.json.edited-HASH8`; so it can still be adopted as an edit of what its author had seen. An empty file is none:
a full disk or a power cut leaves such files, and there is nothing in them to lose.

So every file that refold wrote has to be vouched for at every moment, however many crashes follow each other. In a
folder, the new meta.json lies under its temporary name before the first data file is published, and gets its own after
the last one was published or removed: whatever stands there is what the old one or the new one says. After a crash
such a publishing is brought to its end before anything else is written there, since another meta.json that is begun
would take the place of the only one that tells of files which are out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice

import msgspec

from .blocks import BLOCK
from .content import META, is_ours, read_meta
from .disk import EDITED, TEMPORARY, Disk
from .index import Folder, Index

_PAGE = 500
_EMPTY = sha256().digest()


class Edit(msgspec.Struct, frozen=True):
    """A file that somebody edited: in which folder, of which collection; `aside` under its own name, else in place."""

    folder: str
    file: str
    collection: str
    hash: str
    aside: str | None = None

    @property
    def standing(self) -> str:
        """The name it has now."""
        return self.aside or self.file

    @property
    def meta(self) -> str:
        """The name of the meta.json that says what it was made of."""
        return META if self.aside is None else f"{META}{EDITED}{self.aside.rpartition(EDITED)[2]}"


def hash_of(disk: Disk, place: str, name: str) -> bytes | None:
    """The hash of a whole file; None when it is not there."""
    digest, offset = sha256(), 0
    while data := disk.read(place, name, offset, BLOCK):
        digest.update(data)
        offset += len(data)
        if len(data) < BLOCK:
            break
    return digest.digest() if data is not None else None


def _meta_hashes(disk: Disk, place: str, name: str) -> dict[str, bytes]:
    meta = read_meta(disk.read(place, name))
    try:
        return {file.file: bytes.fromhex(file.sha256) for file in meta.collections.values()} if meta is not None else {}
    except ValueError:
        return {}


def is_data(name: str) -> bool:
    """Whether a name is that of a file of records."""
    return is_ours(name) and name.endswith(".csv")


class _Begun(msgspec.Struct):
    """A publishing that a crash cut short: the files that are to be published still, those to be removed, and the
    hashes of all that refold wrote there."""

    place: str
    publish: list[str]
    remove: list[str]
    known: list[bytes]


class Sparing:
    """Sees to it that no edit is written over or removed."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def settle(self, folders: Iterable[tuple[str, Iterable[bytes]]]) -> None:
        """Ends the publishings that a crash cut short, in folders of which these hashes are known.

        Data files that lie ready are published, those that are to go removed, and meta.json follows, each durable
        before the next. A file that is none of those that were written is put aside first.
        """
        begun = [found for place, known in folders if (found := self._begun(place, known)) is not None]
        if not begun:
            return
        self._disk.sync()
        for found in begun:
            self.spare(found.place, [*found.publish, *found.remove], found.known)
            self._disk.publish(found.place, found.publish)
            self._disk.remove(found.place, found.remove)
        self._disk.sync()
        for found in begun:
            self._disk.publish(found.place, [META])
        self._disk.sync()

    def _begun(self, place: str, known: Iterable[bytes]) -> _Begun | None:
        """The publishing that was begun in a folder: files are out of which only the new meta.json tells."""
        pending = _meta_hashes(self._disk, place, META + TEMPORARY)
        if not pending:
            return None
        told = _meta_hashes(self._disk, place, META)
        stand = {name: hash_of(self._disk, place, name) for name in pending}
        if not any(stand[name] == digest != told.get(name) for name, digest in pending.items()):
            return None
        ready = {name: hash_of(self._disk, place, name + TEMPORARY) for name in pending}
        publish = [name for name, digest in pending.items() if stand[name] != digest == ready[name]]
        remove = [name for name in told if name not in pending and is_data(name)]
        return _Begun(place, publish, remove, [*known, *told.values(), *pending.values()])

    def spare(self, place: str, names: Iterable[str], known: Iterable[bytes], *, unknown: bool = True) -> list[str]:
        """Puts those of some files aside that are edits; their new names.

        `known` are hashes of what was or will be written. `unknown` files, of which nothing is known, are edits or not.
        """
        spared: list[str] = []
        chosen = [name for name in names if is_data(name)]
        if not chosen:
            return spared
        hashes = {*known}
        told: dict[str, bytes] | None = None
        for name in chosen:
            found = hash_of(self._disk, place, name)
            if found is None or found == _EMPTY or found in hashes:
                continue
            told = told if told is not None else _meta_hashes(self._disk, place, META)
            if told.get(name) == found or (name not in told and not hashes and not unknown):
                continue
            spared.append(self.put_aside(place, name, found))
        return spared

    def put_aside(self, place: str, name: str, digest: bytes) -> str:
        """Renames an edit, with a copy of the meta.json that it was made of; its new name."""
        short = digest.hex()[:8]
        if self._disk.read(place, f"{name}{EDITED}{short}", 0, 1) is not None:
            standing = hash_of(self._disk, place, f"{name}{EDITED}{short}")
            short = short if standing == digest else digest.hex()
        meta = self._disk.read(place, META)
        kept = f"{META}{EDITED}{short}"
        if meta is not None and self._disk.read(place, kept, 0, 1) is None:
            self._disk.write(place, [(kept, meta)], compare=False)
            self._disk.publish(place, [kept])
        self._disk.rename(place, name, f"{name}{EDITED}{short}")
        return f"{name}{EDITED}{short}"


def find_edits(index: Index, disk: Disk, places: Sequence[str] | None = None, *, sure: bool = True) -> Iterator[Edit]:
    """Every edit, in place or put aside, in some folders or in all.

    Unless it must be `sure`, a file of the size that was written, and no younger than its meta.json, is not read.
    """
    walk = iter([(place, disk.names(place)) for place in places]) if places is not None else disk.walk()
    while page := list(islice(walk, _PAGE)):
        folders = index.standing([place for place, _ in page])
        for place, names in page:
            yield from _aside(disk, place, names)
            folder = folders.get(place)
            if folder is not None and not folder.dirt:
                yield from _standing(disk, place, names, folder, sure=sure)


def _standing(disk: Disk, place: str, names: list[str], folder: Folder, *, sure: bool) -> Iterator[Edit]:
    written = folder.written
    files = [(name, file) for name, file in written.data.items() if file.name in names] if written is not None else []
    if not files:
        return
    stats = disk.stats(place, [META, *(file.name for _, file in files)]) if not sure else {}
    for collection, file in files:
        size, age = stats.get(file.name, (-1, 0))
        if size == file.size and age <= stats.get(META, (0, -1))[1]:
            continue
        found = hash_of(disk, place, file.name)
        if found is not None and found != file.hash:
            yield Edit(place, file.name, collection, found.hex())


def _aside(disk: Disk, place: str, names: list[str]) -> Iterator[Edit]:
    for name in sorted(names):
        original = name.partition(EDITED)[0]
        if EDITED not in name or not is_data(original) or name.endswith(TEMPORARY):
            continue
        edit = Edit(place, original, "", "", name)
        meta = read_meta(disk.read(place, edit.meta))
        found = [one for one, file in meta.collections.items() if file.file == original] if meta is not None else []
        digest = hash_of(disk, place, name)
        yield Edit(place, original, found[0] if found else "", digest.hex() if digest is not None else "", name)
