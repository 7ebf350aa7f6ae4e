"""Whether a folder may be written: what stands in it beside what the table has. Pure.

An older state of the same record is replaced. Nothing else that anybody wrote is lost: a folder that is newer than the
table, or that belongs to another record, or whose format nobody knows, is left as it is and reported; a data file that
was edited or damaged is put aside before another takes its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from refold_adapters.adopting.candidates import Finding, differing
from refold_adapters.adopting.layout import Described
from refold_adapters.adopting.old_files import OldMeta, read_old_csv, read_old_meta
from refold_adapters.stored_cells import stored_cells

from .spelling import vouches


class Wanted(NamedTuple):
    """What a folder is to hold: the record, when it was changed (Unix milliseconds), and the bytes of both files."""

    place: str
    key: str
    updated: int
    row: Mapping[str, Any]
    values: Mapping[str, Any]
    data: bytes
    meta: bytes


class Step(NamedTuple):
    """What to do: write the data file, the meta file, both or none; put aside what stands there; what to report."""

    data: bool = False
    meta: bool = False
    aside: bool = False
    finding: Finding | None = None


_UNCHANGED = Step()
_WRITE = Step(data=True, meta=True)


def decide(
    described: Described,
    wanted: Wanted,
    data: bytes | None,
    meta: bytes | None,
    lives_here: Callable[[Any], bool],
) -> Step:
    """What to do with a folder that holds these files. `lives_here` says whether a key's row belongs to the folder."""
    if meta is not None and b'"vector"' in meta:
        return Step(finding=_left(wanted, "no-log", "refold wrote it, and the log of its archive is not here"))
    if data == wanted.data:
        is_vouched = meta == wanted.meta or vouches(meta, described, wanted.row, data)
        return _UNCHANGED if is_vouched else Step(meta=True)
    if data is None or wanted.data.startswith(data):
        return _WRITE  # there is nothing, or the beginning of this very write, which was interrupted
    told = read_old_meta(meta) if meta is not None else None
    if isinstance(told, OldMeta):
        known = described.layout.versions
        if told.schema_version is not None and told.schema_version not in known:
            detail = f"it is of version {told.schema_version!r}; what can be read is {', '.join(known)}"
            return Step(finding=_left(wanted, "version-unknown", detail))
    is_vouched = isinstance(told, OldMeta) and (told.checksum or "").lower() == sha256(data).hexdigest()
    return _over(described, wanted, data, lives_here, is_vouched=is_vouched)


def _over(
    described: Described, wanted: Wanted, data: bytes, lives_here: Callable[[Any], bool], *, is_vouched: bool
) -> Step:
    schema = described.schema
    table = read_old_csv(data)
    aside = Step(data=True, meta=True, aside=True)
    if table.errors or len(table.rows) != 1 or not set(table.header) <= set(schema.columns):
        return _aside(wanted, "it holds what cannot be read" if table.errors else "it holds more than one record has")
    values, wrong = stored_cells(schema, dict(zip(table.header, table.rows[0][1], strict=True)))
    key = values.get(schema.collection.key)
    if key is not None and str(key) != wanted.key:
        if lives_here(key):
            return Step(finding=_left(wanted, "folder-taken", f"it belongs to record {key} too, which the table has"))
        return _aside(wanted, f"it holds record {key}, which is not there any more")
    if not wrong and not differing(values, wanted.values):
        return _WRITE
    updated = described.layout.updated
    changed = described.millis(values.get(updated)) if updated is not None else 0
    if is_vouched and not wrong and changed > wanted.updated:
        return Step(
            finding=_left(wanted, "folder-newer", f"it was changed at {values[updated or '']}, after the table")
        )
    return _WRITE if is_vouched else aside._replace(finding=_aside(wanted, "it was edited or damaged").finding)


def _left(wanted: Wanted, kind: str, detail: str) -> Finding:
    return Finding(kind, f"{detail}; it is left as it is", folder=wanted.place, key=wanted.key, left_out=True)


def _aside(wanted: Wanted, detail: str) -> Step:
    finding = Finding("put-aside", detail, folder=wanted.place, key=wanted.key)
    return Step(data=True, meta=True, aside=True, finding=finding)
