"""What the server knows of its thin clients: how far each has pulled, and what of its last pushes was refused. Pure.

That is how things are run, and not history: it holds wall-clock time, and two replicas need not agree on it. So it is
in no event, in no projection and in no digest; the engine keeps it in memory while it is open, and it begins anew when
the engine does. Nothing is lost by that which a client does not bring again: its next pull shows its cursor, and a
change that was refused is still with the client, which pushes it again. What a client wrote is in the log, where
`client` in an event's meta names it.

It is bounded: the clients that were heard of last, and of each the streams and refusals that were last. A device's own
unsent changes, its uploads and its downloads under way are nothing that a server can know, so no status speaks of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

CLIENTS = 10_000
"""Clients that are remembered."""

REFUSALS = 100
"""Refused changes of a client that are remembered, each record's last."""

STREAMS = 16
"""Cursors of a client that are remembered: of each set of collections that it pulls, the last."""


class SyncState(StrEnum):
    """How a record stands at a client, as far as the server can know. The first that holds is told."""

    CONFLICT = "conflict"
    SYNC_ERROR = "sync-error"
    NEEDS_DOWNLOAD = "needs-download"
    IN_SYNC = "in-sync"


def sync_state(*, disputed: bool, refused: bool, lacking: bool) -> SyncState:
    """The first of the states that holds."""
    if disputed:
        return SyncState.CONFLICT
    if refused:
        return SyncState.SYNC_ERROR
    return SyncState.NEEDS_DOWNLOAD if lacking else SyncState.IN_SYNC


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A change that a client pushed and that was refused: of which record, when (Unix milliseconds), and why."""

    collection: str
    key: str
    operation: str
    time: int
    code: str
    message: str


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What a client pulls together: the collections it asks for (all, where it names none) and the least priority.

    `position` is up to where it has shown, by the cursor it came back with, that it has all of `covered`.
    """

    collections: list[str]
    priority: str
    covered: list[str]
    position: int
    time: int


class ClientStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One client since the engine was opened: when it pushed and pulled last (Unix milliseconds, None for never), how
    many of its changes were taken and refused, what it pulls, and what of its changes was refused and not taken since.
    """

    name: str
    pushed: int | None = None
    pulled: int | None = None
    taken: int = 0
    refused: int = 0
    streams: list[Stream] = []
    refusals: list[Refusal] = []

    def acknowledged(self, collection: str) -> int:
        """The position up to which the client has shown that it has a collection; 0 for never."""
        return max((one.position for one in self.streams if collection in one.covered), default=0)

    def refusal(self, collection: str, key: str) -> Refusal | None:
        """Why the last change of a record that the client pushed was refused; None where it was not."""
        return next((one for one in self.refusals if (one.collection, one.key) == (collection, key)), None)


class SyncStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one record stands at one client: its state, the priority of its collection, its version here, when the
    client last tried to change it (Unix milliseconds) and what came in the way of the last try."""

    state: SyncState
    priority: str
    version: str
    attempted: int | None
    error: Refusal | None


class Attendance:
    """The clients by name, those that were heard of last."""

    def __init__(self) -> None:
        self._clients: dict[str, ClientStatus] = {}

    def get(self, name: str) -> ClientStatus | None:
        """What is known of a client; None for nothing."""
        return self._clients.get(name)

    def all(self) -> list[ClientStatus]:
        """Everybody, by name."""
        return [self._clients[name] for name in sorted(self._clients)]

    def _keep(self, status: ClientStatus) -> None:
        self._clients.pop(status.name, None)
        self._clients[status.name] = status
        if len(self._clients) > CLIENTS:
            del self._clients[next(iter(self._clients))]

    def pulled(self, name: str, stream: Stream) -> None:
        """A client showed a cursor. One from before it began anew takes its place all the same: it knows best."""
        known = self._clients.get(name) or ClientStatus(name=name)
        what = stream.collections, stream.priority
        others = [one for one in known.streams if (one.collections, one.priority) != what]
        streams = [stream, *others][:STREAMS]
        self._keep(msgspec.structs.replace(known, pulled=stream.time, streams=streams))

    def pushed(self, name: str, time: int, taken: Sequence[tuple[str, str]], refused: Sequence[Refusal]) -> None:
        """A client pushed: the records whose changes were taken, and the changes that were refused."""
        known = self._clients.get(name) or ClientStatus(name=name)
        last = {(one.collection, one.key): one for one in refused}
        done = {*taken, *last}
        refusals = [*last.values(), *(one for one in known.refusals if (one.collection, one.key) not in done)]
        self._keep(
            msgspec.structs.replace(
                known,
                pushed=time,
                taken=known.taken + len(taken),
                refused=known.refused + len(refused),
                refusals=refusals[:REFUSALS],
            )
        )
