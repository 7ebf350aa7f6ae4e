"""Backups: one file each, full or incremental, that anybody can open and nobody has to trust.

A backup is a zip of the events as lines of JSON, of the settings, and of a manifest that says what it is and proves the
rest. What is derived is left out: it comes back byte for byte from the events. `manifest.py` says what is in one,
`zip_reading.py` how it is read when it may be hostile, `encryption.py` how it is kept from others, `retention.py` how
long.
"""

from refold_adapters.stopping import in_thread

from .creating import Created, Order, create
from .documents import Document, documents_of
from .drill import Drill, Drilled, drill
from .encryption import Secret, passphrase, read_secret
from .errors import BackupRefused, BackupUnknown, ParentMissing, PassphraseNeeded, PassphraseWrong
from .history import History, Known, find, newest, read_history, write_history
from .manifest import Manifest
from .pruning import Pruned, prune
from .reading import BackupFile
from .restoring import restore_backup
from .retention import Policy
from .verifying import BackupReport, verify, with_parents

__all__ = [
    "BackupFile",
    "BackupRefused",
    "BackupReport",
    "BackupUnknown",
    "Created",
    "Document",
    "Drill",
    "Drilled",
    "History",
    "Known",
    "Manifest",
    "Order",
    "ParentMissing",
    "PassphraseNeeded",
    "PassphraseWrong",
    "Policy",
    "Pruned",
    "Secret",
    "create",
    "documents_of",
    "drill",
    "find",
    "in_thread",
    "newest",
    "passphrase",
    "prune",
    "read_history",
    "read_secret",
    "restore_backup",
    "verify",
    "with_parents",
    "write_history",
]
