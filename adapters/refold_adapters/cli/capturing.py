"""Commands that capture what another program writes in its SQLite table: capture install, run, status, uninstall."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from refold_adapters.capture.bookkeeping import in_thread
from refold_adapters.capture.capture import ACTOR, CaptureReport, capture_once
from refold_adapters.capture.following import follow
from refold_adapters.capture.installing import TableStatus, install, table_status, uninstall
from refold_adapters.settings import MirrorSetting, load_mirrors

from .context import Settled, pass_settled, perform
from .options import speech
from .output import cell, document, table, write

PARTLY = 3


@click.group()
def capture() -> None:
    """Keep a table of another program as a collection is, and take in what the program writes."""


@capture.command(name="install")
@click.argument("database")
@click.argument("name", metavar="TABLE")
@click.option("--collection", metavar="NAME", help="The collection that it mirrors; the table's name otherwise.")
@click.option("--poll", "polls", is_flag=True, help="Compare the table with how it was seen last; add no triggers.")
@speech
@pass_settled
def install_(settled: Settled, /, database: str, name: str, collection: str | None, polls: bool) -> int:
    """Begin to capture TABLE of DATABASE, a file in the archive, or go on after the table has changed."""
    settled.must_exist()
    root = settled.root.absolute()

    async def work() -> int:
        return _tell(settled, [await install(root, database, name, collection, polls=polls)])

    return perform(work)


@capture.command(name="uninstall")
@click.argument("name", metavar="TABLE")
@speech
@pass_settled
def uninstall_(settled: Settled, /, name: str) -> int:
    """Take in what is left, and leave the database as it was."""
    settled.must_exist()
    root = settled.root.absolute()

    async def work() -> int:
        return _tell(settled, [await uninstall(root, name)])

    return perform(work)


@capture.command()
@click.option("--once", is_flag=True, help="Take in what is there now, and end.")
@click.option("--actor", metavar="NAME", default=ACTOR, show_default=True, help="Who, for the log.")
@speech
@pass_settled
def run(settled: Settled, /, once: bool, actor: str) -> int:
    """Take in what programs write in the captured tables, until Ctrl-C; exit code 3 when something was refused."""
    settled.must_exist()
    root = settled.root.absolute()

    async def work() -> int:
        if once:
            async with settled.writing() as engine:
                reports = await capture_once(engine, actor=actor)
            return _tell(settled, reports)
        await follow(root, tell=lambda reports: _say(settled, reports), actor=actor)
        return 0

    return perform(work)


@capture.command()
@speech
@pass_settled
def status(settled: Settled, /) -> int:
    """Show each captured table: what waits, what was refused and why, and whether it is as it was."""
    settled.must_exist()
    root = settled.root.absolute()

    async def work() -> int:
        found = [
            await asyncio.to_thread(_look, root, setting) for setting in await asyncio.to_thread(load_mirrors, root)
        ]
        for one in found:
            if settled.json:
                document(one)
                continue
            write(
                f"{cell(one.database)}\t{cell(one.table)}\t{one.waiting} waiting\t{cell(one.problem or 'in order')}\n"
            )
            for refusal in one.refused:
                write(f"  refused: key {cell(refusal.key)}: {cell(refusal.why)}\n")
        return PARTLY if any(one.problem or one.refused for one in found) else 0

    return perform(work)


def _look(root: Path, setting: MirrorSetting) -> TableStatus:
    path = root / setting.database
    return in_thread(path, "looking at the table", lambda: table_status(path, setting))


def _say(settled: Settled, reports: Sequence[CaptureReport]) -> None:
    if settled.json:
        for report in reports:
            document(report)
    elif not settled.quiet:
        rows = [(cell(one.table), str(one.written), str(one.unchanged), str(one.refused)) for one in reports]
        table(("table", "written", "unchanged", "refused"), rows)


def _tell(settled: Settled, reports: Sequence[CaptureReport]) -> int:
    _say(settled, reports)
    return PARTLY if any(report.refused for report in reports) else 0


COMMANDS = [capture]
