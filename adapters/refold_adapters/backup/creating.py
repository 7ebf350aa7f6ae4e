"""Making a backup, beside whoever writes the archive: read from the log, through a connection that only reads.

A backup ends at a moment of the log that is no earlier than its start, so that all that was acknowledged before is in
it. Where the tables stand there, it takes the digest of the state with it; each event is proved on the way, so that a
damaged log is found now, and not when the backup is needed.

An incremental one goes on from the newest backup whose events are the beginning of this log. That is seen by hashes: a
parent with the vector v and the position p fits when the event at each head of v has the same hash and stands at or
before p. There are as many events up to p as v covers, so they are the same. No event is read for it but the heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from itertools import islice
from pathlib import Path

import msgspec

from refold.clock import format_time, from_millis
from refold.errors import ArchiveMissing, FormatUnknown, InputRefused, LogCorrupt, StorageFailed
from refold.events import Checkpoint, canonical, decode
from refold.fold import format_digest
from refold.verify import ChainCheck
from refold_adapters.folders.lines import line_of
from refold_adapters.settings import FILE, Settings, load_settings
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables

from .documents import Listing, add_documents, listing_of
from .encryption import Out, Sealing, Secret
from .history import Known, heads_of, known_of, read_history, restorable, write_history
from .manifest import FORMAT, MANIFEST, PROOF, SETTINGS, Manifest, Parent, file_name, id_of, to_bytes, told_heads
from .places import growing, owned, publish, stored
from .reading import BackupFile
from .zip_writing import Compression, ZipWriting

Tell = Callable[[str, int], None]

PIECE_EVENTS = 100_000
"""Events in one entry of the zip."""

_PAGE = 1000
_WAIT_SECONDS = 2.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of backup is wanted."""

    description: str = ""
    incremental: bool = False
    documents: bool = False
    compression: Compression = "deflate"
    secret: Secret | None = None


class Ending(msgspec.Struct, frozen=True):
    """Where a backup ends; `standing` is what the tables say there, if they do."""

    position: int
    standing: Checkpoint | None


class Created(msgspec.Struct, frozen=True):
    """The backup that was made, what there is to say about it, and how many documents had to be left out."""

    backup: Known
    notes: list[str]
    left_out: int = 0


def _ending(log: SqliteLog, tables_path: Path) -> Ending:
    """A moment at or after now: that of the tables, if they come to where the log ends now."""
    least = log.end()
    try:
        with closing(SqliteTables(tables_path, log.at, log.bodies_at, readonly=True)) as tables:
            given_up = time.monotonic() + _WAIT_SECONDS
            while (standing := tables.checkpoint()).position < least:
                if time.monotonic() > given_up:
                    return Ending(least, None)
                time.sleep(0.005)
                tables.refresh()
    except (StorageFailed, FormatUnknown):
        return Ending(least, None)
    return Ending(standing.position, standing) if standing.position <= log.end() else Ending(least, None)


def continues(log: SqliteLog, known: Known) -> bool:
    """Whether the events of a backup are the beginning of the log."""
    heads, last = heads_of(known), known.position
    if last is None or known.heads is None or last > log.end():
        return False
    positions = log.positions([(replica, head.seq) for replica, head in heads.items()])
    if len(positions) != len(heads) or any(position > last for position in positions):
        return False
    return all(event.hash == heads[event.replica].hash for event in log.at(sorted(positions)))


def _pages(log: SqliteLog, check: ChainCheck, after: int, upto: int, tell: Tell) -> Iterator[bytes]:
    """The lines of the events, a page at a time, each proved. Raises `LogCorrupt`."""
    position = after
    while position < upto:
        page = log.bodies(position, min(_PAGE, upto - position))
        if not page:
            raise LogCorrupt(position + 1, "the log ends there")
        lines = []
        for place, body in page:
            if place != position + 1:
                raise LogCorrupt(position + 1, "there is no event at that position")
            position = place
            lines.append(_line(position, body, check))
        tell("events", position - after)
        yield b"".join(lines)


def _line(position: int, body: bytes, check: ChainCheck) -> bytes:
    try:
        event = decode(body, position)
        if canonical(event) != body:
            raise LogCorrupt(position, "the stored bytes are not canonical")
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise LogCorrupt(position, f"it does not decode as an event: {error}") from error
    digest = sha256(body).digest()
    for finding in check.follow(event, digest):
        raise LogCorrupt(position, finding.detail)
    return line_of(event, digest)


