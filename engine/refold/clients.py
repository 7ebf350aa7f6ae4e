"""Thin clients: devices that keep no log, and push what they changed with the version they had seen.

A change becomes an event whose context is what the client had seen, and which says only how the record is to differ
from that. So a stale change is treated like one of a replica that was away: it merges where it touches other fields,
and is a conflict where it does not: dots apart from contexts, as in Preguiça et al., "Dotted version vectors" (2012).
Of one push, the changes of one record follow each other: the second knows what the first did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .attendance import Refusal
from .batch import Wording, delete_request, patch_request, put_request, schema_for
from .conflict_list import disputes_of
from .decide import Answered, Pushed, Repeat, Request, version_token
from .errors import RefoldError, ValueRefused, VersionMismatch
from .events import Event
from .fold import State
from .rules import foreseen, has_rules
from .schema import Schema
from .values import show
from .vector import covers, format_vector, parse_vector

if TYPE_CHECKING:
    from .engine import Engine

OPERATIONS = ("create", "update", "delete")

PART = 1000
"""Changes of a push that are one commit."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change as a client asks for it.

    `version` is what the client had seen of the record: the token of a record, a position of the log, or None for
    nothing known, which for an update or a delete means that it applies to whatever is there. `schema_version` is the
    version of the collection that the client knows, the current one if it is None: values are read from there.
    """

    operation: str
    collection: str
    key: Any
    values: Mapping[str, Any] = {}
    version: str | int | None = None
    request_id: str | None = None
    schema_version: int | str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one change, by its place in the push: the event, None where it was so already, and the record's
    version now; or why it was refused. `conflicts` are the ids of those it is a side of."""

    index: int
    request_id: str | None
    collection: str
    key: str
    event: Event | None = None
    version: str = ""
    conflicts: list[str] = []
    error: RefoldError | None = None


class PushResult(msgspec.Struct, frozen=True):
    """The answers to a push, each change in one of the lists.

    `applied`: the client knew the record as it was. `merged`: it did not, and nothing disagrees. `conflicts`: it is a
    side of a conflict, or, where that was asked for, refused for its stale version. `failed`: refused. `duplicates`:
    written by an earlier push under the same request id.
    """

    applied: list[Answer] = []
    merged: list[Answer] = []
    conflicts: list[Answer] = []
    failed: list[Answer] = []
    duplicates: list[Answer] = []


def _seen(change: Change) -> Mapping[str, int] | int | None:
    if change.version is None:
        return {} if change.operation == "create" else None
    if type(change.version) not in (str, int):
        raise ValueRefused(change.collection, "version", "is a token or a position", show(change.version))
    return parse_vector(change.version) if isinstance(change.version, str) else change.version


def request_of(schemas: Mapping[str, Schema], change: Change, wording: Wording, *, strict: bool) -> Request:
    """What a change asks of the writer. Raises what refuses it before it is tried."""
    schema_for(schemas, change.collection)
    words = wording
    if change.request_id is not None:
        words = msgspec.structs.replace(wording, request_id=change.request_id)
    if change.schema_version is not None:
        words = msgspec.structs.replace(words, schema_version=change.schema_version)
    match change.operation:
        case "create":
            request = put_request(schemas, change.collection, change.values, words, change.key)
        case "update":
            request = patch_request(schemas, change.collection, change.key, change.values, words)
        case "delete":
            request = delete_request(schemas, change.collection, change.key, words)
        case _:
            raise ValueRefused(change.collection, "operation", f"is none of {', '.join(OPERATIONS)}", change.operation)
    seen = _seen(change)
    if seen is None:
        return request
    if strict and change.version is not None:
        stated = format_vector(seen) if isinstance(seen, Mapping) else seen
        return msgspec.structs.replace(request, if_version=stated)
    return msgspec.structs.replace(request, seen=seen)


