"""What tests of refold, and of adapters that others write for it, stand on.

In-memory adapters that can be told to fail, a writer of causal histories, and for each port a conformance suite: a
class to inherit from, with a method that makes the adapter under test. Nothing here needs a test framework.
"""

from .conformance_changelog import ChangelogConformance
from .conformance_projection import ProjectionConformance
from .conformance_store import StoreConformance
from .conformance_tables import TablesConformance
from .memory import Faults, MemoryLog, MemoryProjection, MemoryStore, MemoryTables, memory_engine
from .scribe import START, Scribe, Ticks, append, caught

__all__ = [
    "START",
    "ChangelogConformance",
    "Faults",
    "MemoryLog",
    "MemoryProjection",
    "MemoryStore",
    "MemoryTables",
    "ProjectionConformance",
    "Scribe",
    "StoreConformance",
    "TablesConformance",
    "Ticks",
    "append",
    "caught",
    "memory_engine",
]
