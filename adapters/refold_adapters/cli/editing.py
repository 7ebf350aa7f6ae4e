"""The command that takes edits made by hand into the log: adopt-edits."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from refold_adapters.hand_edits import Adopted, adopt_edits

from .context import Settled, pass_settled, perform
from .options import speech, wording
from .output import cell, document, say, write

PARTLY = 3


@click.command(name="adopt-edits")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@wording
@speech
@pass_settled
def adopt_edits_(settled: Settled, /, folders: tuple[str, ...], dry_run: bool, **words: Any) -> int:
    """Turn data.csv files that were edited by hand into events. Exit code 3 when rows could not be taken."""
    places = [folder.strip("/").removeprefix("./") for folder in folders]

    actor = settled.actor(words["actor"])

    async def work() -> int:
        async with settled.writing(words["time"]) as engine:
            report = await adopt_edits(engine, places, dry_run=dry_run, actor=actor, reason=words["reason"])
        if settled.json:
            document({"ok": not report.refused, "dry_run": dry_run, **msgspec.structs.asdict(report)})
        else:
            _tell(settled, report, dry_run=dry_run)
        return PARTLY if report.refused else 0

    return perform(work)


def _tell(settled: Settled, report: Adopted, *, dry_run: bool) -> None:
    for change in report.changes:
        values = " ".join(f"{cell(name)}={cell(value)}" for name, value in change["values"].items())
        where = f"{change['folder']}/{change['file']}" + (f" row {change['row']}" if change["row"] else "")
        write(f"{change['operation']} {cell(change['collection'])} {cell(change['key'])} {values} ({cell(where)})\n")
    for refused in report.refused:
        at = f", row {refused.row}" if refused.row is not None else ""
        say(f"not taken: {cell(refused.folder)}/{cell(refused.file)}{at}: {cell(refused.message)}")
    if report.unlisted:
        say(f"not taken: {report.unlisted} more rows")
    for name in report.kept:
        say(f"kept: {cell(name)}")
    if not settled.quiet:
        counts = f"{report.created} created, {report.updated} updated, {report.deleted} deleted"
        apart = f", {report.conflicts} in conflict" if report.conflicts else ""
        say(f"{report.files} edited files: {counts}{apart}" + (" if it were not for --dry-run" if dry_run else ""))


COMMANDS = [adopt_edits_]
