"""A shared directory as a source: whole segments as they are, of broken ones the frames that still fit.

A segment whose bytes are those that its name stands for is sealed, and its header tells which heads it has and what has
to be there before. Of any other file only frames are believed whose checksum fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from refold.errors import RefoldError, StorageFailed
from refold.frames import HEADER, Events, from_frame, payload_size
from refold.verify import Finding
from refold_adapters.share.segments import Segment, SegmentRefused, read, scan

from .source import Damage, Item, Known, Reading


def share_events(root: Path) -> Iterator[Item]:
    """What the segments of a share hold. Raises `StorageFailed`."""
    reading = Reading()
    for found in scan(root):
        if isinstance(found, SegmentRefused):
            yield from _broken(root, Path(found.path), found.why, reading)
            continue
        try:
            bodies = read(found)
        except SegmentRefused as refused:
            yield from _broken(root, found.path, refused.why, reading)
            continue
        place = found.path.relative_to(root).as_posix()
        yield from _heads(found, place)
        for body in bodies:
            yield reading.event(body, sealed=True, finding=Finding("segment-refused", file=place))


def _heads(segment: Segment, place: str) -> Iterator[Known]:
    for replica, head in segment.header.heads.items():
        yield Known(replica, head.seq, head.hash, place)
    for replica, seq in segment.header.needs.items():
        yield Known(replica, seq, b"", place)


def _broken(root: Path, path: Path, why: str, reading: Reading) -> Iterator[Item]:
    """What still fits in a file that is not what its name stands for."""
    finding = Finding("segment-refused", why, file=path.relative_to(root).as_posix())
    yield Damage(finding)
    if path.is_symlink() or not path.is_file():
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageFailed(str(path), "reading a segment", str(error)) from error
    at = data.find(b"rfs")
    while at >= 0:
        try:
            end = at + HEADER + payload_size(data[at : at + HEADER])
            message = from_frame(data[at:end])
        except RefoldError:
            at = data.find(b"rfs", at + 1)
            continue
        for body in message.bodies if isinstance(message, Events) else ():
            yield reading.event(body, sealed=False, finding=finding)
        at = data.find(b"rfs", end)
