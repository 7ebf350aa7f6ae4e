"""How an older tool laid out its archive, as a TOML file tells it: which files, which versions, what the rows mean.

`[layout]` names the collection that the rows are of, the files in each folder, the versions of the format that can be
read, and the fields that say when a row was made and last changed. `[layout.table]` names a SQLite table that holds the
same rows, `[layout.documents]` the fields that point to a document and hold its SHA-256. The collection itself stands
under `[collections.NAME]`, as in any file of definitions. `workshop.toml` beside this module is one.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from refold import Collection
from refold.errors import DefinitionRefused, SettingsInvalid, StorageFailed
from refold.schema import Schema, from_toml

PRESETS = ("workshop",)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A SQLite table that holds the rows too: the database's name in the archive, and the table's."""

    database: str
    name: str


class Documents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields that hold a document's path from the archive's root, and its SHA-256 in hexadecimal digits.

    `prefix` is what the older tool wrote before a path, `/srv/orders/` say: it is taken off.
    """

    path: str
    hash: str
    prefix: str = ""


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `[layout]` says. `timezone` is where times without a zone were written."""

    collection: str
    data: str = "data.csv"
    meta: str = "meta.json"
    versions: tuple[str, ...] = ("1.0",)
    created: str | None = None
    updated: str | None = None
    timezone: str = "UTC"
    table: Table | None = None
    documents: Documents | None = None


class Described(msgspec.Struct, frozen=True):
    """A layout with the collection that its rows become; `text` is the TOML that it was described by."""

    text: str
    layout: Layout
    collection: Collection
    schema: Schema
    zone: ZoneInfo

    def millis(self, text: str | None) -> int:
        """Unix milliseconds of a row's time; 0 for one that tells none."""
        if not text:
            return 0
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return 0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self.zone)
        try:
            return max(0, int(moment.astimezone(UTC).timestamp() * 1000))
        except (OverflowError, ValueError):
            return 0


def preset(name: str) -> Described:
    """The layout that comes with refold under this name."""
    text = Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8")
    return describe(text, f"preset {name}")


def load_layout(path: Path) -> Described:
    """The layout that a TOML file describes. Raises `SettingsInvalid`, `DefinitionRefused`, `StorageFailed`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageFailed(str(path), "reading the layout", str(error)) from error
    except UnicodeDecodeError as error:
        raise SettingsInvalid(str(path), f"it is not UTF-8: {error}") from error
    return describe(text, str(path))


def describe(text: str, where: str) -> Described:
    """The layout of a text in TOML; `where` is what messages call it."""
    try:
        layout = msgspec.convert(tomllib.loads(text).get("layout", {}), Layout)
        zone = ZoneInfo(layout.timezone)
    except (ValueError, ZoneInfoNotFoundError, OSError, RecursionError) as error:
        raise SettingsInvalid(where, f"[layout]: {error}") from error
    found = [collection for collection in from_toml(text) if collection.name == layout.collection]
    if not found:
        raise DefinitionRefused(layout.collection, f"{where} does not define it under [collections]")
    schema = Schema(found[0])
    named = [
        layout.created,
        layout.updated,
        *((layout.documents.path, layout.documents.hash) if layout.documents else ()),
    ]
    for field in named:
        if field is not None and field not in schema.types:
            raise SettingsInvalid(where, f"[layout] names the field {field!r}, which {layout.collection} does not have")
    for name in (layout.data, layout.meta, layout.table.database if layout.table else "x.db"):
        if "/" in name or "\\" in name or name in {"", ".", ".."}:
            raise SettingsInvalid(where, f"[layout] names the file {name!r}, which must be a plain file name")
    if layout.documents is not None and not schema.collection.documents:
        told = {layout.documents.path: layout.documents.hash}
        schema = Schema(msgspec.structs.replace(schema.collection, documents=told))
    return Described(text, layout, schema.collection, schema, zone)
