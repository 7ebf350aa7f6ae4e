"""The decision behind every write: requests and what they stand on go in, events come out. No I/O.

The writer collects whatever is waiting into groups, loads the states they touch, and asks `decide`. A group is one
caller's atomic unit: a single put, or a batch. A group that cannot be done fails alone and leaves no trace in the
sequence; a request whose record is already as asked yields no event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .clock import HybridClock
from .conflict import (
    Disagreements,
    Policy,
    check_version,
    disagreements,
    needs_history,
    outcome_of,
    same,
    settle,
    sums,
)
from .conflict_list import folded, seen_state
from .definition import fields_apart, merged_definition
from .errors import DefinitionRefused, RecordUnknown, RefoldError, RequestReused, ValueRefused, VersionUnknown
from .events import TAGS, Event, Head, Kind, seal
from .fold import State, fold, is_concurrent, latest
from .schema import Schema, evolve, from_data, to_data
from .values import show
from .vector import covers, format_vector, includes

if TYPE_CHECKING:
    from .rules import Broken, Rules

Record = tuple[str, str]

BEGAN = "began"
"""In the meta of a replica's first event, the version vector of the log that it began to write on, if that was not
empty: so a log tells of each restored copy, and of each replica that joined, what it started from."""


class Operation(Enum):
    """What a caller asks for. A note is a tag or a restore; the last two settle a conflict, by values or by absence."""

    PUT = "put"
    PATCH = "patch"
    DELETE = "delete"
    DEFINE = "define"
    NOTE = "note"
    RESOLVE = "resolve"
    RESOLVE_ABSENT = "resolve-absent"


class Request(msgspec.Struct, frozen=True, gc=False):
    """One asked-for change, its values already checked and in their stored spelling.

    `seen` is what the writer had seen of the record, where that may be less than is there: a version vector, or a
    position of the log up to which it knew the record. `at` is when the change was made (Unix milliseconds), for
    history that is told late; an event is never older than the one before it, so what comes too late is as of then.
    """

    operation: Operation
    collection: str
    key: str
    values: dict[str, Any]
    actor: str = ""
    meta: dict[str, str] = {}
    if_version: str | int | None = None
    request_id: str | None = None
    seen: Mapping[str, int] | int | None = None
    at: int | None = None


class Apart(tuple[Request, ...]):
    """Requests that wait together and are answered each by itself: one that is refused leaves the others alone.

    Their order is that of one writer who had seen nothing of what they do: of one record, the later know the earlier.
    """

    __slots__ = ()


class Pushed(Apart):
    """Requests of a client that keeps no log: it is told, with each answer, the state that its record has then."""

    __slots__ = ()


class Repeat(NamedTuple):
    """The answer to a request that was written before under its request id: that event."""

    event: Event


Answered = Event | Repeat | RefoldError | None


class Ground(msgspec.Struct):
    """What decisions stand on: the states of the records asked about, the schemas, and where the replica's chain ends.

    `vector` is what the log holds. `requests` holds the event of every request id that was used before; `history` gives
    a record's events, for the few settlements that need them. `rules` are those between records, if there are any.
    """

    replica: str
    head: Head
    clock: HybridClock
    schemas: Mapping[str, Schema]
    states: dict[Record, State]
    requests: dict[str, Event]
    vector: Mapping[str, int]
    history: Callable[[Record], Sequence[Event]]
    rules: Rules | None = None


class Decision(msgspec.Struct):
    """What is to be written: events with their bytes, the states they leave, and each group's answer.

    An answer is the group's events, None for a request that changed nothing, or the error that refused the group; of
    requests that are `Apart`, errors stand among the events. `left` has, of each group that is `Pushed`, the states
    that it left its requests' records in.
    """

    events: list[Event]
    bodies: list[bytes]
    hashes: list[bytes]
    states: dict[Record, State]
    answers: list[list[Answered] | Exception]
    left: list[list[State | None]]
    head: Head


def version_token(state: State | None) -> str:
    """A record's version vector as the token that callers state with `if_version`; empty when it never was."""
    return format_vector(state.version) if state is not None else ""


def settled_values(
    state: State,
    record: Record,
    schema: Schema | None,
    history: Callable[[Record], Sequence[Event]],
    found: Disagreements | None = None,
) -> tuple[dict[str, Any], bool]:
    """A record's fields and presence as its policy settles them; `found` is what of it disagrees, if that is known."""
    if schema is not None and record[1]:
        state = schema.read(state)
    if found is None:
        if not is_concurrent(state):
            return latest(state)
        found = disagreements(state)
    policy = schema.policy if schema is not None else Policy()
    return outcome_of(state, policy, found, _read_events(schema, history(record)) if sums(found, policy) else ())


