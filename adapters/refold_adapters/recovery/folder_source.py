"""Folders as a source: every events.jsonl below a place, any part of an archive's folders, or one such file.

Each line proves itself by its hash. What a meta.json remembers beyond its events.jsonl tells of events that are gone;
where the file beside it is whole, that is nothing, and a meta.json that rotted by itself does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from refold.errors import StorageFailed
from refold.verify import Finding
from refold_adapters.folders.content import DATA, EVENTS, META, Meta, read_meta
from refold_adapters.folders.disk import QUARANTINE, Disk, PosixDisk
from refold_adapters.folders.lines import LineRefused, proved
from refold_adapters.folders.reading import FoundEvent, read_folder

from .source import Damage, Item, Known, Reading


def folder_events(root: Path) -> Iterator[Item]:
    """What the folders below `root` hold. Raises `StorageFailed`."""
    disk = PosixDisk(root)
    quarantined = 0
    try:
        for place, names in disk.walk():
            meta = read_meta(disk.read(place, META)) if META in names else None
            if EVENTS in names:
                yield from _folder(disk, place, meta)
            elif meta is not None:
                yield Damage(Finding("folder-missing", "meta.json tells of it", folder=place, file=EVENTS))
                yield from _remembered(place, meta)
            elif DATA in names and place.startswith(f"{QUARANTINE}/"):
                quarantined += 1
            elif DATA in names and META in names:
                why = "its records have no history; an archive of an older tool is taken up by `refold adopt`"
                yield Damage(Finding("folder-without-history", why, folder=place, file=DATA))
        if quarantined:
            why = f"{quarantined} folders that could not be adopted; they are in no log, so take them along"
            yield Damage(Finding("folders-quarantined", why, folder=QUARANTINE))
    finally:
        disk.close()


def _folder(disk: Disk, place: str, meta: Meta | None) -> Iterator[Item]:
    whole, count, reading = True, 0, Reading()
    for found in read_folder(disk, place, meta):
        if isinstance(found, FoundEvent):
            count += 1
            yield reading.event(
                found.body, sealed=True, finding=Finding("folder-altered", folder=place, file=EVENTS, row=found.line)
            )
        else:
            whole = False
            yield Damage(found)
    if meta is not None and not (whole and count >= meta.events.count):
        yield from _remembered(place, meta)


def _remembered(place: str, meta: Meta) -> Iterator[Item]:
    for replica, head in meta.vector.items():
        try:
            digest = bytes.fromhex(head.hash)
        except ValueError:
            yield Damage(Finding("folder-altered", f"its vector says {head.hash!r}", folder=place, file=META))
        else:
            yield Known(replica, head.seq, digest, f"{place}/{META}")


def file_events(path: Path) -> Iterator[Item]:
    """The events in one file of lines, as events.jsonl or left-out.jsonl. Raises `StorageFailed`."""
    reading = Reading()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                finding = Finding("folder-altered", file=path.name, row=number)
                try:
                    _, body, _ = proved(line)
                except LineRefused as refused:
                    yield Damage(msgspec.structs.replace(finding, detail=refused.why), line)
                else:
                    yield reading.event(body, sealed=True, finding=finding)
    except OSError as error:
        raise StorageFailed(str(path), "reading", str(error)) from error
