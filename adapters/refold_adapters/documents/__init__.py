"""The files that records point to: which are new, changed, missing, moved or orphaned, and which have rotted.

A collection says in its definition which of its fields hold a path and which a hash (`Collection.documents`). Nothing
here ever writes, moves or removes a document.
"""

from .errors import DocumentsAway, DocumentsUndeclared
from .findings import DocumentFinding
from .recording import Cleared, Wording, clear_missing, record
from .scanning import Scan, ScanReport, scan, scanning
from .verifying import verify_documents

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
    "scanning",
    "verify_documents",
]
