"""What the engine needs from the outside, as small protocols.

Storage ports are plain, blocking calls, and a `Store` says where they run: the engine hands it one function for a whole
batch, and the store runs that function over its log and tables in the one thread that may write. So a batch costs one
entry into that thread, however many events it holds, and an adapter needs to know nothing of asyncio.

Every port has a conformance suite in `refold.testing`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from .conflict_list import ConflictQuery, Disputed, Listed, Tally
from .events import Checkpoint, Event, Head
from .fold import State
from .schema import Schema
from .unique import Holder, UniqueValue
from .verdict import Finding

T = TypeVar("T")
Record = tuple[str, str]


class Changelog(Protocol):
    """The log: events in causal order, numbered by position, never changed.

    Every method may raise `StorageFailed`; reading raises `LogCorrupt` for a stored event that cannot be decoded.
    """

    def append(self, events: Sequence[Event], bodies: Sequence[bytes], hashes: Sequence[bytes]) -> int:
        """Adds a run of events, durable on return, all or none; the position of the first.

        Raises `EventsMissing` when an event does not follow its replica's newest, `EventForked` when another event
        already stands at its dot or before it. `bodies` and `hashes` are what `seal` makes of the events. The caller
        numbers the events from the returned position.
        """

    def bodies(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """At most `limit` events after position `after`, in the order of the log, as positions and canonical bytes."""

    def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        """The same of the events that `vector` does not cover: what one who has seen that much lacks.

        What it costs depends on how many there are, and not on where in the log they stand.
        """

    def positions(self, dots: Sequence[tuple[str, int]]) -> list[int]:
        """The positions of the events with these dots, in any order; dots that are not there are left out."""

    def at(self, positions: Sequence[int]) -> list[Event]:
        """The events at these positions, in the order of the log; positions that are not there are left out."""

    def end(self) -> int:
        """The position of the newest event; 0 for an empty log."""

    def heads(self) -> dict[str, Head]:
        """The newest event of every replica."""

    def replica(self) -> str:
        """The id under which this log's owner writes."""


