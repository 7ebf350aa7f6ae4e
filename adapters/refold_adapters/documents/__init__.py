"""The files that records point to: which are new, changed, missing, moved or orphaned, and which have rotted.

A collection says in its definition which of its fields hold a path and which a hash (`Collection.documents`). Nothing
here ever writes, moves or removes a document.

A name is imported from its module when it is first asked for, since paths have users who need no more than that.
"""

from typing import TYPE_CHECKING

from refold.lazy import lazily

if TYPE_CHECKING:
    from .errors import DocumentsAway, DocumentsUndeclared
    from .findings import DocumentFinding
    from .recording import Cleared, clear_missing, record
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
__getattr__ = lazily(__name__, _HOMES)

__all__ = [
    "Cleared",
    "DocumentFinding",
    "DocumentsAway",
    "DocumentsUndeclared",
    "Scan",
    "ScanReport",
    "clear_missing",
    "record",
    "scan",
    "verify_documents",
]
