"""Rows that want to be a record: how one is made of cells or of a table's row, and which of several holds. Pure.

Of rows with the same key the one that was changed last holds. At the same time the table's row does, since the folders
were written from the table. Null and empty text are one thing here: a data.csv of the older format spells them alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing about the old archive that its owner should know, and what becomes of it.

    Kinds: `unreadable`, `link`, `csv-bad`, `csv-empty`, `column-unknown`, `meta-missing`, `meta-bad`,
    `version-unknown`, `checksum`, `value-refused`, `key-taken`, `duplicate`, `table-differs`, `table-only`,
    `folder-only`, `table-row`, `document-missing`, `document-differs`, `document-outside`, `time-unknown`, `misplaced`.
    `taken` says which side holds, `left_out` that the row was not taken.
    """

    kind: str
    detail: str
    folder: str | None = None
    file: str | None = None
    row: int | None = None
    field: str | None = None
    key: str | None = None
    taken: str | None = None
    left_out: bool = False


class Candidate(msgspec.Struct, array_like=True):
    """One good row: where it comes from (no folder: the table), when it was changed (Unix milliseconds), its values."""

    folder: str | None
    row: int
    key: str
    updated: int
    values: dict[str, Any]

    @property
    def request_id(self) -> str:
        """Under which the row is written once, however often it is adopted."""
        return "adopt:" + sha256(msgspec.json.encode((self.key, self.values), order="deterministic")).hexdigest()[:32]

    @property
    def place(self) -> str:
        """What people call it."""
        return "the table" if self.folder is None else f"{self.folder}, row {self.row}"


class Choice(NamedTuple):
    """Which of the rows with one key holds, those that lose to it with other values, and what there is to say."""

    holds: Candidate
    losing: list[Candidate]
    findings: list[Finding]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields in which two rows differ, null and empty text being one."""
    return [name for name in one if (one[name] or None) != (other.get(name) or None) or _is_zero(one, other, name)]


def _is_zero(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    """Whether a zero or a false stands against null, which are two things."""
    pair = one[name], other.get(name)
    return any(value is not None and value != "" and not value for value in pair) and pair[0] != pair[1]


def choose(candidates: Sequence[Candidate], *, has_table: bool, has_folders: bool = True) -> Choice:
    """Which row of one key holds."""
    ranked = sorted(candidates, key=lambda row: (row.updated, row.folder is None, row.folder or "", row.row))
    holds = ranked[-1]
    findings: list[Finding] = []
    losing: list[Candidate] = []
    in_folders = [row for row in ranked if row.folder is not None]
    for row in ranked[:-1]:
        fields = differing(row.values, holds.values)
        if fields and not any(row.values == other.values for other in losing):
            losing.append(row)
        names = ", ".join(fields)
        if row.folder is not None and holds.folder is not None:
            detail = f"{holds.place} has the same key and was changed last" + (f"; other {names}" if fields else "")
            findings.append(_about(row, "duplicate", detail, holds))
        elif fields:
            detail = f"{row.place} and {holds.place} differ in {names}"
            findings.append(_about(row if row.folder else holds, "table-differs", detail, holds))
    newest = in_folders[-1] if in_folders else None
    if newest is not None and holds.folder is None:
        findings += [
            _about(row, "duplicate", f"{newest.place} has the same key and was changed last", holds)
            for row in in_folders[:-1]
        ]
    if has_table and not any(row.folder is None for row in ranked):
        findings.append(_about(holds, "folder-only", "the table has no such row", holds))
    if has_folders and newest is None:
        findings.append(_about(holds, "table-only", "no folder has this row, or none that can be taken", holds))
    return Choice(holds, losing, findings)


def _about(row: Candidate, kind: str, detail: str, holds: Candidate) -> Finding:
    number = row.row if row.folder is not None else None
    return Finding(kind, detail, folder=row.folder, row=number, key=row.key, taken=holds.place)
