"""What has to be written so that a folder holds its records: many small folders at once, or a large one in a stream.

Small folders are rendered in memory, hundreds at a time, from a constant number of queries. A folder with more records
or events than that allows is streamed: its rows by pages, its events through a sort on disk. Both give the same bytes.

events.jsonl is appended to when all that is new sorts behind what is there; otherwise it is written anew. What the
index says of it is believed only if the hash of its last block still fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any

import msgspec

from refold.events import Event, Head
from refold.fold import State
from refold.ports import Record
from refold.schema import Schema

from .blocks import BLOCK, BlockHash, tail_start
from .content import EVENTS, META, Sheet, data_names, every_data_name, is_ours, meta_json, names_in, read_meta
from .disk import EDITED, TEMPORARY, Disk
from .index import PART, UNSURE, File, Folder, Index, Written
from .lines import line_of
from .sorter import Entry, Sorter
from .source import Source

MANY_RECORDS = 4000
"""Records of one batch whose states are held in memory."""

MANY_EVENTS = 20_000
"""Events of one batch that are held in memory."""


class Run(msgspec.Struct):
    """What is known of the records that a run of events touches, so that it need not be asked for again.

    `touched` holds those of each folder that had them before or has them now, and whether all their events are new to
    it. `events` are those of the run; of the records that are `complete` there are none beyond it, and of those that
    are `unknown` none were before. The run ends at position `end`, the snapshot it is rendered from at `snapshot`.
    """

    end: int = 0
    snapshot: int = 0
    complete: set[Record] = set()
    touched: dict[int, dict[Record, bool]] = {}
    states: dict[Record, State] = {}
    events: dict[Record, list[Event]] = {}
    unknown: set[Record] = set()


class TooMany(Exception):
    """The folders of a batch have more events than memory is to hold."""


class Rendered(msgspec.Struct):
    """A folder's files as they have to be written.

    `position` is how far the log is in it: a folder written whole holds all of the snapshot, one that was appended to
    holds what its run brought, since other records of its own may have newer events whose turn is still to come.
    `done` names those that were streamed already; `append` is what comes at the end of events.jsonl, from which size.
    """

    folder: Folder
    position: int
    written: Written
    files: list[tuple[str, bytes]]
    append: tuple[int, bytes] | None = None
    done: list[str] = []


class Tail:
    """The end of an events.jsonl, growing: everything meta.json has to say of it."""

    def __init__(self, written: Written | None = None, block: bytes = b"") -> None:
        self.hash = BlockHash(written.upper, block, written.size) if written else BlockHash()
        self.count = written.count if written else 0
        self.last = written.last if written else (0, "", 0)
        self.vector = dict(written.vector) if written else {}

    def add(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        """The lines of entries, which come in order, each once it has been counted in."""
        for time, replica, seq, digest, line in entries:
            self.hash.update(line)
            self.count += 1
            self.last = time, replica, seq
            head = self.vector.get(replica)
            if head is None or head.seq < seq:
                self.vector[replica] = Head(seq, digest)
            yield line

    def written(
        self, path: str, data: Mapping[str, tuple[File, int]], more: Mapping[str, Any]
    ) -> tuple[Written, bytes]:
        """What stands in the folder, and meta.json, which says so."""
        digest = self.hash.digest()
        meta = meta_json(path, data, (self.count, self.hash.size, digest), self.last[0], self.vector, more)
        return Written(
            {name: file for name, (file, _) in data.items()},
            File(META, len(meta), sha256(meta).digest()),
            self.hash.size,
            self.count,
            digest,
            self.hash.upper,
            self.last,
            self.vector,
        ), meta


def entry_of(event: Event) -> Entry:
    """An event as it is sorted, and its line."""
    digest = event.hash
    return event.time, event.replica, event.seq, digest, line_of(event, digest)


def trusted(folder: Folder) -> Written | None:
    """What stands in the folder, if the index can be believed."""
    return folder.written if folder.dirt < UNSURE and folder.stands == folder.place else None


class Renderer:
    """Makes the files of folders from the index, the log and the tables."""

    def __init__(self, index: Index, source: Source, disk: Disk) -> None:
        self._index = index
        self._source = source
        self._disk = disk
        self._sheets: dict[str, tuple[Schema, Sheet]] = {}

    def sheet(self, collection: str) -> Sheet | None:
        """How the records of a collection become CSV; None while it is not defined."""
        schema = self._source.schemas.get(collection)
        if schema is None:
            return None
        known = self._sheets.get(collection)
        if known is None or known[0] is not schema:
            known = self._sheets[collection] = schema, Sheet(schema)
        return known[1]

    def small(self, folders: Sequence[Folder], run: Run) -> list[Rendered]:
        """Renders folders in memory. Raises `TooMany`."""
        members = self._index.members([folder.id for folder in folders])
        tails = {folder.id: tail for folder in folders if (tail := self._tail(folder, run))}
        grown = [folder for folder in folders if folder.id in tails]
        fresh = self._news(grown, run)
        for folder in grown:
            if fresh[folder.id] and fresh[folder.id][0][:3] <= tails[folder.id].last:
                del tails[folder.id]
        whole = [folder for folder in folders if folder.id not in tails]
        fresh.update(self._histories({folder.id: members[folder.id] for folder in whole}, run))
        states = self._states(members, run)
        return [
            self._render(folder, run, self._data(members[folder.id], states), tails.get(folder.id), fresh[folder.id])
            for folder in folders
        ]

    def _tail(self, folder: Folder, run: Run) -> Tail | None:
        """Where events.jsonl goes on; None where it has to be written anew."""
        written = trusted(folder)
        if written is None or folder.dirt != PART or folder.id not in run.touched:
            return None
        start = tail_start(written.size)
        block = self._disk.read(folder.place, EVENTS, start, BLOCK)
        if block is None or len(block) < written.size - start:
            return None
        tail = Tail(written, block[: written.size - start])
        return tail if tail.hash.digest() == written.hash else None

    def _positions(self, groups: Iterable[tuple[Sequence[Record], int]]) -> list[int]:
        positions: set[int] = set()
        for records, after in groups:
            positions.update(self._source.history(records, after))
            if len(positions) > MANY_EVENTS:
                raise TooMany
        return sorted(positions)

    def _states(self, members: Mapping[int, Sequence[Record]], run: Run) -> Mapping[Record, State]:
        wanted = [record for records in members.values() for record in records if record not in run.states]
        return {**run.states, **self._source.states(wanted)} if wanted else run.states

    def _news(self, folders: Sequence[Folder], run: Run) -> dict[int, list[Entry]]:
        """The events that came to folders since they were written, in order."""
        homes = {record: folder for folder in folders for record in run.touched[folder.id]}
        joined = {record for record, folder in homes.items() if run.touched[folder.id][record]}
        given = {record for record in homes.keys() & run.complete if record not in joined or record in run.unknown}
        oldest = min((folder.position for folder in folders), default=0)
        positions = self._positions([([*joined - given], 0), ([*homes.keys() - joined - given], oldest)])
        found: dict[int, list[Entry]] = {folder.id: [] for folder in folders}
        for page in chain((run.events[record] for record in given), self._source.events(positions)):
            for event in page:
                folder = homes[event.record]
                after = 0 if event.record in joined else folder.position
                if after < event.position <= max(run.end, folder.position):
                    found[folder.id].append(entry_of(event))
        for entries in found.values():
            entries.sort()
        return found

    def _histories(self, members: Mapping[int, Sequence[Record]], run: Run) -> dict[int, list[Entry]]:
        """All events of the records of folders, in order."""
        homes = {record: folder for folder, records in members.items() for record in records}
        given = [record for record in homes if record in run.unknown and record in run.complete]
        asked = list(homes.keys() - set(given))
        found: dict[int, list[Entry]] = {folder: [] for folder in members}
        positions = self._positions([(asked, 0)])
        for page in chain((run.events[record] for record in given), self._source.events(positions)):
            for event in page:
                found[homes[event.collection, event.key]].append(entry_of(event))
        for entries in found.values():
            if len(entries) > 1:
                entries.sort()
        return found

    def _data(
        self, records: Sequence[Record], states: Mapping[Record, State]
    ) -> dict[str, tuple[Sheet, list[Mapping[str, Any]]]]:
        """The records that are there, by collection and in the order of their keys."""
        keys: dict[str, list[str]] = {}
        for collection, key in records:
            if key:
                keys.setdefault(collection, []).append(key)
        data: dict[str, tuple[Sheet, list[Mapping[str, Any]]]] = {}
        for collection in sorted(keys):
            sheet = self.sheet(collection)
            if sheet is not None:
                ordered = sorted(keys[collection], key=sheet.order)
                data[collection] = sheet, list(self._present(collection, ordered, states))
        return data

    def _present(
        self, collection: str, keys: Iterable[str], states: Mapping[Record, State]
    ) -> Iterator[Mapping[str, Any]]:
        for key in keys:
            record = collection, key
            values, present = self._source.settled(record, states[record])
            if present:
                yield values
            yield from self._source.branches(record, states[record])

    def _render(
        self,
        folder: Folder,
        run: Run,
        data: Mapping[str, tuple[Sheet, list[Mapping[str, Any]]]],
        tail: Tail | None,
        entries: Sequence[Entry],
    ) -> Rendered:
        names = data_names(list(data))
        files: list[tuple[str, bytes]] = []
        described: dict[str, tuple[File, int]] = {}
        more: dict[str, Any] = {}
        old = trusted(folder)
        for collection, (sheet, records) in data.items():
            more = more or sheet.more(records[0] if records else None)
            if sheet.absent and not records:
                continue
            text = sheet.header + sheet.rows(records)
            file = File(names[collection], len(text), sha256(text).digest())
            described[collection] = file, len(records)
            if old is None or old.data.get(collection) != file:
                files.append((file.name, text))
        append, position = None, run.snapshot
        if tail is not None:
            position = max(run.end, folder.position)
            lines = b"".join(tail.add(entries))
            append = (tail.hash.size - len(lines), lines) if lines else None
        else:
            tail = Tail()
            lines = b"".join(tail.add(entries))
            if old is None or (old.size, old.hash) != (len(lines), tail.hash.digest()):
                files.append((EVENTS, lines))
        written, meta = tail.written(folder.path, described, more)
        if old is None or old.meta != written.meta:
            files.append((META, meta))
        return Rendered(folder, position, written, files, append)

    def large(self, folder: Folder, run: Run) -> Rendered:
        """Renders one folder of any size: its large files are on the disk when this returns, but for their names."""
        described, done = {}, []
        more: dict[str, Any] = {}
        names = data_names([name for name in self._index.collections_in(folder.id) if self._has_sheet(folder, name)])
        old = trusted(folder)
        for collection, name in names.items():
            file, records = self._stream_data(folder, collection, name)
            more = more or self._more(folder, collection)
            if not records and self._is_absent(collection):
                self._disk.remove(folder.place, [name + TEMPORARY])
                continue
            described[collection] = file, records
            if old is None or old.data.get(collection) != file:
                done.append(name)
            else:
                self._disk.remove(folder.place, [name + TEMPORARY])
        tail = self._tail(folder, run)
        append, position = None, run.snapshot
        if tail is not None:
            position = max(run.end, folder.position)
            try:
                entries = self._news([folder], run)[folder.id]
                if not entries or entries[0][:3] > tail.last:
                    lines = b"".join(tail.add(entries))
                    append = (tail.hash.size - len(lines), lines) if lines else None
                else:
                    tail = None
            except TooMany:
                tail = None
        if tail is None:
            position = run.snapshot
            tail = self._stream_events(folder)
            if old is None or (old.size, old.hash) != (tail.hash.size, tail.hash.digest()):
                done.append(EVENTS)
            else:
                self._disk.remove(folder.place, [EVENTS + TEMPORARY])
        written, meta = tail.written(folder.path, described, more)
        files = [(META, meta)] if old is None or old.meta != written.meta else []
        return Rendered(folder, position, written, files, append, done)

    def _more(self, folder: Folder, collection: str) -> dict[str, Any]:
        """What meta.json has besides, of a folder too large to be held."""
        sheet = self.sheet(collection)
        assert sheet is not None
        for page in self._index.keys_in(folder.id, collection, numeric=sheet.numeric):
            keys = [key for key in page if key]
            states = self._source.states([(collection, key) for key in keys])
            for values in self._present(collection, keys, states):
                return sheet.more(values)
        return sheet.more(None)

    def _is_absent(self, collection: str) -> bool:
        sheet = self.sheet(collection)
        return sheet is not None and sheet.absent

    def _has_sheet(self, folder: Folder, collection: str) -> bool:
        """Whether records, and not just a definition, of a collection that is defined are in a folder."""
        if self.sheet(collection) is None:
            return False
        return any(key for page in self._index.keys_in(folder.id, collection, numeric=False) for key in page[:2])

    def _stream_data(self, folder: Folder, collection: str, name: str) -> tuple[File, int]:
        sheet = self.sheet(collection)
        assert sheet is not None
        digest, size, records = sha256(), 0, 0

        def chunks() -> Iterator[bytes]:
            nonlocal size, records
            for chunk in self.pages(folder, collection, sheet):
                records += chunk[1]
                digest.update(chunk[0])
                size += len(chunk[0])
                yield chunk[0]

        self._disk.stream(folder.place, name, chunks())
        return File(name, size, digest.digest()), records

    def pages(self, folder: Folder, collection: str, sheet: Sheet) -> Iterator[tuple[bytes, int]]:
        """The file of one collection in pieces, with the number of records in each; the first is the header."""
        yield sheet.header, 0
        for page in self._index.keys_in(folder.id, collection, numeric=sheet.numeric):
            keys = [key for key in page if key]
            states = self._source.states([(collection, key) for key in keys])
            present = list(self._present(collection, keys, states))
            yield sheet.rows(present), len(present)

    def _stream_events(self, folder: Folder) -> Tail:
        tail = Tail()
        with Sorter() as sorter:
            for collection in self._index.collections_in(folder.id):
                for keys in self._index.keys_in(folder.id, collection, numeric=False):
                    positions = self._source.history([(collection, key) for key in keys])
                    for page in self._source.events(positions):
                        sorter.put(map(entry_of, page))
            self._disk.stream(folder.place, EVENTS, tail.add(sorter.sorted()))
        return tail


def stale_names(disk: Disk, index: Index, folder: Folder, written: Written) -> list[str]:
    """The files that stand in a folder from earlier and belong there no more, unfinished ones included."""
    old = trusted(folder)
    kept = {META, EVENTS, *(file.name for file in written.data.values())}
    if old is not None:
        return sorted({file.name for file in old.data.values()} - kept)
    names = names_in(read_meta(disk.read(folder.place, META)))
    if folder.written is not None:
        names.update(file.name for file in folder.written.data.values())
    if folder.dirt >= UNSURE:
        names.update(unfinished_names(disk, folder.place), abandoned_names(disk, index, folder.place))
    return sorted(names - kept)


def unfinished_names(disk: Disk, place: str) -> list[str]:
    """The files that were begun in a folder and never finished."""
    begun = [name for name in disk.names(place) if name.endswith(TEMPORARY)]
    return [name for name in begun if is_ours(name.removesuffix(TEMPORARY).partition(EDITED)[0])]


def abandoned_names(disk: Disk, index: Index, place: str) -> set[str]:
    """The files of collections in a folder, also of those that have left it: a crash can come between the meta.json
    that does not name their file any more and its removal."""
    return every_data_name(index.collections()).intersection(disk.names(place))
