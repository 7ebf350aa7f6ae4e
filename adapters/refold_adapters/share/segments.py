"""Segments: files of events that are written once, named by their content, and never touched again.

    WRITER/NUMBER-HASH.segment = "refold segment 1\\n" length(4) header payload

WRITER is the id of the replica that wrote the file, NUMBER counts its segments, HASH is the start of the SHA-256 of the
whole file. The header says which events the payload has (a run of seqs of each replica) and what has to be there before
them; the payload is the frames of a sync session. So any tool may copy the files in any order, half of them or twice:
a file is complete when it has the size that its header says, sound when it has the hash that its name says, and usable
once all it needs is there. Files of other names are none of ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import msgspec

from refold.clock import MAX_MILLIS
from refold.errors import RefoldError, StorageFailed
from refold.events import Event, Head
from refold.frames import HEADER, Events, from_frame, payload_size
from refold.intake import Intake
from refold.sync import frames_of
from refold.vector import includes
from refold_adapters.durable import make_directory, sync_directory

MAGIC = b"refold segment 1\n"
HEADER_LIMIT = 1 << 20
SIZE_LIMIT = 1 << 30
_NAME = re.compile(r"([0-9]{8})-([0-9a-f]{32})\.segment")
_UNFINISHED = ".partial"
_WRITER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(eq=False)
class SegmentRefused(RefoldError):
    """A file of a share that is not what it says it is."""

    code: ClassVar[str] = "segment-refused"
    message: ClassVar[str] = "{path}: {why}"
    hint: ClassVar[str] = (
        "copy it again, or delete it: a replica that has its events writes them anew; everything else was taken in"
    )
    path: str
    why: str


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What a segment holds: of each replica the events from `first` to its head; `needs` is what stands before them."""

    writer: str
    number: int
    first: dict[str, int]
    heads: dict[str, Head]
    needs: dict[str, int]
    count: int
    size: int

    @property
    def vector(self) -> dict[str, int]:
        """The last seq of each replica in it."""
        return {replica: head.seq for replica, head in self.heads.items()}


class Segment(msgspec.Struct, frozen=True):
    """A complete file of a share."""

    path: Path
    header: Header
    start: int


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Header).decode


def describe(writer: str, number: int, events: Sequence[Event], hashes: Sequence[bytes], size: int) -> Header:
    """The header of a segment of these events, which come in a causal order."""
    first: dict[str, int] = {}
    heads: dict[str, Head] = {}
    needs: dict[str, int] = {}
    for event, digest in zip(events, hashes, strict=True):
        for replica, seq in (*event.context.items(), (event.replica, event.seq - 1)):
            if seq > (heads[replica].seq if replica in heads else needs.get(replica, 0)):
                needs[replica] = seq
        first.setdefault(event.replica, event.seq)
        heads[event.replica] = Head(event.seq, digest)
    return Header(writer, number, first, heads, needs, len(events), size)


def write(folder: Path, number: int, events: Sequence[Event], bodies: Sequence[bytes]) -> Segment:
    """Writes one segment, durable on return. Raises `StorageFailed`, and leaves no file of that name then."""
    payload = b"".join(frames_of(bodies))
    header = describe(folder.name, number, events, [sha256(body).digest() for body in bodies], len(payload))
    told = _encode(header)
    data = b"".join((MAGIC, len(told).to_bytes(4, "big"), told, payload))
    path = folder / f"{number:08}-{sha256(data).hexdigest()[:32]}.segment"
    beside = folder / f".{path.name}{_UNFINISHED}"
    try:
        make_directory(folder)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(folder)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StorageFailed(str(path), "writing a segment", str(error)) from error
    return Segment(path, header, len(MAGIC) + 4 + len(told))


def clear(folder: Path) -> None:
    """Removes what a writer that was killed left unfinished in its folder; where that cannot be done, it stays."""
    with suppress(OSError):
        for path in folder.glob(f".*.segment{_UNFINISHED}"):
            path.unlink()


def last_number(folder: Path) -> int:
    """The greatest number that a writer's segment has, of complete files or not."""
    names = os.listdir(folder) if folder.is_dir() else []
    return max((int(found[1]) for name in names if (found := _NAME.fullmatch(name))), default=0)