class _Creation:
    """One backup in the making."""

    def __init__(self, root: Path, settings: Settings, order: Order, now: int, tell: Tell) -> None:
        self.root = root
        self.settings = settings
        self.order = order
        self.created = format_time(from_millis(now))
        self.tell = tell
        self.notes: list[str] = []
        self.left_out = 0

    def write(self, log: SqliteLog, ending: Ending, parent: Known | None, out: Out, before: Listing | None) -> Manifest:
        """Writes the zip. Raises `LogCorrupt`."""
        heads_from = heads_of(parent) if parent is not None else {}
        after = parent.position or 0 if parent is not None else 0
        check = ChainCheck(heads_from)
        with ZipWriting(out, self.order.compression, self.created) as zipped:
            pages = _pages(log, check, after, ending.position, self.tell)
            for number in range(-(-(ending.position - after) // PIECE_EVENTS)):
                zipped.add(f"events/{number + 1:06}.jsonl", islice(pages, PIECE_EVENTS // _PAGE))
            if ending.standing is not None and ending.standing.heads != check.heads:
                raise LogCorrupt(ending.position, "the tables know other heads than the log")
            self._settings(zipped)
            documents = None
            if self.order.documents:
                documents, skipped = add_documents(self.root, zipped, before, self.tell)
                self.notes += skipped
                self.left_out = len(skipped)
            digest = ending.standing.digest if ending.standing is not None else None
            manifest = Manifest(
                format=FORMAT,
                kind="full" if parent is None else "incremental",
                description=self.order.description,
                created=self.created,
                replica=log.replica(),
                after=after,
                position=ending.position,
                events=ending.position - after,
                digest=None if digest is None else format_digest(digest),
                vector={replica: head.seq for replica, head in sorted(check.heads.items())},
                heads_from=told_heads(heads_from),
                heads_to=told_heads(check.heads),
                parent=Parent(parent.id, parent.sha256) if parent is not None else None,
                documents=documents,
                entries=zipped.entries,
            )
            data = to_bytes(manifest)
            zipped.add(MANIFEST, [data], listed=False)
            zipped.add(PROOF, [f"{sha256(data).hexdigest()}  {MANIFEST}\n".encode()], listed=False)
        return manifest

    def _settings(self, zipped: ZipWriting) -> None:
        path = self.root / FILE
        with stored(path, "reading the settings"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return
        zipped.add(SETTINGS, [data])


def create(root: Path, directory: Path, order: Order, *, now: int, salt: bytes, tell: Tell) -> Created:
    """Makes a backup of the archive at `root` in a directory; `now` is Unix milliseconds, `salt` 16 random bytes.

    Raises `ArchiveMissing`, `InputRefused`, `Locked`, `LogCorrupt`, `StorageFailed`, `ExtraMissing`. Nothing of that
    name is there then.
    """
    settings = load_settings(root)
    path = root / settings.changelog
    if not path.is_file():
        raise ArchiveMissing(str(root))
    if directory.resolve().is_relative_to(root.resolve()):
        raise InputRefused(str(directory), "backups do not belong in the archive itself, where they are lost with it")
    doing = _Creation(root, settings, order, now, tell)
    with owned(directory, now), closing(SqliteLog(path, readonly=True)) as log:
        history = read_history(directory, lambda: order.secret)
        ending = _ending(log, root / settings.tables)
        if ending.standing is None:
            doing.notes.append("the tables do not stand where the log ends, so no digest of the state is in it")
        parent = None
        if order.incremental:
            parent = next((known for known in restorable(history) if continues(log, known)), None)
            if parent is None:
                doing.notes.append("no backup in the directory is the beginning of this log, so this one is full")
        with growing(directory) as file, ExitStack() as stack:
            before = None
            if parent is not None and order.documents:
                opened = stack.enter_context(BackupFile(directory / parent.file, lambda: order.secret))
                before = listing_of(opened)
            sealing = None
            if order.secret is not None:
                sealing = Sealing(file, order.secret, salt, parent.id if parent is not None else None)
            with stored(directory, "writing a backup"):
                manifest = doing.write(log, ending, parent, sealing or file, before)
                if sealing is not None:
                    sealing.close()
        id_ = id_of(to_bytes(manifest))
        encrypted = order.secret is not None
        name = file_name(manifest, id_, encrypted=encrypted)
        publish(directory, name)
        known = known_of(name, file.size, file.hash, manifest, id_, encrypted=encrypted)
        write_history(directory, [*history.backups, known])
    return Created(known, doing.notes, doing.left_out)