class Projection(Protocol):
    """A consumer of the log that keeps derived state and a checkpoint, written atomically together."""

    @property
    def name(self) -> str:
        """What status and errors call it."""

    def checkpoint(self) -> Checkpoint:
        """How far it has come."""

    def apply(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        """Takes in the run of events that ends at `checkpoint`, and the checkpoint with it, or neither."""

    def reset(self) -> None:
        """Forgets everything, so that the log can be applied from the start."""

    def verify(self) -> list[Finding]:
        """What differs from what it should hold at its checkpoint."""

    def close(self) -> None:
        """Lets go of files and connections."""


@runtime_checkable
class Pieces(Protocol):
    """A projection that can be verified a piece at a time; all pieces together are what `verify` looks at."""

    def pieces(self) -> list[str]:
        """The names of the pieces: short, and the same ones in the next process."""

    def verify_piece(self, name: str) -> list[Finding]:
        """What differs in one piece."""


@runtime_checkable
class Unfinished(Protocol):
    """A projection that may have left work behind, which it does when it is applied to, if only to no events."""

    def unfinished(self) -> bool:
        """Whether there is work that a process which ended in the middle of it has left."""


class Changes(msgspec.Struct):
    """What a run of events does to the tables: the events, the touched records before and after, and the checkpoint.

    `before` and `after` hold the canonical bytes of states; a record that was not there before has none. `disputes` is
    what becomes of the conflict list.
    """

    events: Sequence[Event]
    states: Mapping[Record, State]
    before: Mapping[Record, bytes]
    after: Mapping[Record, bytes]
    checkpoint: Checkpoint
    disputes: Mapping[Record, Disputed] = {}


class Query(msgspec.Struct, frozen=True):
    """Which records of a collection to find: equal fields, an order (`-field` for descending), how many, after which.

    `after` is the row that the page before ended with, as `Tables.find` returned it.
    """

    collection: str
    where: Mapping[str, Any] = {}
    order: str = ""
    limit: int = 500
    after: tuple[Any, ...] | None = None


class Tables(Protocol):
    """The state of every record, and SQL tables over it: the projection that decisions are made on."""

    def load(self, records: Iterable[Record]) -> dict[Record, bytes]:
        """The states of those records that ever were."""

    def requests(self, request_ids: Sequence[str]) -> dict[str, int]:
        """The positions of the events that were written under these request ids."""

    def history(self, records: Sequence[Record]) -> list[int]:
        """The positions of all events of these records, ascending."""

    def save(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """Takes in changes and their checkpoint, atomically."""

    def holders(self, values: Sequence[UniqueValue], limit: int) -> dict[UniqueValue, list[Holder]]:
        """The records that hold each of these unique values, at most `limit` of each, the first by rank."""

    def referrers(self, target: Record, through: Sequence[tuple[str, str]], limit: int) -> list[Record]:
        """At most `limit` records that refer to one, through any of some fields, each named by collection and field."""

    def find(self, query: Query, schema: Schema) -> list[tuple[tuple[Any, ...], str, bytes]]:
        """One page of records that are present: where each stands in the order, its key, its state.

        A branch that keep-both shows has the state of the record beside which it stands.
        """

    def records(self, after: Record, limit: int) -> list[tuple[Record, bytes]]:
        """One page of all records that ever were and their states, deleted ones and definitions among them.

        They come by collection and key, each as text, and begin after one that need not be there.
        """

    def changed(self, collection: str, after: int, upto: int, limit: int) -> list[tuple[int, str, bytes | None]]:
        """At most `limit` records of a collection whose newest event up to position `upto` stands after `after`.

        In the order of that event: its position, the record's key, and the state, None where there are events beyond
        `upto`. What it costs depends on how many they are and on what was written since `upto`, not on where they
        stand. Definitions are left out.
        """

    def count_changed(self, collection: str, after: int, upto: int) -> int:
        """How many records `changed` gives in all."""

    def definitions(self) -> dict[str, bytes]:
        """The states of all definitions, by collection."""

    def counts(self) -> dict[str, int]:
        """How many records are present, by collection."""

    def checkpoint(self) -> Checkpoint:
        """How far the tables have come."""

    def conflicts(self, query: ConflictQuery) -> list[Listed]:
        """One page of the conflict list, by id; a conflict that is live comes before one that was closed."""

    def conflict_counts(self) -> list[Tally]:
        """How many rows the conflict list has of each sort, in order."""


class Store(Protocol):
    """An opened archive: where its log and tables run, and the projections that follow them."""

    @property
    def path(self) -> str:
        """What messages call it."""

    @property
    def projections(self) -> Sequence[Projection]:
        """What follows the log behind the writers, besides the tables."""

    async def write(self, work: Callable[[Changelog, Tables], T]) -> T:
        """Runs `work` in the one place that may write."""

    async def read(self, work: Callable[[Changelog, Tables], T]) -> T:
        """Runs `work` over what was committed, while writers go on."""

    async def project(self, work: Callable[[], T]) -> T:
        """Runs work of the projections that follow."""

    async def rebuild_tables(self, progress: Callable[[int], None]) -> None:
        """Replaces the tables by ones folded from the log anew; readers see the old ones until then.

        `progress` is told the position that has been folded.
        """

    async def verify_log(self) -> list[Finding]:
        """What is wrong with the files of the log besides its events."""

    async def verify_tables(self, progress: Callable[[int], None]) -> list[Finding]:
        """What the tables hold that the log does not say, and the other way round."""

    async def close(self) -> None:
        """Lets go of everything, the lock last."""


class OpenStore(Protocol):
    """What an entry point of the group `refold.stores` is: it opens an archive at a URL of its scheme."""

    def __call__(self, url: str, **options: Any) -> AbstractAsyncContextManager[Store]:
        """Opens or creates the archive; `options` are those that `refold.open` does not know itself."""


class Clock(Protocol):
    """Where the wall clock is read: Unix milliseconds."""

    def __call__(self) -> int:
        """The time now."""


class Peer(Protocol):
    """The other side of a sync session: a way to send it frames and to receive its frames."""

    async def send(self, frame: bytes) -> None:
        """Hands over one frame; returns when there is room for the next."""

    def frames(self) -> AsyncIterator[bytes]:
        """The frames of the other side, in order, until it closes."""