def is_share(root: Path) -> bool:
    """Whether a directory holds segments."""
    try:
        return root.is_dir() and any(True for _ in scan(root))
    except StorageFailed:
        return False


def scan(root: Path) -> Iterator[Segment | SegmentRefused]:
    """Every segment of a share, by writer and number, and what is none. Raises `StorageFailed`."""
    try:
        for writer in sorted(name for name in os.listdir(root) if _WRITER.fullmatch(name)):
            folder = root / writer
            if not folder.is_symlink() and folder.is_dir():
                for name in sorted(filter(_NAME.fullmatch, os.listdir(folder))):
                    yield _open(folder / name)
    except OSError as error:
        raise StorageFailed(str(root), "reading the share", str(error)) from error


def _open(path: Path) -> Segment | SegmentRefused:
    if path.is_symlink() or not path.is_file():
        return SegmentRefused(str(path), "it is no plain file")
    with path.open("rb") as file:
        lead = file.read(len(MAGIC) + 4)
        length = int.from_bytes(lead[len(MAGIC) :], "big")
        if not lead.startswith(MAGIC) or length > HEADER_LIMIT:
            return SegmentRefused(str(path), "it does not start as a segment does")
        told = file.read(length)
        size = os.fstat(file.fileno()).st_size
    try:
        header = _decode(told)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return SegmentRefused(str(path), "its header cannot be read; it may be half copied")
    start = len(lead) + length
    if size != start + header.size:
        return SegmentRefused(str(path), f"it has {size} bytes of {start + header.size}; it may be half copied")
    sound = all(head.seq > 0 and len(head.hash) == 32 for head in header.heads.values())
    if header.size > SIZE_LIMIT or header.heads.keys() != header.first.keys() or not sound:
        return SegmentRefused(str(path), "its header makes no sense")
    if (header.writer, f"{header.number:08}") != (path.parent.name, path.name.partition("-")[0]):
        return SegmentRefused(str(path), f"it is segment {header.number} of {header.writer!r}")
    return Segment(path, header, start)


def read(segment: Segment) -> list[bytes]:
    """The bytes of the events of a segment. Raises `SegmentRefused` and `StorageFailed`."""
    return [body for _, body in read_events(segment)]


def read_events(segment: Segment) -> list[tuple[Event, bytes]]:
    """The events of a segment, with their bytes. Raises `SegmentRefused` and `StorageFailed`."""
    path = segment.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageFailed(str(path), "reading a segment", str(error)) from error
    if sha256(data).hexdigest()[:32] != path.stem.partition("-")[2]:
        raise SegmentRefused(str(path), "its bytes are not those that its name stands for")
    found: list[tuple[Event, bytes]] = []
    check = Intake(str(path), MAX_MILLIS, 0)
    at = segment.start
    try:
        while at < len(data):
            end = at + HEADER + payload_size(data[at : at + HEADER])
            message = from_frame(data[at:end])
            part = message.bodies if isinstance(message, Events) else []
            found += zip(map(check.event, part), part, strict=True)
            at = end
    except RefoldError as error:
        raise SegmentRefused(str(path), str(error)) from None
    if {event.replica: event.seq for event, _ in found} != segment.header.vector:
        raise SegmentRefused(str(path), "its events are not those that its header names")
    return found


def plan(segments: Iterable[Segment], have: Mapping[str, int]) -> tuple[list[Segment], list[Segment], dict[str, int]]:
    """The segments that one who has seen `have` can take in, in an order that works; those whose needs are not met; and
    the vector that comes of it. Segments that hold nothing new are left out of both."""
    vector = dict(have)
    chosen: list[Segment] = []
    waiting = list(segments)
    while True:
        left = []
        for segment in waiting:
            if includes(vector, segment.header.vector):
                continue
            if not includes(vector, segment.header.needs):
                left.append(segment)
                continue
            chosen.append(segment)
            for replica, seq in segment.header.vector.items():
                vector[replica] = max(seq, vector.get(replica, 0))
        if len(left) == len(waiting):
            return chosen, left, vector
        waiting = left