def _read_events(schema: Schema | None, events: Sequence[Event]) -> Sequence[Event]:
    return events if schema is None else [schema.read_event(event) for event in events]


def settled_branches(
    state: State, record: Record, schema: Schema | None, history: Callable[[Record], Sequence[Event]]
) -> dict[str, dict[str, Any]]:
    """The losing branches that keep-both shows beside a record, each whole, by the keys they have there."""
    if schema is None or not schema.keeps_both or not is_concurrent(state := schema.read(state)):
        return {}
    events = _read_events(schema, history(record)) if needs_history(state, schema.policy) else ()
    branches = settle(*record, state, schema.policy, events).branches
    return {key: {**values, schema.collection.key: key} for key, values in sorted(branches.items())}


def branch_of(key: str) -> str:
    """The key of the record that a branch with this key would stand beside; empty when it can be none."""
    return key.rpartition("~")[0]


def _is_retry(request: Request, earlier: Event) -> bool:
    """Whether a request may have written this event: it is about the same record and says nothing else.

    An event holds the fields that differed, and a creation all of them, so one may have fewer or more than was asked.
    """
    if earlier.record != (request.collection, request.key):
        return False
    if (request.operation is Operation.DELETE) != (earlier.kind is Kind.DELETE):
        return False
    created = earlier.kind is Kind.CREATE
    names = request.values.keys() if created else earlier.data.keys()
    return all(
        name in earlier.data and name in request.values and same(earlier.data[name], request.values[name])
        for name in names
    )


