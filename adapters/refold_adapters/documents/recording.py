"""What a look at the documents found, written into the log: new hashes, new places, and references that lead nowhere.

Every change is an ordinary event of the record, made only where the record still says what it said when it was looked
at, and refused where somebody was faster. No file is ever touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from refold import Engine, Event, RefoldError
from refold.decide import Apart, Operation, Repeat, Request, settled_values, version_token
from refold.errors import StorageFailed, StorePoisoned
from refold.schema import Schema
from refold_adapters.wording import Wording

from .errors import DocumentsAway
from .findings import DocumentFinding
from .notes import Trouble
from .paths import Absent
from .scanning import Scan, readable

RECORDED = ("document-new", "document-changed", "document-hash", "document-moved")
"""What a record can be brought in line with."""

Wanted = tuple[Trouble, dict[str, Any]]


class Cleared(msgspec.Struct, kw_only=True):
    """What a clearing did, or would do: references to files that are missing, those left, and the size of the whole."""

    collections: list[str]
    write: bool
    documents: int = 0
    missing: int = 0
    cleared: int = 0
    findings: list[DocumentFinding] = []
    refused: list[DocumentFinding] = []
    unlisted: int = 0

    @property
    def ok(self) -> bool:
        """Whether no reference to a missing file is left that was to be cleared."""
        return not self.refused


async def record(scan: Scan, engine: Engine, wording: Wording) -> None:
    """Writes the hashes and places that were found into the records; what could not be written stays a finding."""
    async for page in _pages(scan, RECORDED):
        wanted: list[Wanted] = []
        left: list[tuple[int, str, str]] = []
        for trouble in page:
            values = await asyncio.to_thread(_recorded, scan, trouble)
            if isinstance(values, str):
                left.append((trouble.id, trouble.finding.kind, values))
            else:
                wanted.append((trouble, values))
        done, refused = await _write(engine, wanted, wording)
        left += [(trouble.id, "document-unrecorded", f"{trouble.finding.kind}: {why}") for trouble, why in refused]
        scan.report.recorded += len(done)
        await asyncio.to_thread(scan.notes.remove, [trouble.id for trouble in done])
        await asyncio.to_thread(scan.notes.change, left)


async def clear_missing(
    scan: Scan, engine: Engine, wording: Wording, *, write: bool, force: bool = False, limit: int = 10_000
) -> Cleared:
    """Takes references to files that are missing out of the records, with their hashes; without `write` only tells.

    A file that has moved is none of them. Raises `DocumentsAway`, with nothing written, when more than half of all
    documents are missing, unless this is forced, and when the archive's directory is gone or another by now.
    """
    report = Cleared(collections=scan.report.collections, write=write, documents=scan.report.documents)
    report.missing = await asyncio.to_thread(scan.notes.missing)
    if write and not force and report.missing * 2 > report.documents:
        why = f"{report.missing} of {report.documents} documents are missing, more than half"
        raise DocumentsAway(str(scan.root), why)
    async for page in _pages(scan, ["document-missing"]):
        wanted = [(trouble, _cleared(engine, trouble)) for trouble in await asyncio.to_thread(_still_gone, scan, page)]
        done, refused = await _write(engine, wanted, wording, dry=not write)
        report.cleared += len(done)
        for trouble in done:
            _list(report, report.findings, readable(trouble.finding), limit)
        for trouble, why in refused:
            _list(report, report.refused, msgspec.structs.replace(readable(trouble.finding), detail=why), limit)
    return report


def _list(report: Cleared, findings: list[DocumentFinding], found: DocumentFinding, limit: int) -> None:
    if len(findings) < limit:
        findings.append(found)
    else:
        report.unlisted += 1


async def _pages(scan: Scan, kinds: Sequence[str]) -> Any:
    pages = scan.notes.troubles(kinds)
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        yield page


def _still_gone(scan: Scan, page: list[Trouble]) -> list[Trouble]:
    """Those of them that are missing also now, right before something is written."""
    scan.must_be_there()
    gone = []
    for trouble in page:
        try:
            scan.below.look(trouble.finding.path)
        except Absent as absent:
            gone += [trouble] if absent.kind == "document-missing" else []
    return gone


def _fields(engine: Engine, found: DocumentFinding) -> tuple[Schema, str, str]:
    """The schema of the record, its field with the path and its field with the hash, which may be none."""
    assert found.collection is not None
    assert found.field is not None
    schema = engine.schemas[found.collection]
    return schema, found.field, schema.collection.documents.get(found.field, "")


def _recorded(scan: Scan, trouble: Trouble) -> dict[str, Any] | str:
    """The values that a record is to have; a text that says why none can be told."""
    found = trouble.finding
    _, path, hashed = _fields(scan.engine, found)  # type: ignore[arg-type]
    if found.kind != "document-moved":
        return {hashed: found.hash}
    if len(found.places) > 1:
        return "it is not there, but at several other places"
    if scan.notes.rivals(trouble.said) > 1:
        return "it is not there, but elsewhere, as another one that is missing and has the same bytes may be"
    try:
        found.places[0].encode()
    except UnicodeEncodeError:
        return "it is not there, but elsewhere, under a name that is no text"
    return {path: found.places[0]}


def _cleared(engine: Engine, trouble: Trouble) -> dict[str, Any]:
    schema, path, hashed = _fields(engine, trouble.finding)
    fields = schema.collection.fields
    return {name: None if fields[name].null else "" for name in (path, hashed) if name}


async def _write(
    engine: Engine, wanted: Sequence[Wanted], wording: Wording, *, dry: bool = False
) -> tuple[list[Trouble], list[tuple[Trouble, str]]]:
    """Writes changes of records, unless it is dry; those that were written, and those that were not with the reason."""
    done: list[Trouble] = []
    refused: list[tuple[Trouble, str]] = []
    groups: dict[tuple[str, str], list[Wanted]] = {}
    for trouble, values in wanted:
        record = str(trouble.finding.collection), str(trouble.finding.key)
        groups.setdefault(record, []).append((trouble, values))
    states = await engine.states(list(groups))
    requests: list[Request] = []
    asked: list[list[Wanted]] = []
    for record, group in groups.items():
        state, schema = states.get(record), engine.schemas[record[0]]
        stored = settled_values(state, record, schema, lambda _: ())[0] if state is not None else {}
        current = [(trouble, values) for trouble, values in group if _stands(schema, stored, trouble)]
        refused += [(one[0], "the record was changed meanwhile, or is a branch") for one in group if one not in current]
        if state is None or not current:
            continue
        try:
            changes = schema.store({name: value for _, values in current for name, value in values.items()})
        except RefoldError as error:
            refused += [(trouble, str(error)) for trouble, _ in current]
            continue
        token = version_token(state)
        requests.append(Request(Operation.PATCH, *record, changes, wording.actor, wording.meta, if_version=token))
        asked.append(current)
    answers = await engine.answers(Apart(requests)) if requests and not dry else [None] * len(requests)
    for group, answer in zip(asked, answers, strict=True):
        if isinstance(answer, StorageFailed | StorePoisoned):
            raise answer
        if isinstance(answer, Event | Repeat) or answer is None:
            done += [trouble for trouble, _ in group]
        else:
            refused += [(trouble, str(answer)) for trouble, _ in group]
    return done, refused


def _stands(schema: Schema, stored: Mapping[str, Any], trouble: Trouble) -> bool:
    """Whether the record still says what was looked at."""
    found = trouble.finding
    hashed = schema.collection.documents.get(str(found.field), "")
    said = str(stored.get(hashed) or "").strip().lower() if hashed else trouble.said
    return stored.get(str(found.field)) == found.path and said == trouble.said
