"""The folders as a projection of the log.

`apply` has two halves. The first moves records between folders in the index and puts every folder that is touched on
the list of work, in one durable transaction. The second works the list off: some hundred folders are rendered while
those before them are being made durable, one sync for each such batch, and only what is durable leaves the list. So a
crash at any point leaves a list that names everything that may be half done, and the next `apply` starts with that.

In each round one `syncfs` covers two batches: it makes the temporaries of the newer durable, and the renames of the
one before it. In a folder that a crash left, meta.json is renamed a round after the data files, since the index may not
know what stands there (see `edits.py`). The tables may be ahead of the run, and so may what is written; the index notes
up to which position records are routed, and events up to there are passed over when their turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from refold.errors import ProjectionFailed, StorageFailed
from refold.events import Checkpoint, Event, Kind
from refold.ports import Record
from refold.replay import events_after
from refold.verdict import FINDINGS_LIMIT, Finding

from .comparing import Comparison
from .content import META, names_in, read_meta
from .disk import EDITED, INDEX, TEMPORARY, Disk, PosixDisk
from .edits import Edit, Sparing, find_edits, hash_of
from .index import PART, REWRITE, UNSURE, WHOLE, Folder, Index, Written
from .render import MANY_RECORDS, Rendered, Renderer, Run, TooMany, abandoned_names, stale_names, unfinished_names
from .source import ReadLog, SnapshotTables, Source
from .verify import STRAYS, Verification

T = TypeVar("T")

BATCH = 500
"""Folders that are made durable together."""

_PAGE = 5000
"""Records that are routed together, in the order of their folders: neighbours on the disk are then written together."""

_REMEMBERED = 5000
"""Records whose states are remembered from routing them until their folders are written."""

_WORTH = 4
LOOK_AHEAD = 250_000
"""A run of events that makes many records be written which it does not touch (`_WORTH` times as many as it has events)
is extended by those that follow it, at most so many: a folder that each of them touches is then written once."""

MANY_FOLDERS = 40_000
"""Folders that a run touches, beyond which it is not extended: what is known of them is kept in memory."""


class _Coming(msgspec.Struct):
    """What is to be published and removed in a folder, by name, and hashes that data files there may have without being
    edits. `apart` says that meta.json follows when the others are durable."""

    place: str
    names: list[str]
    stale: list[str]
    known: list[bytes]
    apart: bool


class _Batch(msgspec.Struct):
    """Folders on their way: written, then published, then noted."""

    rendered: list[Rendered]
    coming: list[_Coming] = []


class FolderReplicas:
    """A data.csv, meta.json and events.jsonl in every folder that has records. Implements `Projection`.

    Plain blocking calls, for a thread of their own; `log` and `tables` belong to that thread too, and only read.
    """

    name = "folders"

    def __init__(
        self,
        root: Path,
        log: ReadLog,
        tables: SnapshotTables,
        *,
        disk: Disk | None = None,
        batch: int = BATCH,
        readonly: bool = False,
    ) -> None:
        self.root = root
        self._batch = batch
        self._own_disk = PosixDisk(root) if disk is None else None
        self._disk: Disk = disk or self._own_disk  # type: ignore[assignment]
        self._source = Source(log, tables)
        self._index = Index(root / INDEX, readonly=readonly)
        self._renderer = Renderer(self._index, self._source, self._disk)
        self._sparing = Sparing(self._disk)
        self._left_over = True

    def checkpoint(self) -> Checkpoint:
        """See `Projection.checkpoint`."""
        return self._index.checkpoint()

    def reset(self) -> None:
        """See `Projection.reset`. Files stay, and are compared with what is to be written."""
        self._index.reset()

    def verify(self) -> list[Finding]:
        """See `Projection.verify`. Kinds: `folder-altered`, `folder-missing`, `folder-stray`, `folder-torn`,
        `folders-incomplete` when events are in no folder, and `folders-behind` when there is work left over that the
        next `apply` will do.
        """
        found = self._verified(Verification.run)
        if waiting := self._index.dirty():
            found.append(Finding("folders-behind", f"{waiting} folders are still to be written"))
        return found

    def pieces(self) -> list[str]:
        """See `Pieces.pieces`."""
        return self._verified(Verification.pieces)

    def verify_piece(self, name: str) -> list[Finding]:
        """See `Pieces.verify_piece`. Kinds as of `verify`."""
        found = self._verified(lambda verification: verification.piece(name))
        if name == STRAYS and (waiting := self._index.dirty()):
            found.append(Finding("folders-behind", f"{waiting} folders are still to be written"))
        return found

    def _verified(self, look: Callable[[Verification], Iterable[T]]) -> list[T]:
        with self._source.snapshot() as position:
            current = position if self.checkpoint().position == position and not self._index.dirty() else None
            verification = Verification(self._index, self._disk, self._renderer, self._source.log, current=current)
            return list(islice(look(verification), FINDINGS_LIMIT))

    def edits(self, places: Sequence[str] | None = None, *, sure: bool = True) -> Iterator[Edit]:
        """Every file that somebody edited, in place or put aside, in some folders or in all. See `find_edits`."""
        return find_edits(self._index, self._disk, places, sure=sure)

    def comparison(self, edit: Edit) -> Comparison:
        """An edited file beside what it was made of."""
        return Comparison(edit, self.root, self._index, self._source, self._disk)

    def account(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Notes of data files that refold did not write, by folder and SHA-256, that what they hold is kept elsewhere:
        they are no edits, and may be written over."""
        with self._index.transaction():
            self._index.account(files)

    def adopted(self, edit: Edit, *, keep: bool) -> list[str]:
        """Puts an edit that was taken in aside, and removes it unless it is to be kept; the names that are kept."""
        place, name = edit.folder, edit.standing
        aside = edit.aside
        if aside is None:
            self._doubt([place])  # or nobody would look there again after a crash
            found = hash_of(self._disk, place, name)
            if found is not None and found.hex() == edit.hash:
                aside = self._sparing.put_aside(place, name, found)
            else:
                aside = f"{name}{EDITED}{edit.hash[:8]}"
        if not keep:
            self._disk.remove(place, [aside, msgspec.structs.replace(edit, aside=aside).meta])
        return [aside] if keep else []

    def mend(self, places: Sequence[str]) -> None:
        """Writes the files of some folders anew, where they are not what they have to be."""
        self._doubt(places)
        self.apply([], self.checkpoint())

    def unfinished(self) -> bool:
        """See `Unfinished.unfinished`."""
        return self._index.dirty() > 0

    def _doubt(self, places: Sequence[str]) -> None:
        """Puts folders on the list of work, as those of which nobody knows what their files hold."""
        folders = self._index.standing(places)
        with self._index.transaction():
            self._index.soil([(folders[place].id, UNSURE) for place in places if place in folders])

    def close(self) -> None:
        """See `Projection.close`."""
        if self._own_disk is not None:
            self._own_disk.close()
        self._source.close()
        self._index.close()

    def apply(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        """See `Projection.apply`."""
        with self._source.snapshot() as position:
            if position < checkpoint.position:
                raise ProjectionFailed(self.name, checkpoint.position, f"the tables stand at {position}")
            if self._index.must_look():
                self._look()
            with self._index.transaction():
                if self._left_over:
                    self._index.soil_rest()
                run = self._route(events, max(checkpoint.position, self._index.routed()), position)
                self._index.place_twins()
                self._index.stand()
            self._left_over = True
            noted = self._work(run)
            self._leave()
            if checkpoint.position == position:
                self._sweep()
            with self._index.transaction():
                self._index.done(noted)
                self._index.save_checkpoint(checkpoint)
            self._left_over = False

    def _route(self, events: Sequence[Event], reached: int, position: int) -> Run:
        """Moves the records of events to their folders, and of those that follow them where that pays."""
        routed = self._index.routed()
        router = _Router(self._index, self._source)
        fresh = [event for event in events if event.position > routed]
        router.route(fresh)
        wanted = _WORTH * len(fresh)
        if fresh and reached < position and (routed == 0 or self._index.owns(wanted) == wanted):
            end = min(position, reached + LOOK_AHEAD)
            while reached < end and len(router.run.touched) < MANY_FOLDERS:
                page = events_after(self._source.log, reached, min(_PAGE, end - reached))
                router.route(page)
                reached = page[-1].position
        self._index.save_routed(reached)
        router.run.end, router.run.snapshot = reached, position
        return router.run

    def _work(self, run: Run) -> list[tuple[int, str, int, Written]]:
        """Writes the folders on the list that own records; what is durable but not noted yet."""
        self._settle()
        self._vacate()
        waiting: list[_Batch] = []
        noted: list[tuple[int, str, int, Written]] = []
        synced: Future[None] | None = None
        with ThreadPoolExecutor(1, "refold-sync") as pool:
            for folders in self._batches():
                rendered = self._render(folders, run)
                if synced is not None:
                    noted = self._advance(waiting, synced, noted)
                waiting.append(self._write(rendered))
                synced = pool.submit(self._disk.sync)
            while waiting and synced is not None:
                noted = self._advance(waiting, synced, noted)
                if waiting:
                    synced = pool.submit(self._disk.sync)
        return noted

    def _batches(self) -> Iterator[list[Folder]]:
        last = 0
        while page := self._index.working(last, self._batch):
            last = page[-1].id
            batch: list[Folder] = []
            records = 0
            for folder in page:
                if batch and records + folder.count > MANY_RECORDS:
                    yield batch
                    batch, records = [], 0
                batch.append(folder)
                records += folder.count
            yield batch

    def _render(self, folders: Sequence[Folder], run: Run) -> list[Rendered]:
        if len(folders) == 1 and folders[0].count > MANY_RECORDS:
            return [self._renderer.large(folders[0], run)]
        try:
            return self._renderer.small(folders, run)
        except TooMany:
            if len(folders) == 1:
                return [self._renderer.large(folders[0], run)]
            half = len(folders) // 2
            return self._render(folders[:half], run) + self._render(folders[half:], run)

    def _write(self, rendered: list[Rendered]) -> _Batch:
        batch = _Batch(rendered)
        accounted = self._index.accounted([item.folder.place for item in rendered if item.folder.written is None])
        for item in rendered:
            folder = item.folder
            sure = folder.dirt < UNSURE and folder.written is not None
            compare = not sure and folder.dirt < REWRITE
            names = self._disk.write(folder.place, item.files, compare=compare)
            if item.append is not None:
                self._disk.append(folder.place, "events.jsonl", *item.append)
            if names is None:
                continue
            names = item.done + names
            coming = {name + TEMPORARY for name in names}
            stale = set(stale_names(self._disk, self._index, folder, item.written)) - coming
            if names or stale:
                known = [*_hashes(folder.written), *_hashes(item.written), *accounted.get(folder.place, ())]
                batch.coming.append(_Coming(folder.place, names, sorted(stale), known, not sure))
        return batch

    def _advance(
        self,
        waiting: list[_Batch],
        synced: Future[None],
        noted: list[tuple[int, str, int, Written]],
    ) -> list[tuple[int, str, int, Written]]:
        """Takes every batch one step on, now that what it did is durable; what can be noted at the next occasion."""
        try:
            synced.result()
        except StorageFailed:
            with self._index.transaction():
                self._index.distrust()
            raise
        if noted:
            with self._index.transaction():
                self._index.done(noted)
        noted = []
        for batch in list(waiting):
            if batch.coming:
                batch.coming = [rest for coming in batch.coming if (rest := self._publish(coming)) is not None]
            else:
                noted += [(item.folder.id, item.folder.place, item.position, item.written) for item in batch.rendered]
                waiting.remove(batch)
        return noted

    def _publish(self, coming: _Coming) -> _Coming | None:
        """Publishes files, and removes what is stale; what has to be done still when that is durable."""
        place, names = coming.place, coming.names
        self._sparing.spare(place, names, coming.known)
        told = [META] if META in names and (coming.stale or coming.apart) else []
        self._disk.publish(place, [name for name in names if name not in told])
        if coming.stale:
            self._sparing.spare(place, coming.stale, coming.known, unknown=False)
            self._disk.remove(place, coming.stale)
        if told and coming.apart:
            return _Coming(place, told, [], [], apart=False)
        if told:
            self._disk.publish(place, told)
        return None

    def _settle(self) -> None:
        """Ends what a crash cut short in the folders on the list."""
        last = 0
        while page := self._index.unsure(last, self._batch):
            last = page[-1].id
            self._sparing.settle((one.stands, _hashes(one.written)) for one in page if one.stands is not None)

    def _vacate(self) -> None:
        """Clears places that a twin is to have."""
        while folders := self._index.vacating(self._batch):
            for folder in folders:
                self._remove(folder, folder.stands)
            self._disk.sync()
            with self._index.transaction():
                self._index.vacated([folder.id for folder in folders])

    def _leave(self) -> None:
        """Removes the files of folders that own nothing any more, when their records are durable elsewhere."""
        while folders := self._index.leaving(self._batch):
            for folder in folders:
                self._remove(folder, folder.stands or folder.place)
            self._disk.sync()
            with self._index.transaction():
                self._index.forget([folder.id for folder in folders])

    def _remove(self, folder: Folder, place: str | None) -> None:
        if place is None or self._index.owner(place, folder.id):
            return
        names = names_in(read_meta(self._disk.read(place, META)))
        if folder.written is not None:
            names.update(file.name for file in folder.written.data.values())
        if folder.dirt >= UNSURE:
            names.update(unfinished_names(self._disk, place), abandoned_names(self._disk, self._index, place))
        self._sparing.spare(place, sorted(names), _hashes(folder.written), unknown=False)
        self._disk.remove(place, sorted(names))

    def _look(self) -> None:
        """Ends what was begun, and notes where files of ours stand, before the first folder is in a new index."""
        with self._index.transaction():
            walk = self._disk.walk()
            while page := list(islice(walk, _PAGE)):
                found = [(place, any(name.endswith(TEMPORARY) for name in names), names) for place, names in page]
                self._sparing.settle((place, ()) for place, unfinished, _ in found if unfinished)
                self._index.suspect([(place, half) for place, half, names in found if half or META in names])
            self._index.looked()

    def _sweep(self) -> None:
        """Removes those of the files noted whose folder turned out to own nothing, and unfinished ones.

        It comes before the checkpoint: after a crash nothing would call for it where no event is left to be applied.
        """
        if not self._index.suspects(1):
            return
        while places := self._index.suspects(self._batch):
            for place, known in places:
                meta = read_meta(self._disk.read(place, META))
                names = set(unfinished_names(self._disk, place))
                if meta is not None and not known:
                    names |= names_in(meta) | abandoned_names(self._disk, self._index, place)
                    self._sparing.spare(place, sorted(names), (), unknown=False)
                self._disk.remove(place, sorted(names))
            self._disk.sync()
            with self._index.transaction():
                self._index.cleared([place for place, _ in places])
        with self._index.transaction():
            self._index.absolve()


def _hashes(written: Written | None) -> list[bytes]:
    return [file.hash for file in written.data.values()] if written is not None else []


class _Router:
    """Moves the records of events between folders in the index, and notes which folders that touches."""

    def __init__(self, index: Index, source: Source) -> None:
        self._index = index
        self._source = source
        self._folders: dict[str, int] = {}
        self.run = Run()

    def route(self, events: Sequence[Event]) -> None:
        """Takes in a run of events, all in log order and beyond those before."""
        by_record: dict[Record, list[Event]] = {}
        for event in events:
            by_record.setdefault(event.record, []).append(event)
        for name in sorted({event.collection for event in events if event.kind is Kind.DEFINE}):
            for keys in self._index.keys(name):
                self._move([(name, key) for key in keys])
        records = list(by_record)
        for start in range(0, len(records), _PAGE):
            self._take({record: by_record[record] for record in records[start : start + _PAGE]})

    def _move(self, records: Sequence[Record]) -> None:
        """Takes records to where their collection's new definition has them."""
        known = self._index.lookup(records)
        states = self._source.states(records)
        rows, soiled = [], {}
        for record in records:
            folder = self._folder(self._source.folder(record, states[record]))
            rows.append((*record, folder))
            soiled[known[record]] = soiled[folder] = WHOLE
        self._index.assign(rows)
        self._index.soil(list(soiled.items()))

    def _take(self, events: Mapping[Record, list[Event]]) -> None:
        """Takes records to where their events have them."""
        known = self._index.lookup(list(events))
        newest = self._source.newest(list(events))
        paths = {record: self._source.folder(record, newest[record][1]) for record in events}
        rows: list[tuple[str, str, int]] = []
        soiled: dict[int, int] = {}
        run = self.run
        dirt = PART if len(run.states) < _REMEMBERED else WHOLE
        for record in sorted(events, key=paths.__getitem__):
            folder = self._folder(paths[record])
            before = known.get(record, 0)
            if before != folder:
                rows.append((*record, folder))
                if before:
                    soiled[before] = WHOLE
            soiled.setdefault(folder, dirt)
            if dirt == PART:
                touched = run.touched.setdefault(folder, {})
                touched[record] = touched.get(record, False) or before != folder
                position, run.states[record] = newest[record]
                run.events.setdefault(record, []).extend(events[record])
                if position == events[record][-1].position:
                    run.complete.add(record)
                if not before:
                    run.unknown.add(record)
        self._index.assign(rows)
        self._index.soil(list(soiled.items()))

    def _folder(self, path: str) -> int:
        number = self._folders.get(path)
        if number is None:
            if len(self._folders) >= _PAGE:
                self._folders.clear()
            number = self._folders[path] = self._index.folder_id(path)
        return number
