"""Settings of an archive that are not history: `refold.toml`, all optional.

| setting | default | meaning |
| --- | --- | --- |
| `changelog` | `"changelog.db"` | file name of the log |
| `tables` | `"tables.db"` | file name of the SQL tables |
| `folders` | `true` | whether folder replicas are kept |

They stand under `[archive]`. `[[mirrors]]` name tables of other programs that are kept as collections are. Collections
may be defined in the same file, for `refold define`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from refold.errors import ArchiveMissing, LogLost, SettingsInvalid, StorageFailed

T = TypeVar("T")

FILE = "refold.toml"
DOCUMENTS = "documents.db"
"""The cache of what is known of documents."""

_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,49}\.db")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `refold.toml` says under `[archive]`."""

    changelog: str = "changelog.db"
    tables: str = "tables.db"
    folders: bool = True

    def __post_init__(self) -> None:
        for name in (self.changelog, self.tables):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} must be a plain file name of at most 53 characters that ends in .db")
        if len({self.changelog.casefold(), self.tables.casefold(), "folders.db", DOCUMENTS}) < 4:
            raise ValueError(f"changelog, tables, folders.db and {DOCUMENTS} must be four different files")


class MirrorSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `refold.toml` says in a `[[mirrors]]`: which table of which database is which collection.

    `create` is the statement that made the table, to make it again where the database was lost.
    """

    database: str
    table: str
    collection: str
    create: str

    def __post_init__(self) -> None:
        if "/" in self.database or "\\" in self.database or self.database in {"", ".", ".."}:
            raise ValueError(f"the database {self.database!r} must be a plain file name")


def load_mirrors(root: Path) -> list[MirrorSetting]:
    """The tables of other programs that the archive keeps. Raises as `load_settings` does."""
    return _load(root, lambda document: msgspec.convert(document.get("mirrors", []), list[MirrorSetting]))


def remains_of(root: Path, settings: Settings) -> list[str]:
    """What there is of an archive besides its log."""
    remains = [name for name in (settings.tables, "folders.db") if (root / name).is_file()]
    if (root / "meta.json").is_file() and (root / "events.jsonl").is_file():
        remains.append("events.jsonl")
    return remains


def require_log(root: Path, settings: Settings) -> Path:
    """The path of the log. Raises `ArchiveMissing`, and `LogLost` where something else of an archive is there."""
    log = root / settings.changelog
    if not log.is_file():
        refuse_remains(root, settings)
        raise ArchiveMissing(str(root))
    return log


def refuse_remains(root: Path, settings: Settings) -> None:
    """Refuses to begin a new log where one was lost: what is derived from the old one would be made to fit the new."""
    if remains := remains_of(root, settings):
        raise LogLost(0, f"{settings.changelog} is not there, but {' and '.join(remains)} of an archive are")


def load_settings(root: Path) -> Settings:
    """The settings of the archive at `root`. Raises `SettingsInvalid`, `StorageFailed`."""
    return _load(root, lambda document: msgspec.convert(document.get("archive", {}), Settings))


def _load(root: Path, read: Callable[[dict[str, Any]], T]) -> T:
    path = root / FILE
    try:
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            text = ""
        return read(tomllib.loads(text))
    except OSError as error:
        raise StorageFailed(str(path), "reading the settings", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(str(path), str(error)) from error
