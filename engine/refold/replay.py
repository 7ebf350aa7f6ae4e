"""From events to changes of state: what a commit and a replay have in common. Plain calls, run where the store says.

Restore is replay: `catch_up` is all there is to rebuilding the tables, and a commit does to the tables exactly what
replaying its events would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from .conflict_list import disputes
from .definition import fields_apart, merged_definition
from .errors import DefinitionRefused, FormatUnknown
from .events import Checkpoint, Event, Head, stored_event
from .fold import DIGEST_MODULUS, State, decode_state, encode_state, fold, fold_all, state_hash
from .ports import Changelog, Changes, Tables
from .schema import Schema, from_data

Record = tuple[str, str]

REPLAY_BATCH = 1000
"""Events folded and written together in a replay: enough to spread a commit's cost, little to hold in memory."""


def events_after(log: Changelog, after: int, limit: int) -> list[Event]:
    """At most `limit` events that stand after position `after`, in the order of the log."""
    return [stored_event(position, body) for position, body in log.bodies(after, limit)]


def newest_time(log: Changelog) -> int:
    """The greatest time of any event, 0 for an empty log: a replica's newest event has the greatest of its own."""
    newest = log.at(sorted(log.positions([(replica, head.seq) for replica, head in log.heads().items()])))
    return max((event.time for event in newest), default=0)


def heads_of(events: Sequence[Event]) -> dict[str, Head]:
    """The newest event of every replica in a run of events."""
    newest = {event.replica: event for event in events}
    return {replica: Head(event.seq, event.hash) for replica, event in newest.items()}


def advance(checkpoint: Checkpoint, events: Sequence[Event], digest: int | None = None) -> Checkpoint:
    """The checkpoint after a run of events, with the digest that holds there."""
    return Checkpoint(events[-1].position, {**checkpoint.heads, **heads_of(events)}, digest)


class Sealed(NamedTuple):
    """A run of events with their canonical bytes and the hashes of those."""

    events: Sequence[Event]
    bodies: Sequence[bytes]
    hashes: Sequence[bytes]

    def heads(self) -> dict[str, Head]:
        """Where the run leaves each of its replicas."""
        return {event.replica: Head(event.seq, digest) for event, digest in zip(self.events, self.hashes, strict=True)}


class Found(NamedTuple):
    """What stands of the records that a run is about: states as bytes and decoded, and what leads to their events."""

    bodies: Mapping[Record, bytes]
    states: Mapping[Record, State]
    history: Callable[[Sequence[Record]], Sequence[Event]]


def changes_of(
    checkpoint: Checkpoint,
    run: Sealed,
    states: Mapping[Record, State],
    found: Found,
    heads: Mapping[str, Head],
    schemas: Mapping[str, Schema],
) -> Changes:
    """What a run of events changes, given the states it leaves, what it found, where it ends, and the schemas then."""
    before = found.bodies
    records = [(event.collection, event.key) for event in run.events]
    newest = dict(zip(records, zip(run.bodies, run.hashes, strict=True), strict=True))
    after = {}
    digest = checkpoint.digest or 0
    for record, state in states.items():
        body, own = newest[record]
        data = after[record] = encode_state(state, body)
        digest += int.from_bytes(own, "big") if data is body else state_hash(*record, data)
        if record in before:
            digest -= state_hash(*record, before[record])
    end = Checkpoint(run.events[-1].position, {**checkpoint.heads, **heads}, digest % DIGEST_MODULUS)
    disputed = disputes(run.events, found.states, states, found.history, schemas)
    return Changes(run.events, states, before, after, end, disputed)


def find(log: Changelog, tables: Tables, records: Iterable[Record]) -> Found:
    """What stands in the tables of these records."""
    bodies = tables.load(records)
    states = {record: decode_state(data) for record, data in bodies.items()}
    return Found(bodies, states, lambda records: log.at(tables.history(records)))


def fold_events(
    log: Changelog, tables: Tables, checkpoint: Checkpoint, run: Sealed
) -> tuple[Changes, Mapping[str, Schema]]:
    """What a run of events changes in these tables, and the schemas then."""
    found = find(log, tables, {event.record for event in run.events})
    states = fold_all(found.states, run.events)
    schemas = schemas_after(load_schemas(tables), states)
    return changes_of(checkpoint, run, states, found, run.heads(), schemas), schemas


def schema_of(name: str, state: State) -> Schema:
    """The schema that a definition's events make. Raises `FormatUnknown` for one this release cannot read."""
    try:
        return Schema(from_data(name, merged_definition(state)), fields_apart(state))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatUnknown(f"definition of {name!r}", str(error), "definitions of this release") from error


def schemas_after(schemas: Mapping[str, Schema], states: Mapping[Record, State]) -> Mapping[str, Schema]:
    """The schemas once the definitions among `states` have been taken in.

    Raises `FormatUnknown` and `DefinitionRefused` for definitions, made apart, that do not go together.
    """
    defined = {name: schema_of(name, state) for (name, key), state in states.items() if not key}
    if not defined:
        return schemas
    after = {**schemas, **defined}
    folded: dict[str, str] = {}
    for name in sorted(after):
        twin = folded.setdefault(name.casefold(), name)
        if twin != name:
            raise DefinitionRefused(name, f"{twin!r} differs in case alone, which SQL tools cannot tell apart")
    return after


def reads_otherwise(name: str, before: bytes | None, schema: Schema | None) -> bool:
    """Whether a collection reads what was written otherwise than under the state of its definition before."""
    old = schema_of(name, decode_state(before)).upgrade if before is not None else None
    new = schema.upgrade if schema is not None else None
    return (old.steps if old is not None else []) != (new.steps if new is not None else [])


def check_definitions(schemas: Mapping[str, Schema], states: Mapping[Record, State], events: Sequence[Event]) -> None:
    """Raises as `schemas_after` does if any definition of a run could not stand: a replay may stop after each."""
    running = {record: state for record, state in states.items() if not record[1]}
    for event in events:
        if not event.key:
            running[event.record] = fold(running.get(event.record), event)
            schemas = schemas_after(schemas, {event.record: running[event.record]})


def load_schemas(tables: Tables) -> Mapping[str, Schema]:
    """Every schema that these tables know."""
    return {name: schema_of(name, decode_state(data)) for name, data in tables.definitions().items()}


def is_ahead(log: Changelog, checkpoint: Checkpoint) -> bool:
    """Whether a projection has seen what this log does not hold, or not there: another log stands in its place.

    By their chains, equal heads are equal events; and when the last of them stands at the checkpoint's position, there
    are no others before it. Nothing is read where the projection is in step.
    """
    heads = dict(checkpoint.heads)
    if log.heads() == heads:
        return False
    newest = log.at(sorted(log.positions([(replica, head.seq) for replica, head in heads.items()])))
    found = {event.replica: Head(event.seq, event.hash) for event in newest}
    return found != heads or max((event.position for event in newest), default=0) != checkpoint.position


def catch_up(log: Changelog, tables: Tables, limit: int = REPLAY_BATCH) -> bool:
    """Folds the next batch of the log into the tables; False when there was none."""
    checkpoint = tables.checkpoint()
    stored = log.bodies(checkpoint.position, limit)
    if not stored:
        return False
    bodies = [body for _, body in stored]
    hashes = [sha256(body).digest() for body in bodies]
    run = Sealed([stored_event(position, body) for position, body in stored], bodies, hashes)
    tables.save(*fold_events(log, tables, checkpoint, run))
    return True
