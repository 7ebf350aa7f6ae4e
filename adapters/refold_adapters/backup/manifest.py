"""The manifest: what a backup holds, and what proves it.

A backup is identified by the hash of its manifest, which the manifest itself cannot hold: it stands in the file's name
and, for `sha256sum -c`, in the last entry. The manifest holds the hash of every other entry, and an incremental one
the id of its parent and the hash of its parent's file. So an id proves everything below it, as a commit's does in git.
The heads prove the events besides, whatever became of the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Literal

import msgspec

from refold.clock import TimeTextError, format_time, from_millis, parse_time
from refold.events import Head

from .errors import BackupRefused

FORMAT = 1
MANIFEST, PROOF = "manifest.json", "manifest.sha256"
SETTINGS = "refold.toml"
DOCUMENTS = "documents.jsonl"
MANIFEST_LIMIT = 16 << 20
"""The largest manifest that is read: one with a hundred thousand replicas would be as large."""

_ID = 32
_NAME = re.compile(r"([0-9]{8}T[0-9]{9}Z)-(full|incremental)-([0-9a-f]{32})\.zip(\.encrypted)?")
_HEX = re.compile(r"[0-9a-f]{64}")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file in the zip: its size in bytes, unpacked, and its SHA-256."""

    name: str
    size: int
    sha256: str


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The backup that an incremental one goes on from."""

    id: str
    sha256: str


class Documents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many documents of the users' own the backup knows, and how many bytes of them are in this very file."""

    count: int
    stored: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one backup holds: the events after position `after` up to `position`, from `heads_from` on to `heads_to`.

    `digest` is that of the state at `position`, null where the tables could not tell it.
    """

    format: int
    kind: Literal["full", "incremental"]
    description: str
    created: str
    replica: str
    after: int
    position: int
    events: int
    digest: str | None
    vector: dict[str, int]
    heads_from: dict[str, tuple[int, str]]
    heads_to: dict[str, tuple[int, str]]
    parent: Parent | None
    documents: Documents | None
    entries: list[Entry]

    @property
    def millis(self) -> int:
        """When it was made, in Unix milliseconds."""
        return parse_time(self.created)


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Manifest).decode


def to_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is stored."""
    return msgspec.json.format(_encode(manifest), indent=2) + b"\n"


def id_of(data: bytes) -> str:
    """The id of the backup with this manifest: half its SHA-256, 128 bits."""
    return sha256(data).hexdigest()[:_ID]


def told_heads(heads: Mapping[str, Head]) -> dict[str, tuple[int, str]]:
    """Heads as a manifest spells them."""
    return {replica: (head.seq, head.hash.hex()) for replica, head in sorted(heads.items())}


def read_heads(heads: Mapping[str, tuple[int, str]]) -> dict[str, Head]:
    """Heads of a manifest that was checked."""
    return {replica: Head(seq, bytes.fromhex(digest)) for replica, (seq, digest) in heads.items()}


def from_bytes(path: str, data: bytes) -> Manifest:
    """The manifest, if it makes sense in itself. Raises `BackupRefused`."""
    try:
        found = msgspec.json.decode(data)
        number = found.get("format") if isinstance(found, dict) else None
        if isinstance(number, int) and number > FORMAT:
            raise BackupRefused(path, f"its format is {number}; this release knows {FORMAT}")
        manifest = _decode(data)
        parse_time(manifest.created)
    except (msgspec.DecodeError, TimeTextError, UnicodeDecodeError, RecursionError) as error:
        raise BackupRefused(path, f"its manifest cannot be read: {error}") from None
    for why in _nonsense(manifest):
        raise BackupRefused(path, f"its manifest makes no sense: {why}")
    return manifest


def _nonsense(manifest: Manifest) -> Iterator[str]:
    heads = [*manifest.heads_from.values(), *manifest.heads_to.values()]
    if any(seq < 1 or not _HEX.fullmatch(digest) for seq, digest in heads):
        yield "a head is none"
    if manifest.vector != {replica: seq for replica, (seq, _) in manifest.heads_to.items()}:
        yield "the vector is not that of the heads"
    seqs = [sum(seq for seq, _ in side.values()) for side in (manifest.heads_from, manifest.heads_to)]
    if seqs != [manifest.after, manifest.position]:
        yield "the positions are not those of the heads"
    if manifest.events != manifest.position - manifest.after or manifest.after < 0 or manifest.events < 0:
        yield "the events are not those between the positions"
    if (manifest.parent is None) != (manifest.kind == "full") or (manifest.kind == "full" and manifest.after):
        yield f"kind {manifest.kind} does not go with its parent"
    if manifest.digest is not None and not _HEX.fullmatch(manifest.digest):
        yield "the digest is none"
    names = [entry.name for entry in manifest.entries]
    if len(names) != len(set(names)) or {MANIFEST, PROOF} & set(names):
        yield "an entry is named twice"
    if any(entry.size < 0 or not _HEX.fullmatch(entry.sha256) for entry in manifest.entries):
        yield "an entry has no size or no hash"
    if (manifest.documents is None) == (DOCUMENTS in names):
        yield "the documents are not listed"


class Name(msgspec.Struct, frozen=True):
    """What the name of a backup's file says: when it was made (Unix milliseconds), its kind and its id."""

    millis: int
    kind: str
    id: str
    encrypted: bool


def file_name(manifest: Manifest, id: str, *, encrypted: bool) -> str:  # noqa: A002 - the word for it
    """The name of the file that holds this backup: sorted by name, backups are sorted by time."""
    stamp = format_time(from_millis(manifest.millis)).replace("-", "").replace(":", "").replace(".", "")
    return f"{stamp}-{manifest.kind}-{id}.zip{'.encrypted' if encrypted else ''}"


def parse_name(name: str) -> Name | None:
    """What a file's name says; None when it is not that of a backup."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    text = found[1]
    spelt = f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:15]}.{text[15:18]}Z"
    try:
        return Name(parse_time(spelt), found[2], found[3], found[4] is not None)
    except TimeTextError:
        return None
