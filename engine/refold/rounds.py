"""A verification that has a budget of time: it goes on with what was looked at longest ago.

What others remember of the log costs little and is heard in every run; everything else is cut into pieces, of which
`rota.py` says whose turn it is. A stretch of the log begins from the events that stand before it, by their bytes, and
is held to what the events after it say: so every link of the chain is in some stretch, and each stretch proves itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, MutableMapping
from functools import partial
from itertools import chain

from . import queries
from .ports import Pieces, Projection, Store
from .rota import Checked, Piece, coverage, turns
from .verdict import Finding, Report, judged
from .verify import ChainCheck, Claim
from .verifying import Looking, Read

STRETCH = 10_000
"""Events of the log that are one piece."""

_LOG, _FILES, _TABLES = "log", "log files", "tables"


class Round(Looking):
    """One run. `checked` is when each piece was looked at last, and is kept up to date while the run goes on."""

    def __init__(
        self,
        read: Read,
        store: Store,
        progress: Callable[[str, int], None],
        wall: Callable[[], int],
        checked: MutableMapping[str, Checked],
    ) -> None:
        super().__init__(read, store, progress)
        self._wall = wall
        self._checked = checked
        self._events = 0

    async def run(
        self, budget: float, findings: list[Finding], claims: Iterable[Claim], only: Container[str]
    ) -> Report:
        """Looks at pieces until `budget` seconds are over; at one at least."""
        end = self._wall() + int(budget * 1000)
        self._findings = findings
        self._projections = {one.name: one for one in self._store.projections if one.name in only}
        if _LOG in only:
            await self._guarded(self._witnesses(claims))
        pieces = await self._pieces(only)
        for name in self._checked.keys() - {piece.name for piece in pieces}:
            if name.partition("/")[0] in only:
                del self._checked[name]
        done = 0
        for piece in turns(pieces, self._checked):
            if done and self._wall() >= end:
                break
            if piece.part == _TABLES and self._log_findings():
                continue
            before = len(self._findings)
            await self._guarded(self._look(piece))
            self._checked[piece.name] = Checked(self._wall(), piece.reach, len(self._findings) - before)
            done += 1
            self._progress("pieces", done)
        told = list(dict.fromkeys(self._findings))
        return Report(judged(told), self._events, coverage(pieces, self._checked, done))

    async def _pieces(self, only: Container[str]) -> list[Piece]:
        pieces: list[Piece] = []
        if _LOG in only:
            _, _, end = await self._read(queries.witnesses)
            starts = range(0, end, STRETCH)
            pieces = [
                Piece(_FILES, _LOG),
                *(Piece(f"log/{start}", _LOG, min(start + STRETCH, end)) for start in starts),
            ]
        if _TABLES in only:
            pieces.append(Piece(_TABLES, _TABLES))
        for name, projection in self._projections.items():
            if isinstance(projection, Pieces):
                parts = await self._store.project(projection.pieces)
                pieces += [Piece(f"{name}/{part}", name) for part in parts]
            else:
                pieces.append(Piece(name, name))
        return pieces

    async def _look(self, piece: Piece) -> None:
        if piece.name == _FILES:
            self._add(await self._store.verify_log())
        elif piece.part == _LOG:
            await self._stretch(int(piece.name.partition("/")[2]), piece.reach)
        elif piece.part == _TABLES:
            self._add(await self._store.verify_tables(partial(self._progress, _TABLES)))
        else:
            self._add(await self._store.project(_verify(self._projections[piece.part], piece)))

    async def _stretch(self, after: int, end: int) -> None:
        check = ChainCheck(await self._read(partial(queries.stretch, after)), after)
        position = after
        while bodies := await self._read(partial(queries.bodies, position, end)):
            position = bodies[-1][0]
            self._add(await asyncio.to_thread(check.feed_all, bodies))
            self._progress(_LOG, position)
        if position < end:
            self._add([Finding("log-position", f"nothing stands behind position {position}", position=position + 1)])
        known = await self._read(partial(queries.followers, check.heads))
        self._add(check.finish(known))
        self._add(check.close(known, "the event after it"))
        self._events += check.events

    async def _witnesses(self, claims: Iterable[Claim]) -> None:
        """Holds what is remembered of the log against its heads, by the bytes of its newest events."""
        checkpoint, heads, end = await self._read(queries.witnesses)
        standing = await self._read(partial(queries.stretch, end))
        own = (Claim("the tables' checkpoint", replica, head) for replica, head in sorted(checkpoint.heads.items()))
        lists = (Claim("the log's own list of heads", replica, head) for replica, head in sorted(heads.items()))
        await self._hear(standing, chain(own, lists, claims))


def _verify(projection: Projection, piece: Piece) -> Callable[[], list[Finding]]:
    if isinstance(projection, Pieces):
        return partial(projection.verify_piece, piece.name.partition("/")[2])
    return projection.verify
