"""Requests as callers spell them: the checks that every write passes before it is queued, and batches of writes."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from .decide import Operation, Request
from .errors import CollectionUnknown, EngineClosed, RecordUnknown, ValueRefused
from .events import TAG_NAME, TAGS, Event
from .schema import Schema, collection_of
from .values import TYPES, Refused, show

if TYPE_CHECKING:
    from .engine import Engine


class Wording(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What may accompany a write: who, why, on which version, under which request id, and other text about it.

    `schema_version` is the version of the collection that the values are spelt in, the current one if it is None.
    """

    actor: str = ""
    reason: str | None = None
    if_version: str | None = None
    request_id: str | None = None
    meta: dict[str, str] = {}
    schema_version: int | str | None = None


_text = TYPES["str"].store


def worded(default: Wording, changes: Mapping[str, Any]) -> Wording:
    """`default` with some of it said otherwise, the reason among `meta`. Raises `ValueRefused` for what is no text."""
    wording = msgspec.structs.replace(default, **changes)
    if wording.reason is not None:
        wording = msgspec.structs.replace(wording, meta={**wording.meta, "reason": wording.reason})
    texts = [*wording.meta.items(), ("actor", wording.actor), ("request_id", wording.request_id or "")]
    for name, text in texts:
        try:
            _text(name)
            _text(text)
        except Refused as error:
            raise ValueRefused("", name, str(error), show(text)) from None
    return wording


def schema_for(schemas: Mapping[str, Schema], name: str) -> Schema:
    """The schema of a collection. Raises `CollectionUnknown`."""
    schema = schemas.get(name)
    if schema is None:
        raise CollectionUnknown(name, sorted(schemas))
    return schema


def stored_values(schema: Schema, values: Mapping[str, Any], wording: Wording) -> dict[str, Any]:
    """Values as they are stored. Raises as `Schema.store`, and as `Schema.store_as` for those of a stated version."""
    if wording.schema_version is not None:
        return schema.store_as(values, wording.schema_version)
    return schema.store(values)


def put_request(
    schemas: Mapping[str, Schema],
    target: str | msgspec.Struct,
    values: Mapping[str, Any] | None,
    wording: Wording,
    key: Any = None,
) -> Request:
    """The request of a put, of a mapping into a named collection or of a value of a decorated class.

    `key` is the record's, where it is not among the values.
    """
    if isinstance(target, msgspec.Struct):
        name = collection_of(type(target)).name
        values = {info.encode_name: getattr(target, info.name) for info in msgspec.structs.fields(target)}
    else:
        name = target
    schema = schema_for(schemas, name)
    stored = stored_values(schema, values or {}, wording)
    if key is not None:
        stored |= schema.store({schema.collection.key: key})
    key = stored.get(schema.collection.key)
    if key is None:
        raise ValueRefused(name, schema.collection.key, "the key is required", "nothing")
    return _request(Operation.PUT, name, str(key), stored, wording)


def patch_request(
    schemas: Mapping[str, Schema], collection: str | type, key: Any, values: Mapping[str, Any], wording: Wording
) -> Request:
    """What a patch asks of the writer, its key and values checked and as stored."""
    schema = schema_for(schemas, _name(collection))
    return _request(Operation.PATCH, schema.name, schema.key_text(key), stored_values(schema, values, wording), wording)


def delete_request(schemas: Mapping[str, Schema], collection: str | type, key: Any, wording: Wording) -> Request:
    """The request of a delete. Raises `RecordUnknown` for a key that no record can have."""
    schema = schema_for(schemas, _name(collection))
    try:
        text = schema.key_text(key)
    except ValueRefused:
        raise RecordUnknown(schema.name, show(key)) from None
    return _request(Operation.DELETE, schema.name, text, {}, wording)


def tag_request(name: str, vector: dict[str, int] | None, wording: Wording) -> Request:
    """The request of a tag, of what the log holds when `vector` is empty, or of taking a tag back when it is None."""
    if not TAG_NAME.fullmatch(name):
        raise ValueRefused("tags", "name", "a letter or _, then up to 99 letters, digits, dots, _ or -", show(name))
    return _request(Operation.NOTE, *TAGS, {name: vector}, wording)


def _name(collection: str | type) -> str:
    return collection if isinstance(collection, str) else collection_of(collection).name


def _request(operation: Operation, collection: str, key: str, values: dict[str, Any], wording: Wording) -> Request:
    return Request(
        operation, collection, key, values, wording.actor, wording.meta, wording.if_version, wording.request_id
    )


class Batch:
    """Writes that become durable together, in one commit, or not at all.

    The methods check their arguments at once and return nothing: nothing is written before the block ends. An
    exception inside the block, or one request that is refused at its end, cancels all of it. `events` holds what was
    written, None for what was so already.
    """

    def __init__(self, engine: Engine, wording: Wording) -> None:
        self._engine = engine
        self._wording = wording
        self._requests: list[Request] = []
        self._open = False
        self.events: list[Event | None] = []

    def __len__(self) -> int:
        return len(self._requests)

    def _add(self, request: Request) -> None:
        if not self._open:
            raise EngineClosed("the batch")
        self._requests.append(request)

    def _worded(self, wording: dict[str, Any]) -> Wording:
        return worded(self._wording, wording) if wording else self._wording

    def put(self, target: str | msgspec.Struct, values: Mapping[str, Any] | None = None, **wording: Any) -> None:
        """See `Engine.put`."""
        self._add(put_request(self._engine.schemas, target, values, self._worded(wording)))

    def patch(self, collection: str | type, key: Any, values: Mapping[str, Any], **wording: Any) -> None:
        """See `Engine.patch`."""
        self._add(patch_request(self._engine.schemas, collection, key, values, self._worded(wording)))

    def delete(self, collection: str | type, key: Any, **wording: Any) -> None:
        """See `Engine.delete`."""
        self._add(delete_request(self._engine.schemas, collection, key, self._worded(wording)))

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if kind is None and self._requests:
            self.events = await self._engine.submit(self._requests)
