"""What there is to say about documents, as a pure function of what records say of them and of what stands there. Pure.

A record *points* to a document by its path, and says what is in it by its SHA-256. What stands there was read, or is
known from the cache, since its size, time of change and inode are those of when it was read last.
"""

from __future__ import annotations

import re

import msgspec

_HASH = re.compile(r"[0-9a-f]{64}")


class DocumentFinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing about one document, and the record that points to it, if there is one.

    Kinds: `document-new` (the record says no hash yet), `document-changed` (its bytes are others than the record says),
    `document-rot` (the same, and its size and time of change are those of when they were not), `document-missing`,
    `document-moved` (missing, and the same bytes stand at `places`, to which no record points), `document-orphaned` (no
    record points to it), `document-outside` (the path leads out of the archive, or through a link),
    `document-unreadable`, `document-unsettled` (it changed while it was read), `document-hash` (what the record says is
    no SHA-256), `document-unrecorded` (what was found could not be written). `hash` is that of its bytes now.
    """

    kind: str
    path: str
    detail: str
    collection: str | None = None
    key: str | None = None
    field: str | None = None
    hash: str | None = None
    places: tuple[str, ...] = ()


class Pointer(msgspec.Struct, frozen=True, array_like=True):
    """A record's field that points to a document; `hash` is what it says of it, None where no field holds a hash."""

    collection: str
    key: str
    field: str
    hash: str | None

    @property
    def is_hashed(self) -> bool:
        """Whether a field holds the document's hash, be it empty."""
        return self.hash is not None


class Standing(msgspec.Struct, frozen=True):
    """What stands at a path: bytes with this hash, or nothing, or nothing that can be read (`absent`, and why).

    `rot` is the hash of what was read where that is not `hash`, though size and time of change are those of `hash`.
    """

    hash: str | None = None
    rot: str | None = None
    absent: str | None = None
    detail: str = ""


def finding(pointer: Pointer, path: str, standing: Standing) -> DocumentFinding | None:
    """What there is to say of a document that a record points to; None when all is as the record says."""

    def say(kind: str, detail: str, found: str | None = None) -> DocumentFinding:
        return DocumentFinding(kind, path, detail, pointer.collection, pointer.key, pointer.field, found)

    if standing.absent is not None:
        return say(standing.absent, standing.detail)
    said, found = (pointer.hash or "").lower(), standing.rot or standing.hash
    if not pointer.is_hashed or found is None or said == found:
        return None
    if not said:
        return say("document-new", "the record says no hash of it yet", found)
    if not _HASH.fullmatch(said):
        return say("document-hash", f"the record says {said[:64]!r}, which is no SHA-256", found)
    differs = f"it has SHA-256 {found[:16]}…, the record says {said[:16]}…"
    if standing.rot is not None and said == standing.hash:
        return say("document-rot", f"{differs}; its size and time of change are those of the bytes that it had", found)
    return say("document-changed", differs, found)
