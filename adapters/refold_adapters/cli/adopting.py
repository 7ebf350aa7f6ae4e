"""Commands that take over an older tool's archive: adopt, quarantine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from refold_adapters.adopting.adopt import AdoptReport, adopt, adopt_quarantined
from refold_adapters.adopting.candidates import Finding
from refold_adapters.adopting.layout import PRESETS, Described, load_layout, preset
from refold_adapters.adopting.quarantine import LAYOUT, Quarantine
from refold_adapters.folders.disk import QUARANTINE

from .context import Settled, pass_settled, perform
from .options import speech
from .output import cell, document, pairs, progress, say, write

PARTLY = 3


def _layout(function: Any) -> Any:
    function = click.option(
        "--layout", "file", type=click.Path(path_type=Path), metavar="FILE.toml", help="How the archive is laid out."
    )(function)
    return click.option("--preset", "name", type=click.Choice(PRESETS), help="A layout that comes with refold.")(
        function
    )


def _described(name: str | None, file: Path | None, kept: Path | None = None) -> Described:
    if name is None and file is None and kept is not None and kept.is_file():
        return load_layout(kept)
    if (name is None) == (file is None):
        raise click.UsageError("say --preset NAME or --layout FILE.toml")
    return preset(name) if name is not None else load_layout(file or Path())


_wording = (
    click.option("--actor", metavar="NAME", default="adopt", show_default=True, help="Who, for the log."),
    click.option("--reason", metavar="TEXT", help="Why, for the log."),
)


def _worded(function: Any) -> Any:
    for option in reversed(_wording):
        function = option(function)
    return function


@click.command(name="adopt")
@click.argument("directory", type=click.Path(path_type=Path))
@_layout
@click.option("--write/--dry-run", "writes", default=False, help="Adopt it, or only report, which is the default.")
@click.option("--documents/--no-documents", default=True, show_default=True, help="Hash the files that rows point to.")
@_worded
@speech
@pass_settled
def adopt_(
    settled: Settled,
    /,
    directory: Path,
    name: str | None,
    file: Path | None,
    writes: bool,
    documents: bool,
    actor: str,
    reason: str | None,
) -> int:
    """Make the archive of an older tool a refold archive where it stands, or report what that would find.

    Rows that cannot be taken are put into the quarantine, byte for byte, and make the exit code 3.
    """
    described, root = _described(name, file), directory.absolute()

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            report = await adopt(
                root,
                described,
                write=writes,
                documents=documents,
                actor=actor,
                reason=reason,
                progress=bars,
            )
        _tell(settled, report)
        return 0 if report.complete else PARTLY

    return perform(work)


@click.group()
def quarantine() -> None:
    """What could not be adopted: list it, and take it in once it has been corrected."""


@quarantine.command(name="list")
@_layout
@speech
@pass_settled
def list_(settled: Settled, /, name: str | None, file: Path | None) -> int:
    """List the folders in the quarantine and what is wrong with each."""
    root = settled.root.absolute()
    box = Quarantine(root, _described(name, file, root / QUARANTINE / LAYOUT).layout)

    async def work() -> None:
        for entry in await asyncio.to_thread(lambda: list(box.entries())):
            if settled.json:
                document(entry)
                continue
            for finding in entry.findings:
                write(_line(finding) + "\n")

    return perform(work)


@quarantine.command(name="adopt")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@_layout
@_worded
@speech
@pass_settled
def again(
    settled: Settled,
    /,
    folders: tuple[str, ...],
    name: str | None,
    file: Path | None,
    actor: str,
    reason: str | None,
) -> int:
    """Take in what has been corrected, and each FOLDER as it is. What is still wrong stays; the exit code is 3 then."""
    root = settled.root.absolute()
    described = _described(name, file, root / QUARANTINE / LAYOUT)

    async def work() -> int:
        report = await adopt_quarantined(root, described, as_they_are=folders, actor=actor, reason=reason)
        _tell(settled, report)
        return 0 if report.complete else PARTLY

    return perform(work)


def _line(finding: Finding) -> str:
    where = "/".join(part for part in (finding.folder, finding.file) if part) or f"key {finding.key}"
    row = f" row {finding.row}" if finding.row is not None else ""
    field = f" {finding.field}" if finding.field is not None else ""
    end = "; left out" if finding.left_out else f"; taken: {finding.taken}" if finding.taken else ""
    return f"{finding.kind}: {cell(where)}{row}{cell(field)}: {cell(finding.detail)}{cell(end)}"


def _tell(settled: Settled, report: AdoptReport) -> None:
    if settled.json:
        document({"complete": report.complete, **msgspec.structs.asdict(report)})
        return
    for finding in report.findings:
        write(_line(finding) + "\n")
    if settled.quiet:
        return
    names = ("folders", "live", "rows", "table_rows", "records", "losing")
    done = ("written", "unchanged", "refused", "quarantined", "released")
    rows = [(name.replace("_", " "), str(getattr(report, name))) for name in names + (done if report.write else ())]
    rows += [("left out", str(report.left_out)), ("seconds", str(report.seconds))]
    pairs([*rows, ("digest", report.digest)] if report.write else rows)
    if not report.write:
        say("nothing was changed; --write adopts it")


COMMANDS = [adopt_, quarantine]
