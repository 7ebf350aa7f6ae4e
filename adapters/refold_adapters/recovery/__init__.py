"""Archives that come back: a new log is filled from what is there, proved, and given its name.

`building` makes a new archive of events, wherever they come from; `restoring` fills it from an archive's log or its
folders, or makes what is derived anew in place.
"""

from .building import Making, append_all, build
from .report import RestoreReport
from .restoring import restore

__all__ = ["Making", "RestoreReport", "append_all", "build", "restore"]
