"""What an older tool's commands work on: options, or a JSON file that a crontab names.

| key | meaning |
| --- | --- |
| `db` | the SQLite database |
| `archive` | the directory of the folders |
| `log` | a file that lines of what happened are added to; none otherwise |
| `wait` | seconds that a run waits for another one to end; 30 otherwise |
| `preset` | a layout that comes with refold; `workshop` otherwise |
| `layout` | a layout of one's own, a TOML file, in place of a preset |
| `documents` | whether verify reads the documents that rows point to; false otherwise |

Paths are relative to the file that they stand in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from refold.errors import SettingsInvalid, StorageFailed

WAIT_SECONDS = 30.0


class OldSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which archive, which database, and how a run behaves; `layout` beats `preset`."""

    db: Path
    archive: Path
    log: Path | None = None
    wait: float = WAIT_SECONDS
    preset: str = "workshop"
    layout: Path | None = None
    documents: bool = False


class _Stated(msgspec.Struct):
    db: str | None = None
    archive: str | None = None
    log: str | None = None
    wait: float | None = None
    preset: str | None = None
    layout: str | None = None
    documents: bool | None = None


KEYS = _Stated.__struct_fields__


def load(config: Path | None, **options: Any) -> OldSettings:
    """The settings of a JSON file, if there is one, and options, which beat it.

    Raises `SettingsInvalid`, for a key that nobody knows too, and `StorageFailed`.
    """
    stated = _read(config) if config is not None else {}
    stated |= {name: value for name, value in options.items() if value is not None}
    where = str(config) if config is not None else "the command line"
    missing = [name for name in ("db", "archive") if name not in stated]
    if missing:
        raise SettingsInvalid(where, f"it does not say which {' and which '.join(missing)}")
    settings = OldSettings(**stated)
    if settings.db.is_dir():
        raise SettingsInvalid(where, f"db is {settings.db}, which is a directory")
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageFailed(str(path), "reading the settings", str(error)) from error
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        if unknown := sorted(document.keys() - set(KEYS)):
            raise SettingsInvalid(str(path), f"unknown {', '.join(map(repr, unknown))}; known are {', '.join(KEYS)}")
        stated = msgspec.convert(document, _Stated)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsInvalid(str(path), str(error)) from error
    if stated.wait is not None and not 0 <= stated.wait < float("inf"):
        raise SettingsInvalid(str(path), f"wait is {stated.wait}, and must be 0 or more")
    values: dict[str, Any] = {}
    for name in KEYS:
        value = getattr(stated, name)
        if value is not None:
            values[name] = path.absolute().parent / value if name in ("db", "archive", "log", "layout") else value
    return values
