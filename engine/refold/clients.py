"""Thin clients: devices that keep no log, and push what they changed with the version they had seen.

A change becomes an event whose context is what the client had seen, and which says only how the record is to differ
from that. So a stale change is treated like one of a replica that was away: it merges where it touches other fields,
and is a conflict where it does not: dots apart from contexts, as in Preguiça et al., "Dotted version vectors" (2012).
Of one push, the changes of one record follow each other: the second knows what the first did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .batch import Wording, delete_request, patch_request, put_request, schema_for
from .conflict_list import disputes_of
from .decide import Request, version_token
from .errors import (
    EngineClosed,
    ReadOnly,
    RefoldError,
    StorageFailed,
    StorePoisoned,
    ValueRefused,
    VersionMismatch,
)
from .events import Event
from .fold import State
from .schema import Schema
from .vector import covers, format_vector, parse_vector

if TYPE_CHECKING:
    from .engine import Engine

OPERATIONS = ("create", "update", "delete")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change as a client asks for it.

    `version` is what the client had seen of the record: the token of a record, a position of the log, or None for
    nothing known, which for an update or a delete means that it applies to whatever is there.
    """

    operation: str
    collection: str
    key: Any
    values: Mapping[str, Any] = {}
    version: str | int | None = None
    request_id: str | None = None


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
    return parse_vector(change.version) if isinstance(change.version, str) else change.version


def request_of(schemas: Mapping[str, Schema], change: Change, wording: Wording, *, strict: bool) -> Request:
    """What a change asks of the writer. Raises what refuses it before it is tried."""
    schema = schema_for(schemas, change.collection)
    words = msgspec.structs.replace(wording, request_id=change.request_id)
    match change.operation:
        case "create":
            values = {**change.values, schema.collection.key: change.key}
            request = put_request(schemas, change.collection, values, words)
        case "update":
            request = patch_request(schemas, change.collection, change.key, change.values, words)
        case "delete":
            request = delete_request(schemas, change.collection, change.key, words)
        case _:
            raise ValueRefused(change.collection, "operation", f"is none of {', '.join(OPERATIONS)}", change.operation)
    seen = _seen(change)
    if strict and change.version is not None:
        stated = format_vector(seen) if isinstance(seen, Mapping) else seen
        return msgspec.structs.replace(request, if_version=stated)
    return msgspec.structs.replace(request, seen=seen)


async def push(engine: Engine, changes: Sequence[Change], wording: Wording, *, strict: bool) -> PushResult:
    """See `Engine.push`."""
    asked: dict[tuple[str, str], list[tuple[int, Request]]] = {}
    answers: dict[int, Answer] = {}
    for index, change in enumerate(changes):
        blank = Answer(index=index, request_id=change.request_id, collection=change.collection, key=str(change.key))
        try:
            request = request_of(engine.schemas, change, wording, strict=strict)
        except RefoldError as error:
            answers[index] = msgspec.structs.replace(blank, error=error)
        else:
            answers[index] = msgspec.structs.replace(blank, key=request.key)
            asked.setdefault((request.collection, request.key), []).append((index, request))
    known = engine.position
    outcomes = await asyncio.gather(*(_submit(engine, group) for group in asked.values()))
    result, dots = PushResult(), set[tuple[str, int]]()
    states = await engine.states(list(asked))
    for index, outcome in (pair for found in outcomes for pair in found.items()):
        answer = answers[index]
        if isinstance(outcome, RefoldError):
            answers[index] = msgspec.structs.replace(answer, error=outcome)
            continue
        state = states.get((answer.collection, answer.key))
        fresh = outcome is None or (outcome.position > known and outcome.dot not in dots)
        if outcome is not None:
            dots.add(outcome.dot)
        answer = msgspec.structs.replace(answer, event=outcome, version=version_token(state))
        answers[index] = _place(result, answer, fresh=fresh, state=state)
    for answer in answers.values():
        if answer.error is not None:
            (result.conflicts if isinstance(answer.error, VersionMismatch) else result.failed).append(answer)
    return result


async def _submit(engine: Engine, group: Sequence[tuple[int, Request]]) -> dict[int, Event | RefoldError | None]:
    """The answers to the changes of one record: written together, or each by itself where one of them is refused."""
    try:
        events = await engine.submit([request for _, request in group])
        return {index: event for (index, _), event in zip(group, events, strict=True)}
    except (StorageFailed, StorePoisoned, ReadOnly, EngineClosed):
        raise
    except RefoldError as error:
        if len(group) == 1:
            return {group[0][0]: error}
    found: dict[int, Event | RefoldError | None] = {}
    for one in group:
        found |= await _submit(engine, [one])
    return found


def _place(result: PushResult, answer: Answer, *, fresh: bool, state: State | None) -> Answer:
    """Puts an answer where it belongs, given whether its event is new and the state of its record now."""
    event = answer.event
    if not fresh:
        result.duplicates.append(answer)
    elif event is None or state is None:
        result.applied.append(answer)
    elif ids := disputes_of(state, event.dot):
        answer = msgspec.structs.replace(answer, conflicts=ids)
        result.conflicts.append(answer)
    elif is_merged(event, state):
        result.merged.append(answer)
    else:
        result.applied.append(answer)
    return answer


def is_merged(event: Event, state: State) -> bool:
    """Whether a record holds something that the writer of one of its events had not seen."""
    return any(
        (write.replica, write.seq) != event.dot
        and write.time < event.time
        and not covers(event.context, write.replica, write.seq)
        for write in state.writes
    )
