"""The bytes of a folder's files: functions of its records and their events, and of nothing else.

| file | holds |
| --- | --- |
| `data.csv` | the records that are there, of the folder's only collection, or of its first by name |
| `data.NAME.csv` | those of every further collection `NAME` |
| `events.jsonl` | the whole history of the records that live, or last lived, there, ordered by (time, replica, seq) |
| `meta.json` | what the others have to be: sizes and hashes, and the version vector with the hashes of its heads |

A collection may ask for more entries of meta.json, for readers of an older format (`Collection.meta`); the version of
the format then stands under `format` too, since `schema_version` may be one of those entries.

`checksum` and `file_size` in meta.json are those of data.csv; the same of every file stand under `collections`. The
hash of events.jsonl is the plain SHA-256 of its first `size` bytes up to 1 MiB; `blocks.py` says how it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from refold.events import Head
from refold.names import twin_name
from refold.schema import Schema, meta_field
from refold_adapters.csv_cells import encode_row

from .index import File, unique_names
from .lines import stamp

DATA, META, EVENTS = "data.csv", "meta.json", "events.jsonl"
SCHEMA_VERSION = "2.0"

_META = """{
  "schema_version": %s,%s
  "checksum": %s,
  "file_size": %s,
  "exported_at": "%s",
  "folder": %s,
  "collections": %s,
  "vector": %s,
  "events": {
    "count": %d,
    "size": %d,
    "hash": "%s"
  }
}
"""

_encode = msgspec.json.Encoder().encode


def _quote(text: str) -> str:
    return _encode(text).decode()


def _object(entries: Iterable[str]) -> str:
    text = ",\n    ".join(entries)
    return f"{{\n    {text}\n  }}" if text else "{}"


def data_names(collections: Sequence[str]) -> dict[str, str]:
    """The name of the file of each collection in a folder that holds these."""
    if len(collections) == 1:
        return {collections[0]: DATA}
    ordered = sorted(collections)
    unique = unique_names(ordered)
    return {name: DATA if index == 0 else f"data.{unique[name]}.csv" for index, name in enumerate(ordered)}


def every_data_name(collections: Sequence[str]) -> set[str]:
    """The names that the file of any of these collections has in some folder."""
    return {DATA, *(f"data.{name}.csv" for one in collections for name in (one, twin_name(one, one)))}


_TEXTS = {str, type(None)}
_BARE = r'[^",\r\n]*+'
_SAFE_START = r"""(?![ \ufeff'=+\-@\t\uff1d\uff0b\uff0d\uff20])"""
_START = r"(?![ \ufeff])"


class Sheet:
    """How the records of one collection become lines of CSV.

    `absent` says that there is no file where there are no records; readers of an older format take such for damage.
    """

    def __init__(self, schema: Schema) -> None:
        collection = schema.collection
        self._neutralise = collection.neutralise
        self._mask = [schema.types[name].name == "str" for name in schema.columns]
        self._blank = schema.blank
        self._texts: list[tuple[str, Callable[[Any], str] | None]] = [
            (name, None if kind.name in {"str", "date", "datetime", "decimal", "bytes"} else kind.text)
            for name, kind in schema.types.items()
        ]
        # A row that is nothing but bare cells is its cells with commas between: one match tells, for the whole row.
        starts = [_SAFE_START if text and self._neutralise else _START for text in self._mask]
        self._is_bare = re.compile(",".join(f"{start}{_BARE}(?<! )" for start in starts)).fullmatch
        self._more = {name: (text, meta_field(text)) for name, text in collection.meta.items()}
        self.absent = bool(collection.meta)
        self.numeric = schema.types[collection.key].name == "int"
        self.header = encode_row(schema.columns, neutralise=self._neutralise).encode()

    def cells(self, values: Mapping[str, Any]) -> list[str | None]:
        """The cells of one record."""
        blank = self._blank
        cells: list[str | None] = []
        for name, text in self._texts:
            value = values[name] if name in values else blank[name]
            cells.append(value if text is None or value is None else text(value))
        return cells

    def careful_cells(self, values: Mapping[str, Any]) -> list[str | None]:
        """The cells of a record whose values need not fit its fields."""
        cells: list[str | None] = []
        for name, text in self._texts:
            value = values.get(name, self._blank[name])
            try:
                cell = value if text is None or value is None else text(value)
            except (TypeError, ValueError, AttributeError, KeyError):
                cell = None
            misfit = value is not None and type(cell) is not str
            cells.append(_encode(value).decode() if misfit else cell)
        return cells

    def row(self, values: Mapping[str, Any]) -> str:
        """The line of one record. A value that is not of its field's type, as one from a replica that defines the field
        otherwise, is JSON.
        """
        try:
            cells = self.cells(values)
        except (TypeError, ValueError, AttributeError, KeyError):
            cells = []
        if not cells or not _TEXTS.issuperset(map(type, cells)):
            cells = self.careful_cells(values)
        if "" not in cells:
            line = ",".join([cell or "" for cell in cells])
            if self._is_bare(line):
                return line + "\n"
        return encode_row(cells, neutralise=self._neutralise, text=self._mask)

    def rows(self, records: Iterable[Mapping[str, Any]]) -> bytes:
        """The lines of some records."""
        return "".join(map(self.row, records)).encode()

    def more(self, first: Mapping[str, Any] | None) -> dict[str, Any]:
        """What meta.json has besides, for a folder whose first record has these values."""
        values = {**self._blank, **(first or {})}
        return {name: text if field is None else values[field] for name, (text, field) in self._more.items()}

    def order(self, key: str) -> Any:
        """What to sort a key by."""
        if not self.numeric:
            return key
        try:
            return int(key), key
        except ValueError:
            return 0, key


def meta_json(
    path: str,
    data: Mapping[str, tuple[File, int]],
    events: tuple[int, int, bytes],
    newest: int,
    vector: Mapping[str, Head],
    more: Mapping[str, Any],
) -> bytes:
    """The bytes of meta.json, as `json.dumps` with an indent of 2 spells it; `more` is what the collection asks for."""
    first = next(iter(data.values()))[0] if data else None
    count, size, digest = events
    return (
        _META
        % (
            _encode(more.get("schema_version", SCHEMA_VERSION)).decode(),
            "".join(
                f"\n  {_quote(name)}: {_encode(value).decode()},"
                for name, value in ({"format": SCHEMA_VERSION, **more} if more else {}).items()
                if name != "schema_version"
            ),
            f'"{first.hash.hex()}"' if first else "null",
            first.size if first else "null",
            stamp(newest),
            _quote(path),
            _object(
                f'{_quote(name)}: {{\n      "file": {_quote(file.name)},\n      "records": {records},\n'
                f'      "size": {file.size},\n      "sha256": "{file.hash.hex()}"\n    }}'
                for name, (file, records) in data.items()
            ),
            _object(
                f'{_quote(replica)}: {{\n      "seq": {head.seq},\n      "hash": "{head.hash.hex()}"\n    }}'
                for replica, head in sorted(vector.items())
            ),
            count,
            size,
            digest.hex(),
        )
    ).encode()


class FileMeta(msgspec.Struct):
    """One collection's file, as meta.json tells of it."""

    file: str
    records: int
    size: int
    sha256: str


class EventsMeta(msgspec.Struct):
    """What counts of events.jsonl, as meta.json tells of it."""

    count: int
    size: int
    hash: str


class HeadMeta(msgspec.Struct):
    """A replica's newest event in a folder, as meta.json tells of it."""

    seq: int
    hash: str


class Meta(msgspec.Struct):
    """meta.json as it is read back; fields that are not known are passed over."""

    schema_version: str
    folder: str
    collections: dict[str, FileMeta]
    vector: dict[str, HeadMeta]
    events: EventsMeta
    checksum: str | None = None
    file_size: int | None = None
    exported_at: str = ""
    format: str | None = None


_decode = msgspec.json.Decoder(Meta).decode


def read_meta(text: bytes | None) -> Meta | None:
    """What meta.json says; None when it is missing or not of this format."""
    if text is None:
        return None
    try:
        meta = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return meta if (meta.format or meta.schema_version) == SCHEMA_VERSION else None


def is_ours(name: str) -> bool:
    """Whether a file of this name can be one that refold wrote."""
    return name in {DATA, META, EVENTS} or (name.startswith("data.") and name.endswith(".csv") and "/" not in name)


def names_in(meta: Meta | None) -> set[str]:
    """The files that refold wrote where this meta.json stands, as far as their names can be ours."""
    files = meta.collections.values() if meta is not None else ()
    return {DATA, META, EVENTS, *(file.file for file in files if is_ours(file.file))}
