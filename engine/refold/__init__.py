"""refold: an embeddable, asyncio, event-sourced sync engine for records that live in folders."""

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

__all__ = [
    "Answer",
    "Batch",
    "Change",
    "Checkpoint",
    "ClientStatus",
    "Collection",
    "Conflict",
    "Deletion",
    "Difference",
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
    "Report",
    "Status",
    "SyncReport",
    "SyncState",
    "SyncStatus",
    "Verdict",
    "collection",
    "open",
]
