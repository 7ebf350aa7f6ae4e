"""What a path or a URL is taken for, when it is given as something to recover from.

Each kind has a way to be recognised, and the first that recognises a place takes it. A new kind of source is one more
entry of `KINDS`: a module with its events, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from refold.errors import RefoldError, SettingsInvalid, StorageFailed
from refold.verify import Finding
from refold_adapters.folders import INDEX
from refold_adapters.settings import Settings, load_settings
from refold_adapters.share.segments import is_share

from .backup_source import backup_events, is_backup
from .folder_source import file_events, folder_events
from .log_source import log_events, table_heads
from .share_source import share_events
from .source import Damage, Item, Source

LEFT_OUT = "left-out.jsonl"
"""Where a recovery keeps, in the archive it makes, what could not go into its log."""


@dataclass(eq=False)
class SourceRefused(RefoldError):
    """Something that nothing can be recovered from."""

    code: ClassVar[str] = "source-refused"
    message: ClassVar[str] = "{source}: {why}"
    hint: ClassVar[str] = "name an archive, folders, a shared directory, or a file of events; nothing was changed"
    source: str
    why: str


class Place(msgspec.Struct, frozen=True):
    """A place of one kind. Implements `Source`."""

    name: str
    label: str
    kind: str
    read: Callable[[], Iterator[Item]]

    def events(self) -> Iterator[Item]:
        """See `Source.events`."""
        return self.read()


class SourceKind(NamedTuple):
    """A kind of source: its name, whether a place is one, and what is in such a place."""

    name: str
    recognises: Callable[[Path], bool]
    events: Callable[[Path], Iterator[Item]]


def settings_of(root: Path) -> Settings:
    """The settings of what is left of an archive; the default ones where they cannot be read."""
    try:
        return load_settings(root)
    except (SettingsInvalid, StorageFailed):
        return Settings()


def _is_archive(path: Path) -> bool:
    settings = settings_of(path) if path.is_dir() else Settings()
    return any((path / name).is_file() for name in (settings.changelog, settings.tables, INDEX))


def _archive_events(root: Path) -> Iterator[Item]:
    """Everything that an archive holds events in: its log, its folders, and what an earlier recovery left out."""
    try:
        settings = load_settings(root)
    except (SettingsInvalid, StorageFailed) as error:
        settings = Settings()
        yield Damage(Finding("settings-unreadable", str(error)))
    log = root / settings.changelog
    if log.is_file():
        yield from log_events(log)
    else:
        yield Damage(Finding("log-missing", "there is no log", file=log.name))
    if (root / settings.tables).is_file():
        yield from table_heads(root / settings.tables)
    yield from folder_events(root)
    if (root / LEFT_OUT).is_file():
        yield from file_events(root / LEFT_OUT)


def _is_log(path: Path) -> bool:
    return path.is_file() and not path.name.endswith(".jsonl")


KINDS: tuple[SourceKind, ...] = (
    SourceKind("archive", _is_archive, _archive_events),
    SourceKind("share", is_share, share_events),
    SourceKind("backup", is_backup, backup_events),
    SourceKind("folders", Path.is_dir, folder_events),
    SourceKind("lines", lambda path: path.is_file() and path.name.endswith(".jsonl"), file_events),
    SourceKind("log", _is_log, log_events),
)
"""The kinds of sources, those first that are told by more."""


def path_of(name: str) -> Path:
    """The path that a name of a source stands for: itself, or what a `file:` or `dir:` URL names."""
    return Path(unquote(urlsplit(name).path)) if name.startswith(("file:", "dir:")) else Path(name)


def sources_of(names: list[str]) -> list[Source]:
    """What to recover from, by paths and URLs. Raises `SourceRefused` for what is not there or no source."""
    found: list[Source] = []
    labels: set[str] = set()
    for name in names:
        path = path_of(name)
        kind = next((kind for kind in KINDS if kind.recognises(path)), None)
        if kind is None:
            why = "it is nothing to recover from" if path.exists() else "it is not there; is the disk mounted?"
            raise SourceRefused(name, why)
        label = f"{kind.name} {path.resolve().name}"
        number = 2
        while label in labels:
            label = f"{kind.name} {path.resolve().name} ({number})"
            number += 1
        labels.add(label)
        found.append(Place(name, label, kind.name, lambda kind=kind, path=path: kind.events(path)))  # type: ignore[misc]
    return found
