"""Why nothing can be said, or should be done, about documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from refold import RefoldError


@dataclass(eq=False)
class DocumentsUndeclared(RefoldError):
    """No collection says which of its fields point to documents."""

    code: ClassVar[str] = "documents-undeclared"
    message: ClassVar[str] = "{collections} do not say which of their fields point to documents"
    hint: ClassVar[str] = 'add `documents = {{ path_field = "hash_field" }}` to the collection, and define it again'
    collections: list[str]


@dataclass(eq=False)
class DocumentsAway(RefoldError):
    """So many documents are missing that their disk or share rather is."""

    code: ClassVar[str] = "documents-away"
    message: ClassVar[str] = "{path}: {why}"
    hint: ClassVar[str] = "nothing was changed; see that all disks and shares are mounted, or say --force if this is so"
    path: str
    why: str
