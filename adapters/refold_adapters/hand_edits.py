"""Edits made by hand become events, and meet what was written meanwhile as a replica's writes would.

Each edited file is compared with what it was made of (`folders/comparing.py`), and every change is asked for with the
version that its author had seen, a row by itself. Then the file is put aside and the folder written anew. The file
stays aside where a row of it could not be taken; else all of it is in the log, and it is removed. A run that is broken
off may be begun again: a change has a request id made of the file, so it is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

import msgspec

from refold import Engine, RefoldError
from refold.batch import Wording, delete_request, patch_request, put_request, worded
from refold.conflict_list import disputes_of
from refold.decide import Apart, Repeat, Request

from .folders import FolderReplicas
from .folders.comparing import Comparison, Refusal, Wanted
from .folders.edits import Edit

LISTED = 1000
"""Rows and edits that a report lists; the others are counted."""

_PART = 500


class Adopted(msgspec.Struct):
    """What became of edits: how many files, records and events; rows that were refused; files that stay put aside."""

    files: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    conflicts: int = 0
    events: int = 0
    refused: list[Refusal] = []
    unlisted: int = 0
    kept: list[str] = []
    changes: list[dict[str, Any]] = []


class Edits(msgspec.Struct):
    """Edits that wait to be adopted: the first of them, and how many there are."""

    count: int
    listed: list[Edit]


async def edits_of(engine: Engine, *, limit: int = LISTED, sure: bool = False) -> Edits:
    """The edits in an archive's folders. Unless `sure`, files whose size and age tell nothing are passed over."""

    def find(folders: FolderReplicas) -> Edits:
        found = folders.edits(sure=sure)
        listed = list(islice(found, limit))
        return Edits(len(listed) + sum(1 for _ in found), listed)

    return await engine.projected("folders", find)


class _Adoption:
    def __init__(self, engine: Engine, wording: Wording, *, dry_run: bool) -> None:
        self._engine = engine
        self._wording = wording
        self._dry_run = dry_run
        self.report = Adopted()

    async def adopt(self, edit: Edit) -> None:
        """Takes one edited file in."""
        comparison = await self._engine.projected("folders", lambda folders: folders.comparison(edit))
        self.report.files += 1
        before = len(self.report.refused) + self.report.unlisted
        try:
            steps = comparison.run()
            while page := await self._engine.projected("folders", lambda _: list(islice(steps, _PART))):
                await self._page(comparison, page)
        finally:
            await self._engine.projected("folders", lambda _: comparison.close())
        if not self._dry_run:
            sound = len(self.report.refused) + self.report.unlisted == before
            kept = await self._engine.projected("folders", lambda folders: folders.adopted(edit, keep=not sound))
            self.report.kept += [f"{edit.folder}/{name}" if edit.folder else name for name in kept]

    async def _page(self, comparison: Comparison, page: Sequence[Wanted | Refusal]) -> None:
        edit = comparison.edit
        asked: list[tuple[Wanted, Request]] = []
        for step in page:
            if isinstance(step, Refusal):
                self._refuse(step)
                continue
            try:
                asked.append((step, self._request(comparison, step)))
            except RefoldError as error:
                field = error.fields().get("field")
                self._refuse(Refusal(edit.folder, edit.standing, step.row, field, error.code, str(error)))
        if self._dry_run:
            for wanted, request in asked:
                self._count(wanted)
                if len(self.report.changes) < LISTED:
                    told = {"folder": edit.folder, "file": edit.standing, "row": wanted.row}
                    told |= {"operation": wanted.operation, "collection": edit.collection, "key": wanted.key}
                    self.report.changes.append({**told, "values": request.values})
            return
        answers = await self._engine.answers(Apart(request for _, request in asked)) if asked else []
        states = await self._engine.states([(request.collection, request.key) for _, request in asked])
        for (wanted, request), answer in zip(asked, answers, strict=True):
            if isinstance(answer, RefoldError):
                field = answer.fields().get("field")
                self._refuse(Refusal(edit.folder, edit.standing, wanted.row, field, answer.code, str(answer)))
                continue
            event = answer.event if isinstance(answer, Repeat) else answer
            if event is not None:
                self._count(wanted)
                self.report.events += 1
                schema, state = self._engine.schemas[request.collection], states[request.collection, request.key]
                self.report.conflicts += bool(disputes_of(schema.read(state), event.dot))

    def _count(self, wanted: Wanted) -> None:
        name = f"{wanted.operation}d"
        setattr(self.report, name, getattr(self.report, name) + 1)

    def _refuse(self, refusal: Refusal) -> None:
        if len(self.report.refused) < LISTED:
            self.report.refused.append(refusal)
        else:
            self.report.unlisted += 1

    def _request(self, comparison: Comparison, wanted: Wanted) -> Request:
        """What a change asks of the writer. Raises what refuses it before it is tried."""
        edit = comparison.edit
        parts = [edit.folder, edit.file, edit.hash, wanted.operation, wanted.key]
        name = sha256(comparison.context + msgspec.json.encode(parts)).hexdigest()
        words = msgspec.structs.replace(self._wording, request_id=f"edit-{name[:32]}")
        schemas = self._engine.schemas
        match wanted.operation:
            case "create":
                request = put_request(schemas, edit.collection, wanted.values, words)
            case "update":
                request = patch_request(schemas, edit.collection, wanted.key, wanted.values, words)
            case _:
                request = delete_request(schemas, edit.collection, wanted.key, words)
        return msgspec.structs.replace(request, seen=wanted.seen)


def _mend(edits: Sequence[Edit], folders: FolderReplicas) -> None:
    folders.mend(sorted({edit.folder for edit in edits}))


async def adopt_edits(
    engine: Engine,
    folders: Sequence[str] = (),
    *,
    dry_run: bool = False,
    actor: str = "",
    reason: str | None = None,
) -> Adopted:
    """Turns the edits in some folders, or in all, into events; a `dry_run` only tells which.

    Rows that cannot be taken are in the report, and their files stay, put aside under `.edited-` names. Raises
    `ProjectionUnknown` where no folders are kept, and `StorageFailed`.
    """
    adoption = _Adoption(engine, worded(Wording(), {"actor": actor, "reason": reason}), dry_run=dry_run)
    places = list(folders) or None
    edits = await engine.projected("folders", lambda kept: kept.edits(places))
    while page := await engine.projected("folders", lambda _: list(islice(edits, LISTED))):
        for edit in page:
            await adoption.adopt(edit)
        if not dry_run:
            await engine.settled()
            await engine.projected("folders", partial(_mend, page))
    return adoption.report
