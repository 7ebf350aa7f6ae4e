"""Archives that come back: a new log is filled from what is there, proved, and given its name.

`building` makes a new archive of events, wherever they come from; `restoring` fills it from an archive's log or its
folders, or makes what is derived anew in place; `rehearsing` tells what that would do. `recovering` fills it from the
union of several sources, of which any may be damaged. `kinds` lists what can be a source.
"""

from .building import Making, build
from .copying import append_all, events_of
from .proving import prove_against
from .receipt import Receipt, ReceiptRefused, read_receipt
from .recovering import recover
from .rehearsing import Rehearsal, rehearse
from .report import RecoveryReport, RestoreReport
from .restoring import restore

__all__ = [
    "Making",
    "Receipt",
    "ReceiptRefused",
    "RecoveryReport",
    "Rehearsal",
    "RestoreReport",
    "append_all",
    "build",
    "events_of",
    "prove_against",
    "read_receipt",
    "recover",
    "rehearse",
    "restore",
]
