"""Which files of an archive are refold's own, and so nobody's documents."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from refold_adapters.folders.content import DATA, EVENTS, META
from refold_adapters.folders.disk import INDEX, TEMPORARY
from refold_adapters.settings import DOCUMENTS, FILE, load_settings

_REPLICA = {DATA, META, EVENTS}
_OTHERS = re.compile(r"data\..+\.csv")


class OwnFiles:
    """The names that refold writes in the archive at `root`. Raises what reading its settings does."""

    def __init__(self, root: Path) -> None:
        settings = load_settings(root)
        databases = (settings.changelog, settings.tables, INDEX, DOCUMENTS)
        self._starts = tuple(name.removesuffix(".db") + "." for name in databases)

    def is_replica(self, names: Collection[str]) -> bool:
        """Whether a folder with these files holds a replica of records."""
        return META in names and EVENTS in names

    def others(self, names: set[str], *, at_root: bool) -> set[str]:
        """Of the names in a folder those that are not refold's."""
        replica = self.is_replica(names)
        rest = names - _REPLICA if replica else names
        return {name for name in rest if not self.owns(name, at_root=at_root, replica=replica)}

    def owns(self, name: str, *, at_root: bool, replica: bool) -> bool:
        """Whether a file of this name is refold's, in the root or in a folder that holds a replica of records."""
        if replica and (name in _REPLICA or name.endswith(TEMPORARY)):
            return True
        if replica and name.startswith("data.") and _OTHERS.fullmatch(name) is not None:
            return True
        return at_root and (name == FILE or name.startswith(self._starts))
