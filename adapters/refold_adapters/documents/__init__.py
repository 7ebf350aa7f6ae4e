"""The files that records point to: which are new, changed, missing, moved or orphaned, and which have rotted.

A collection says in its definition which of its fields hold a path and which a hash (`Collection.documents`). Nothing
here ever writes, moves or removes a document.

A name is imported from its module when it is first asked for, since paths have users who need no more than that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import DocumentsAway, DocumentsUndeclared
    from .findings import DocumentFinding
    from .recording import Cleared, Wording, clear_missing, record
    from .scanning import Scan, ScanReport, scan
    from .verifying import verify_documents

_HOMES = {
    "errors": (
        "DocumentsAway",
        "DocumentsUndeclared",
    ),
    "findings": ("DocumentFinding",),
    "recording": (
        "Cleared",
        "Wording",
        "clear_missing",
        "record",
    ),
    "scanning": (
        "Scan",
        "ScanReport",
        "scan",
    ),
    "verifying": ("verify_documents",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """One of the names that users of the package need."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Cleared",
    "DocumentFinding",
    "DocumentsAway",
    "DocumentsUndeclared",
    "Scan",
    "ScanReport",
    "Wording",
    "clear_missing",
    "record",
    "scan",
    "verify_documents",
]
