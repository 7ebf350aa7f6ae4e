"""An archive as it was at a moment: the questions of a reader, answered from the events that belonged to it.

The log only grows, so a view stays what it is while writers go on. Long answers come page by page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from . import past
from .batch import schema_for
from .blame import Blame, blame
from .errors import ValueRefused
from .fold import DIGEST_MODULUS, format_digest
from .moment import Cut
from .past import Past
from .ports import Changelog, Tables
from .record import Record, find_record
from .schema import Schema, collection_of

T = TypeVar("T")


class Read(Protocol):
    """Runs work where the store reads."""

    def __call__(self, work: Callable[[Changelog, Tables], T]) -> Awaitable[T]:
        """What the work returns."""


class View:
    """An archive at a moment; made by `Reader.at`. Any call may raise `StorageFailed`."""

    def __init__(self, read: Read, cut: Cut, schemas: Mapping[str, Schema]) -> None:
        self._read = read
        self._cut = cut
        self._schemas = schemas

    @property
    def vector(self) -> dict[str, int]:
        """The events that belong to the moment, as a version vector."""
        return dict(self._cut.vector)

    @property
    def notes(self) -> list[str]:
        """What was left out so that no group of events is taken apart, in sentences."""
        return self._cut.notes()

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """The collections that were defined, by name."""
        return self._schemas

    def _schema(self, collection: str | type) -> Schema:
        return schema_for(self._schemas, collection if isinstance(collection, str) else collection_of(collection).name)

    async def get(self, collection: str | type, key: Any) -> Record | None:
        """A record as it was, also when it was deleted by then; None when it was not there yet."""
        schema = self._schema(collection)
        try:
            text = schema.key_text(key)
        except ValueRefused:
            return None

        def work(log: Changelog, tables: Tables) -> Record | None:
            then = Past(self._cut, log, tables)
            return find_record(schema, text, then.load, then.history)

        return await self._read(work)

    async def find(
        self, collection: str | type, where: Mapping[str, Any] | None = None, *, limit: int | None = None
    ) -> AsyncIterator[Record]:
        """The records that were present whose fields equalled `where`, by key as text.

        There is no table of then to look in, so this goes through all records of the collection that ever were.
        """
        schema = self._schema(collection)
        wanted = past.fits(schema, where or {})
        left = limit
        found = past.Found([], "", [])
        while found.after is not None and left != 0:
            found = await self._read(partial(past.page, self._cut, schema, found.after, found.beside))
            for record in filter(wanted, found.records):
                if left == 0:
                    return
                yield record
                left = left - 1 if left is not None else None

    async def counts(self) -> dict[str, int]:
        """How many records were present, by collection; goes through all records that ever were."""
        counts = dict.fromkeys(sorted(self._schemas), 0)
        for name in counts:
            async for _ in self.find(name):
                counts[name] += 1
        return counts

    async def digest(self) -> str:
        """The digest of the state of then, as an archive of just these events has it; goes through all records."""
        total, after = 0, past.START
        while True:
            share, last = await self._read(partial(past.digest_page, self._cut, after))
            total += share
            if last is None:
                return format_digest(total % DIGEST_MODULUS)
            after = last

    async def blame(self, collection: str | type, key: Any) -> Blame | None:
        """Who wrote each value that the record had; see `Reader.blame`."""
        schema = self._schema(collection)
        try:
            text = schema.key_text(key)
        except ValueRefused:
            return None

        def work(log: Changelog, tables: Tables) -> Blame | None:
            then = Past(self._cut, log, tables)
            return blame(schema, text, then.load, then.history, log)

        return await self._read(work)
