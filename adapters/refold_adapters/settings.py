"""Settings of an archive that are not history: `refold.toml`, all optional.

| setting | default | meaning |
| --- | --- | --- |
| `changelog` | `"changelog.db"` | file name of the log |
| `tables` | `"tables.db"` | file name of the SQL tables |
| `folders` | `true` | whether folder replicas are kept |

They stand under `[archive]`; collections may be defined in the same file, for `refold define`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from refold.errors import SettingsInvalid, StorageFailed

FILE = "refold.toml"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `refold.toml` says under `[archive]`."""

    changelog: str = "changelog.db"
    tables: str = "tables.db"
    folders: bool = True

    def __post_init__(self) -> None:
        for name in (self.changelog, self.tables):
            if not name.endswith(".db") or "/" in name or "\\" in name or name.startswith("."):
                raise ValueError(f"{name!r} must be a plain file name that ends in .db")
        if len({self.changelog.casefold(), self.tables.casefold(), "folders.db"}) < 3:
            raise ValueError("changelog, tables and folders.db must be three different files")


def load_settings(root: Path) -> Settings:
    """The settings of the archive at `root`. Raises `SettingsInvalid`, `StorageFailed`."""
    path = root / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("archive", {})
        return msgspec.convert(table, Settings)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise StorageFailed(str(path), "reading the settings", str(error)) from error
    except ValueError as error:
        raise SettingsInvalid(str(path), str(error)) from error
