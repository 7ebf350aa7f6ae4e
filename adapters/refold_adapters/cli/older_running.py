"""Runs a command on an older tool's archive, and says what came of it."""

from __future__ import annotations

import time
from pathlib import Path

from refold_adapters.adopting.candidates import Finding
from refold_adapters.old_commands.outcome import WARNINGS, Outcome
from refold_adapters.old_commands.running import exit_code, is_adopted, run
from refold_adapters.old_commands.settings import load

from .context import Settled, log_to_stderr
from .output import cell, document, say, write


def run_older(
    settled: Settled,
    command: str,
    config: Path | None,
    *,
    dry_run: bool,
    db: Path | None,
    archive: Path | None,
    log_file: Path | None,
    wait: float | None,
) -> int:
    """Runs export, verify or restore; the exit code."""
    settings = load(config, db=db, archive=archive, log=log_file, wait=wait)

    if is_adopted(settings.archive):
        log_to_stderr(settled.verbose)

    def tell(text: str) -> None:
        if not settled.quiet:
            say(text)

    outcome = run(command, settings, lambda: time.time_ns() // 1_000_000, dry_run=dry_run, said=tell)
    _tell(settled, outcome)
    return exit_code(outcome)


def _tell(settled: Settled, outcome: Outcome) -> None:
    if settled.json:
        document({"ok": not outcome.errors, **outcome.document()})
        return
    write("".join(_line(finding) for finding in outcome.findings))
    if outcome.unlisted:
        say(f"note: {outcome.unlisted} findings more; all of them are in the log file, where there is one")
    if settled.quiet:
        return
    if outcome.kept is not None:
        say(f"note: the database as it was is kept as {cell(outcome.kept)}")
    if outcome.dry_run:
        say("note: nothing was changed")
    write(outcome.summary() + "\n")


def _line(finding: Finding) -> str:
    where = "/".join(part for part in (finding.folder, finding.file) if part)
    names = [(name, getattr(finding, name)) for name in ("row", "key", "field")]
    about = [cell(where), *(f"{name} {cell(value)}" for name, value in names if value is not None)]
    level = "warning" if finding.kind in WARNINGS else "error"
    return f"{level}: {finding.kind}: {' '.join(part for part in about if part)}: {cell(finding.detail)}\n"
