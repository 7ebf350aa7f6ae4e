"""Witnesses from outside an archive: whoever remembers heads of its log can tell that its end is missing, or another.

| witness | remembers |
| --- | --- |
| a JSON document: what `refold digest --json` said once, a meta.json, a receipt | seqs and hashes of replicas |
| an archive, or its changelog.db alone, as in a backup | every event |
| a share (`dir:///PATH`, or its path) | the head of every run of events in it |

A JSON document is understood by its members `heads` or `vector`: of each replica a seq, or an object of seq and hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from refold.errors import RefoldError, StorageFailed
from refold.events import Head
from refold.verdict import Finding
from refold.verify import Claim

from .settings import load_settings
from .share import segments
from .sqlite_log import SqliteLog

_EVERY = 1000
"""Of each replica of another log, this many heads are asked for, spread over its events; the chain binds the rest."""


def claims_of(witness: str) -> tuple[list[Claim], list[Finding]]:
    """What a witness remembers, and why that cannot be told, which is never taken for consent."""
    try:
        return list(_claims(witness)), []
    except RefoldError as error:
        why = str(error)
    except (OSError, ValueError) as error:
        why = f"{witness}: {error}"
    return [], [Finding("unreadable", f"the witness cannot be heard: {why}", file=witness, witness=witness)]


def _claims(witness: str) -> Iterator[Claim]:
    parts = urlsplit(witness)
    if parts.scheme in {"", "file", "dir"}:
        path = Path(unquote(parts.path)) if parts.scheme else Path(witness)
    else:
        raise ValueError("witnesses are paths, file: and dir: URLs")
    if path.is_dir():
        settings = load_settings(path)
        if (path / settings.changelog).is_file():
            yield from _log(witness, path / settings.changelog)
        else:
            yield from _share(witness, path)
    elif _is_database(path):
        yield from _log(witness, path)
    else:
        yield from _document(witness, json.loads(path.read_text(encoding="utf-8")))


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16).startswith(b"SQLite format 3")


def _log(witness: str, path: Path) -> Iterator[Claim]:
    """Heads of another log: its newest, and some before, since a fork shows at any seq after the last in common."""
    with closing(SqliteLog(path, readonly=True)) as log:
        for replica, head in sorted(log.heads().items()):
            yield Claim(witness, replica, head, foreign=True)
            step = max(1, head.seq // _EVERY)
            seqs = iter(range(head.seq - 1, 0, -step))
            while page := list(islice(seqs, _EVERY)):
                for event in log.at(sorted(log.positions([(replica, seq) for seq in page]))):
                    yield Claim(witness, replica, Head(event.seq, event.hash), foreign=True)


def _share(witness: str, path: Path) -> Iterator[Claim]:
    found = False
    for segment in segments.scan(path):
        if isinstance(segment, segments.SegmentRefused):
            raise segment
        found = True
        for replica, head in segment.header.heads.items():
            yield Claim(witness, replica, head, foreign=True)
    if not found:
        raise StorageFailed(str(path), "reading a witness", "it is neither an archive nor a share")


def _document(witness: str, document: Any) -> Iterator[Claim]:
    heads = document.get("heads", document.get("vector")) if isinstance(document, Mapping) else None
    if not isinstance(heads, Mapping) or not heads:
        raise ValueError("it has neither `heads` nor a `vector`")
    for replica, told in heads.items():
        if isinstance(told, Mapping):
            seq, digest = told.get("seq"), bytes.fromhex(str(told.get("hash", "")))
        else:
            seq, digest = told, b""
        if type(seq) is not int or len(digest) not in {0, 32}:
            raise ValueError(f"it does not say of {replica!r} which seq and hash it has")
        yield Claim(witness, str(replica), Head(seq, digest), foreign=True)
