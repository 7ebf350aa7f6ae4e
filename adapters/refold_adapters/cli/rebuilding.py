"""The command that makes derived files anew where they are: rebuild."""

from __future__ import annotations

import click

from .context import Settled, pass_settled, perform
from .options import speech
from .output import document, progress, say, write
from .verifying import describe


@click.command()
@click.argument("what", type=click.Choice(("tables", "folders")))
@speech
@pass_settled
def rebuild(settled: Settled, /, what: str) -> int:
    """Make the tables or the folders anew from the log, and verify them. Exit code 4 when they do not verify."""
    return rebuilt(settled, what)


def rebuilt(settled: Settled, what: str) -> int:
    """Does what `refold rebuild` does; its exit code."""

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            async with settled.writing() as engine:
                await engine.rebuild(bars, what=what)
                report = await engine.verify(bars, only={what})
                position = engine.position
        if settled.json:
            told = {"what": what, "position": position, "verdict": report.verdict, "findings": report.findings}
            document({"ok": report.ok, **told})
        else:
            for finding in report.findings:
                write(describe(finding) + "\n")
            if not settled.quiet:
                say(f"{what} made anew up to position {position}")
        return 0 if report.ok else 4

    return perform(work)


COMMANDS = [rebuild]