async def push(engine: Engine, changes: Sequence[Change], wording: Wording, *, strict: bool) -> PushResult:
    """See `Engine.push`."""
    asked: dict[tuple[str, str], list[tuple[int, Request]]] = {}
    result = PushResult()
    for index, change in enumerate(changes):
        try:
            request = request_of(engine.schemas, change, wording, strict=strict)
        except RefoldError as error:
            blank = Answer(index=index, request_id=change.request_id, collection=change.collection, key=str(change.key))
            _refuse(result, blank, error)
        else:
            asked.setdefault((request.collection, request.key), []).append((index, request))
    for part in _parts(_parents_first(asked, engine.schemas)):
        outcomes, states = await engine.pushed(Pushed(request for _, request in part))
        for (index, request), outcome, state in zip(part, outcomes, states, strict=True):
            known = engine.schemas[request.collection]
            _place(result, index, request, outcome, known.read(state) if state is not None else None)
    if len(changes) > 1:
        for answers in (result.applied, result.merged, result.conflicts, result.failed, result.duplicates):
            answers.sort(key=lambda answer: answer.index)
    return result


def refusals(result: PushResult, changes: Sequence[Change], time: int) -> list[Refusal]:
    """What of a push was refused, as it is remembered."""
    refused = (answer for answer in (*result.failed, *result.conflicts) if answer.error is not None)
    return [
        Refusal(
            collection=answer.collection,
            key=answer.key,
            operation=str(changes[answer.index].operation),
            time=time,
            code=answer.error.code,
            message=str(answer.error),
        )
        for answer in refused
        if answer.error is not None
    ]


def taken(result: PushResult) -> list[tuple[str, str]]:
    """The records whose changes a push wrote, or found written."""
    lists = (result.applied, result.merged, result.duplicates, result.conflicts)
    return [(one.collection, one.key) for answers in lists for one in answers if one.error is None]


def _parents_first(
    asked: Mapping[tuple[str, str], list[tuple[int, Request]]], schemas: Mapping[str, Schema]
) -> list[list[tuple[int, Request]]]:
    """The changes by record, a record after those that it is to refer to and that must be there: so a push may be more
    than one commit."""
    if not has_rules(schemas):
        return list(asked.values())
    ordered: dict[tuple[str, str], None] = {}
    begun: set[tuple[str, str]] = set()
    waiting = list(reversed(list(asked)))
    while waiting:
        record = waiting[-1]
        targets = foreseen(schemas, (request for _, request in asked[record]))[0] if record not in begun else ()
        begun.add(record)
        parents = sorted(target for target in targets if target in asked and target not in begun)
        if parents:
            waiting += parents
        else:
            ordered[waiting.pop()] = None
    return [asked[record] for record in ordered]


def _parts(groups: Sequence[list[tuple[int, Request]]]) -> Iterator[list[tuple[int, Request]]]:
    """The changes in commits of a bounded size, those of one record together."""
    part: list[tuple[int, Request]] = []
    for group in groups:
        if part and len(part) + len(group) > PART:
            yield part
            part = []
        part += group
    if part:
        yield part


def _refuse(result: PushResult, blank: Answer, error: RefoldError) -> None:
    """Answers a change that is refused."""
    answer = msgspec.structs.replace(blank, error=error)
    (result.conflicts if isinstance(error, VersionMismatch) else result.failed).append(answer)


def _place(result: PushResult, index: int, request: Request, outcome: Answered, state: State | None) -> None:
    """Puts the answer to a change where it belongs, given the state that its record was left in."""
    event = outcome.event if isinstance(outcome, Repeat) else outcome
    if isinstance(event, RefoldError):
        blank = Answer(index=index, request_id=request.request_id, collection=request.collection, key=request.key)
        _refuse(result, blank, event)
        return
    conflicts: list[str] = []
    if isinstance(outcome, Repeat):
        place = result.duplicates
    elif event is None or state is None:
        place = result.applied
    elif conflicts := disputes_of(state, event.dot):
        place = result.conflicts
    else:
        place = result.merged if is_merged(event, state) else result.applied
    place.append(
        Answer(
            index=index,
            request_id=request.request_id,
            collection=request.collection,
            key=request.key,
            event=event,
            version=version_token(state),
            conflicts=conflicts,
        )
    )


def is_merged(event: Event, state: State) -> bool:
    """Whether a record holds something that the writer of one of its events had not seen."""
    return any(
        (write.replica, write.seq) != event.dot
        and write.time < event.time
        and not covers(event.context, write.replica, write.seq)
        for write in state.writes
    )
