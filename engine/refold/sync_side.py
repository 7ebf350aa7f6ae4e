"""The archive of an engine as one side of a sync session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from .events import Head
from .fold import format_digest
from .intake import Intake, Taken
from .ports import Changelog, Store, Tables
from .session import Standing
from .writer import Writer


class EngineSide:
    """Implements `refold.sync.Side` for one session; what comes is checked beside the writer, and taken in by it.

    Two sessions of one archive may run at once: each event is taken once, whoever brings it first.
    """

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._intake: Intake | None = None

    async def standing(self) -> tuple[Standing, int]:
        """See `Side.standing`."""
        heads, end = await self._store.write(lambda log, tables: (log.heads(), log.end()))
        return Standing(self._writer.replica, self._writer.now(), heads), end

    async def hashes(self, dots: Sequence[tuple[str, int]]) -> dict[str, bytes]:
        """See `Side.hashes`."""
        return await self._store.read(partial(_hashes, dots))

    async def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        """See `Side.since`."""
        return await self._store.read(lambda log, tables: log.since(vector, limit))

    async def take(self, bodies: Sequence[bytes] | None, peer: str, max_skew: int) -> Taken:
        """See `Side.take`."""
        if self._intake is None:
            self._intake = Intake(peer, self._writer.now(), max_skew)
        intake = self._intake
        run = await self._store.read(lambda log, tables: intake.take(bodies) if bodies is not None else intake.rest())
        return await self._writer.ingest(run) if run is not None else Taken()

    async def conclusion(self) -> tuple[Mapping[str, Head], str | None]:
        """See `Side.conclusion`."""
        checkpoint = await self._store.read(lambda log, tables: tables.checkpoint())
        return checkpoint.heads, format_digest(checkpoint.digest or 0)


def _hashes(dots: Sequence[tuple[str, int]], log: Changelog, _tables: Tables) -> dict[str, bytes]:
    return {event.replica: event.hash for event in log.at(sorted(log.positions(dots)))}
