"""refold: an embeddable, asyncio, event-sourced sync engine for records that live in folders.

A name is imported from its module when it is first asked for (PEP 562), so that whoever needs little of refold, as a
command that a scheduler runs every minute, does not wait for all of it.
"""

from typing import TYPE_CHECKING

from .lazy import lazily

if TYPE_CHECKING:
    from .attendance import ClientStatus, SyncState, SyncStatus
    from .batch import Batch
    from .clients import Answer, Change, PushResult
    from .conflict import Conflict
    from .conflict_list import Quality
    from .deletions import Deletion
    from .diff import Difference
    from .engine import Engine
    from .errors import RefoldError
    from .events import Checkpoint, Event, Kind
    from .opening import open  # noqa: A004 - `refold.open` reads as what it is
    from .pulls import Page, Pulled, Removed
    from .reader import Status
    from .record import Record
    from .schema import Collection, Field, collection
    from .sync import SyncReport
    from .verdict import Finding, Report, Verdict
    from .versions import Add, Convert, Drop, Rename

_HOMES = {
    "attendance": ("ClientStatus", "SyncState", "SyncStatus"),
    "batch": ("Batch",),
    "clients": ("Answer", "Change", "PushResult"),
    "conflict": ("Conflict",),
    "conflict_list": ("Quality",),
    "deletions": ("Deletion",),
    "diff": ("Difference",),
    "engine": ("Engine",),
    "errors": ("RefoldError",),
    "events": ("Checkpoint", "Event", "Kind"),
    "opening": ("open",),
    "pulls": ("Page", "Pulled", "Removed"),
    "reader": ("Status",),
    "record": ("Record",),
    "schema": ("Collection", "Field", "collection"),
    "sync": ("SyncReport",),
    "verdict": ("Finding", "Report", "Verdict"),
    "versions": ("Add", "Convert", "Drop", "Rename"),
}
__getattr__ = lazily(__name__, _HOMES)

__all__ = [
    "Add",
    "Answer",
    "Batch",
    "Change",
    "Checkpoint",
    "ClientStatus",
    "Collection",
    "Conflict",
    "Convert",
    "Deletion",
    "Difference",
    "Drop",
    "Engine",
    "Event",
    "Field",
    "Finding",
    "Kind",
    "Page",
    "Pulled",
    "PushResult",
    "Quality",
    "Record",
    "RefoldError",
    "Removed",
    "Rename",
    "Report",
    "Status",
    "SyncReport",
    "SyncState",
    "SyncStatus",
    "Verdict",
    "collection",
    "open",
]