class _Decider:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.states: dict[Record, State] = {}
        self.draft: dict[Record, State] = {}
        self.fresh: list[Event] = []
        self.requests = dict(ground.requests)
        self.head = ground.head
        self.decision = Decision([], [], [], self.states, [], [], ground.head)

    def changes(self, request: Request, state: State | None) -> tuple[Kind, dict[str, Any]] | None:
        """What an event has to say so that the record becomes as asked; None when it is so already."""
        record = request.collection, request.key
        if request.operation is Operation.DEFINE:
            old = merged_definition(state) if state is not None else {}
            wanted, merged = request.values, dict[str, Any]()
            if old and state is not None:
                name, apart = request.collection, fields_apart(state)
                standing = from_data(name, old)
                wanted = to_data(evolve(standing, from_data(name, wanted), apart))
                merged = {text: spec for text, spec in to_data(standing).items() if text.partition(":")[2] in apart}
            else:
                self.refuse_twin(request.collection)
            stored = (
                {"meta": {}, "priority": "normal", "documents": {}, **latest(state)[0]} if state is not None else {}
            )
            data = {
                name: value
                for name, value in wanted.items()
                if not same(stored.get(name), value) and not same(merged.get(name), value)
            }
            return (Kind.DEFINE, data) if data else None
        if request.operation is Operation.NOTE:
            return self.note(request, state)
        if request.operation is Operation.RESOLVE:
            return Kind.RESOLVE, dict(request.values)
        if request.operation is Operation.RESOLVE_ABSENT:
            return Kind.DELETE, {}
        schema = self.ground.schemas[request.collection]
        values: dict[str, Any] = {}
        present = False
        if state is not None:
            values, present = settled_values(state, record, schema, self.ground.history)
        if request.operation is Operation.DELETE:
            if state is None:
                raise RecordUnknown(*record)
            return (Kind.DELETE, {}) if present else None
        if not present:
            if request.operation is Operation.PATCH:
                raise RecordUnknown(*record)
            return Kind.CREATE, schema.whole(request.values)
        blank = schema.blank
        data = {
            name: value
            for name, value in request.values.items()
            if not same(values[name] if name in values else blank.get(name), value)
        }
        key = schema.collection.key
        if key in data:
            raise ValueRefused(schema.name, key, "a key never changes", show(data[key]))
        return (Kind.UPDATE, data) if data else None

    def note(self, request: Request, state: State | None) -> tuple[Kind, dict[str, Any]] | None:
        """What is to be said about the archive itself. A tag that names no vector is of what the log holds now."""
        known = latest(state)[0] if state is not None else {}
        data = {name: value for name, value in request.values.items() if not same(known.get(name), value)}
        if (request.collection, request.key) != TAGS:
            return (Kind.RESTORE, data) if data else None
        seq = self.head.seq + len(self.fresh)
        now = {**self.ground.vector, self.ground.replica: seq} if seq else dict(self.ground.vector)
        data = {name: now if vector == {} else vector for name, vector in data.items()}
        return (Kind.TAG, data) if data else None

    def refuse_twin(self, name: str) -> None:
        """Refuses a new collection that SQL tools could not tell from another; a definition has no key."""
        drafted = (collection for collection, key in (*self.states, *self.draft) if not key)
        for other in (*self.ground.schemas, *drafted):
            if other != name and other.casefold() == name.casefold():
                raise DefinitionRefused(name, f"{other!r} differs in case alone, which SQL tools cannot tell apart")

    def answer(self, request: Request, *, apart: bool = False) -> Event | Repeat | None:
        """The event that answers a request, folded into the draft; None when nothing needs to change."""
        record = request.collection, request.key
        request_id = request.request_id
        if request_id is not None and request_id in self.requests:
            earlier = self.requests[request_id]
            known = self.ground.schemas.get(request.collection)
            if not _is_retry(request, known.read_event(earlier) if known is not None else earlier):
                raise RequestReused(request_id, f"{earlier.kind} of {earlier.collection} {earlier.key!r}", *record)
            return Repeat(earlier)
        before = self.states.get(record) or self.ground.states.get(record)
        state = self.draft.get(record) or before
        if isinstance(request.if_version, int):
            newest = max((event.position for event in self.ground.history(record)), default=0)
            check_version(*record, str(request.if_version), str(newest))
        elif request.if_version is not None:
            check_version(*record, request.if_version, version_token(before if apart else state))
        context = state.version if state is not None else {}
        if request.seen is not None and not self.has_seen(request, state):
            seen = self.view(request, state)
            context = seen.version if seen is not None else {}
            change = self.stale_changes(request, seen)
        else:
            change = self.changes(request, state)
        if change is None:
            return None
        ground = self.ground
        schema = ground.schemas.get(request.collection)
        seq = self.head.seq + len(self.fresh) + 1
        event = Event(
            ground.replica,
            seq,
            ground.clock.tick(request.at),
            change[0],
            request.collection,
            request.key,
            change[1],
            context,
            request.actor,
            schema.collection.version if schema is not None else 1,
            seq,
            request_id,
            request.meta if seq > 1 or not ground.vector else {BEGAN: format_vector(ground.vector), **request.meta},
            self.head.hash,
        )
        self.draft[record] = fold(state, event)
        self.fresh.append(event)
        if request_id is not None:
            self.requests[request_id] = event
        return event

    def has_seen(self, request: Request, state: State | None) -> bool:
        """Whether the writer knew the record as it stands, or as an earlier request of its group left it."""
        if state is None:
            return not request.seen
        record = request.collection, request.key
        if record in self.draft:
            base = self.states.get(record) or self.ground.states.get(record)
            return base is None or self.is_clear(request, base, self.view(request, state))
        return isinstance(request.seen, Mapping) and includes(request.seen, state.version)

    def is_clear(self, request: Request, base: State, seen: State | None) -> bool:
        """Whether a later change of one record may say that its writer had seen all that stood before the group.

        A vector cannot say "what the group did, but not what stood there", so it may when it touches nothing unseen.
        """
        known = seen.version if seen is not None else {}
        base = self.ground.schemas[request.collection].read(base)
        unseen = [write for write in base.writes if not covers(known, write.replica, write.seq)]
        if request.operation is Operation.DELETE:
            return not unseen
        return all(write.present is not False and not write.data.keys() & request.values.keys() for write in unseen)

    def view(self, request: Request, state: State | None) -> State | None:
        """The record as the writer had seen it. Raises `VersionUnknown` for a version that it never had."""
        record = request.collection, request.key
        seen = request.seen
        history = self.ground.history(record)
        if isinstance(seen, int):
            return folded(event for event in history if event.position <= seen)
        assert seen is not None
        if state is None or not includes(state.version, seen):
            raise VersionUnknown(*record, format_vector(seen))
        return seen_state(seen, history)

    def stale_changes(self, request: Request, seen: State | None) -> tuple[Kind, dict[str, Any]] | None:
        """What an event says whose writer had seen the record as it was: how it is to differ from that."""
        schema = self.ground.schemas[request.collection]
        values: dict[str, Any] = {}
        present = False
        if seen is not None:
            version = seen.version

            def history(record: Record) -> list[Event]:
                return [e for e in self.ground.history(record) if covers(version, e.replica, e.seq)]

            values, present = settled_values(seen, (request.collection, request.key), schema, history)
        if request.operation is Operation.DELETE:
            return (Kind.DELETE, {}) if present else None
        if not present:
            if request.operation is Operation.PATCH:
                raise RecordUnknown(request.collection, request.key)
            return Kind.CREATE, schema.whole(request.values)
        blank = schema.blank
        data = {
            name: value for name, value in request.values.items() if not same(values.get(name, blank.get(name)), value)
        }
        return (Kind.UPDATE, data) if data else None

    def alone(self, request: Request) -> Answered:
        """The answer to one of several requests that are apart; one that is refused leaves no trace."""
        try:
            return self.answer(request, apart=True)
        except RefoldError as error:
            return error

    def group(self, requests: Sequence[Request]) -> list[Answered] | Exception:
        """The answers to one group, or why it is refused; what it writes is chained and sealed.

        Whatever is wrong with a group, it is the business of its caller alone.
        """
        apart = isinstance(requests, Apart)
        refused: dict[int, RefoldError] = {}
        while True:
            self.draft, self.fresh = {}, []
            try:
                answers = [
                    refused.get(index) or (self.alone(request) if apart else self.answer(request))
                    for index, request in enumerate(requests)
                ]
                broken = self.broken(apart=apart)
            except Exception as error:  # noqa: BLE001 - it is raised where the group was submitted
                self.undo()
                return error
            if not broken:
                break
            self.undo()
            refused |= _blamed(answers, broken)
        self.states.update(self.draft)
        if self.ground.rules is not None:
            self.ground.rules.accept()
        self.chain(linked=not apart)
        return answers

    def left(self, requests: Sequence[Request]) -> list[State | None]:
        """The states in which a group that was pushed left its records."""
        if not isinstance(requests, Pushed):
            return []
        records = [(request.collection, request.key) for request in requests]
        return [self.states.get(record) or self.ground.states.get(record) for record in records]

    def broken(self, *, apart: bool) -> Mapping[Record, Broken]:
        """What the group would break of the rules between records; raised, where it is written whole or not at all."""
        if self.ground.rules is None:
            return {}
        broken = self.ground.rules.judge(
            lambda record: self.states.get(record) or self.ground.states.get(record), self.draft
        )
        if broken and not apart:
            raise next(iter(broken.values())).error
        return broken

    def undo(self) -> None:
        """Forgets that requests of the group were written under their ids."""
        for event in self.fresh:
            if event.request_id is not None:
                del self.requests[event.request_id]

    def chain(self, *, linked: bool = True) -> None:
        """Links the group's events to the replica's chain and, if they belong together, to each other; seals them."""
        decision = self.decision
        last = self.head.seq + len(self.fresh)
        for event in self.fresh:
            if linked and event.seq != last:
                msgspec.structs.force_setattr(event, "batch", last)
            msgspec.structs.force_setattr(event, "prev", self.head.hash)
            body, digest = seal(event)
            decision.events.append(event)
            decision.bodies.append(body)
            decision.hashes.append(digest)
            self.head = Head(event.seq, digest)


def _blamed(answers: Sequence[Answered], broken: Mapping[Record, Broken]) -> dict[int, RefoldError]:
    """Of the requests that broke something, the last that wrote the field, or that removed the record."""
    own: dict[Record, list[tuple[int, Event]]] = {record: [] for record in broken}
    for index, answer in enumerate(answers):
        if isinstance(answer, Event) and answer.record in own:
            own[answer.record].append((index, answer))
    blamed: dict[int, RefoldError] = {}
    for record, (field, error) in broken.items():
        did = [index for index, e in own[record] if (field in e.data if field else e.kind is Kind.DELETE)]
        blamed[(did or [index for index, _ in own[record]])[-1]] = error
    return blamed


def decide(groups: Sequence[Sequence[Request]], ground: Ground) -> Decision:
    """The events that answer `groups`, in their order, as one run of the replica's chain."""
    decider = _Decider(ground)
    decision = decider.decision
    for requests in groups:
        decision.answers.append(decider.group(requests))
        decision.left.append(decider.left(requests))
    decision.head = decider.head
    return decision
