"""Removing backups that are no longer kept, a generation at a time, each durable before the next."""

from __future__ import annotations

from pathlib import Path

import msgspec

from refold_adapters.durable import sync_directory
from refold_adapters.stopping import Tell

from .history import Known, read_history, write_history
from .places import owned, stored
from .reading import AskSecret
from .retention import Candidate, Policy, decide


class Pruned(msgspec.Struct, frozen=True):
    """What was kept and why, what was removed (or would be), what is left alone, and the bytes that this frees."""

    keep: dict[str, list[str]]
    removed: list[Known]
    left: list[str]
    bytes: int
    dry_run: bool


def prune(directory: Path, policy: Policy, *, dry_run: bool, now: int, secret: AskSecret, tell: Tell) -> Pruned:
    """Removes what the policy does not keep. Raises `Locked`, `StorageFailed`; what is kept is whole all the same."""
    with owned(directory, now):
        history = read_history(directory, secret)
        by_id = history.by_id()
        candidates = [
            Candidate(known.id, known.millis, known.parent.id if known.parent is not None else None)
            for known in history.backups
        ]
        decision = decide(candidates, policy)
        removed = [by_id[id_] for generation in decision.remove for id_ in generation]
        left = [by_id[id_].file for id_ in decision.left] + [unusable.file for unusable in history.unusable]
        if not dry_run:
            done = 0
            for generation in decision.remove:
                with stored(directory, "removing backups"):
                    for id_ in generation:
                        (directory / by_id[id_].file).unlink(missing_ok=True)
                        done += 1
                        tell("removed", done)
                    sync_directory(directory)
            gone = {known.id for known in removed}
            if gone or history.stale:
                write_history(directory, [known for known in history.backups if known.id not in gone])
        return Pruned(decision.keep, removed, left, sum(known.size for known in removed), dry_run)
