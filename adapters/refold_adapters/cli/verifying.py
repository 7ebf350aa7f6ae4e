"""What `refold verify` does: it says whether an archive can be trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

import refold
from refold import Engine, Finding, Report, Verdict
from refold.clock import format_time, from_millis
from refold.errors import FormatUnknown, LogCorrupt, ProjectionFailed, StorageFailed
from refold.progress import uninterrupted
from refold.rota import Coverage
from refold.verdict import FROM_FOLDERS, OPENING, TABLES, judged
from refold.verify import Claim
from refold.verifying import EVERYTHING
from refold_adapters.archive import is_damage
from refold_adapters.folders.disk import INDEX
from refold_adapters.log_check import check_chain
from refold_adapters.settings import load_settings, remains_of
from refold_adapters.verified import load_checked, save_checked
from refold_adapters.witnesses import claims_of

from .context import Settled, perform
from .output import cell, document, progress, say, write

MEANINGS = {
    Verdict.TORN: "work that a crash left unfinished; nothing that was acknowledged is missing",
    Verdict.ALTERED: "what was made of the log is not as it was written; the log is sound",
    Verdict.DOCUMENTS: "files that records point to are not as these say; log, tables and folders are not concerned",
    Verdict.UNVERIFIED: "a part could not be looked at, so nobody knows whether it is sound",
    Verdict.CUT: "the log ends before what others have seen of it",
    Verdict.FORK: "others know another history under the same id: a copy of this archive went on by itself",
    Verdict.ROT: "events of the log are not those that were written",
}


def run_verify(
    settled: Settled, witnesses: Sequence[str], only: Sequence[str], budget: int | None = None, *, documents: bool
) -> int:
    """Verifies the archive, for at most about so many seconds, and says what was found; the exit code."""
    lost = _lost(settled.root)
    if lost is None:
        settled.must_exist()

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            report = lost or await verified(settled, bars, witnesses, only, budget)
            if documents and not lost:
                found = await _of_documents(settled, bars)
                report = msgspec.structs.replace(report, findings=judged([*report.findings, *found]))
        if settled.json:
            told = {"ok": report.ok, "verdict": report.verdict, "findings": report.findings, "events": report.events}
            document({**told, **({} if budget is None else {"coverage": _covered(report)})})
        else:
            _tell(settled, report)
        return 0 if report.ok else 4

    return perform(work)


async def _of_documents(settled: Settled, bars: Callable[[str, int], None]) -> list[Finding]:
    """What is wrong with documents; that they could not be looked at is a finding as well."""
    from refold_adapters.documents import DocumentsAway, verify_documents

    try:
        async with refold.open(settled.root, create=False, readonly=True) as engine:
            return (await verify_documents(engine, settled.root.absolute(), bars))[0]
    except (StorageFailed, LogCorrupt, FormatUnknown, ProjectionFailed, DocumentsAway) as error:
        return [Finding("unreadable", f"documents: {error}")]


def _tell(settled: Settled, report: Report) -> None:
    for finding in report.findings:
        write(describe(finding) + "\n")
    if report.coverage is not None and not settled.quiet:
        _tell_coverage(report.coverage)
    if report.ok:
        if not settled.quiet:
            write(f"ok: {report.events} events\n")
        return
    say(f"{report.verdict}: {MEANINGS[report.verdict]}; {len(report.findings)} findings")
    for repair in dict.fromkeys(finding.repair for finding in report.findings if finding.repair is not None):
        say(f"repair: {repair}")


def _covered(report: Report) -> dict[str, Any] | None:
    told = report.coverage
    if told is None:
        return None
    oldest = format_time(from_millis(told.oldest)) if told.oldest is not None else None
    return {"pieces": told.pieces, "checked": told.checked, "never": told.never, "oldest": oldest}


def _tell_coverage(told: Coverage) -> None:
    write(f"{told.checked} of {told.pieces} pieces were checked now, those that had waited longest\n")
    if told.oldest is not None:
        write(f"every piece was checked since {format_time(from_millis(told.oldest))}\n")
    elif told.never:
        write(f"{told.never} were never checked yet, or have grown since; run it again to go on\n")


def _lacks_index(root: Path) -> bool:
    return load_settings(root).folders and not (root / INDEX).is_file()


async def verified(
    settled: Settled,
    bars: Callable[[str, int], None],
    witnesses: Sequence[str] = (),
    only: Sequence[str] = (),
    budget: int | None = None,
) -> Report:
    """The report of a verification; what cannot be opened for damage is a finding as well."""
    claims: list[Claim] = []
    findings: list[Finding] = []
    for witness in witnesses:
        told, unheard = await asyncio.to_thread(claims_of, witness)
        claims += told
        findings += unheard
    try:
        async with refold.open(settled.root, create=False, readonly=True) as engine:
            parts = only or EVERYTHING
            if budget is None:
                report = await engine.verify(bars, claims=claims, only=parts)
            else:
                report = await _in_turn(settled.root, engine, budget, bars, claims, parts)
    except (StorageFailed, LogCorrupt, FormatUnknown, ProjectionFailed) as error:
        report = await asyncio.to_thread(_unopened, settled.root, error)
    if (not only or "folders" in only) and await asyncio.to_thread(_lacks_index, settled.root):
        why = f"{INDEX} is not there, so the folders were not compared; `refold export` writes them anew"
        findings.append(Finding("unreadable", why, file=INDEX, repair=OPENING))
    return Report(judged([*report.findings, *findings]), report.events, report.coverage)


async def _in_turn(
    root: Path, engine: Engine, budget: int, bars: Callable[[str, int], None], claims: list[Claim], only: Container[str]
) -> Report:
    """A verification that goes on where those before it ended, and notes how far it has come."""
    checked = await asyncio.to_thread(load_checked, root, engine.replica)
    try:
        return await engine.verify(bars, claims=claims, only=only, budget=budget, checked=checked)
    finally:
        try:
            await uninterrupted(asyncio.to_thread(save_checked, root, engine.replica, checked))
        except StorageFailed as error:
            say(f"note: the next run will check the same again, since this could not be noted: {error}")


def _unopened(root: Path, error: StorageFailed | LogCorrupt | FormatUnknown | ProjectionFailed) -> Report:
    """What can be said of an archive that does not open: the log is looked at for itself, as far as it can be read."""
    settings = load_settings(root)
    repairs = {settings.changelog: FROM_FOLDERS, settings.tables: TABLES, INDEX: OPENING}
    path = root / settings.changelog
    if isinstance(error, LogCorrupt):
        try:
            findings, events = check_chain(path)
        except StorageFailed as failure:
            error = failure
        else:
            if all(finding.kind != "log-rot" for finding in findings):
                findings.append(Finding("log-rot", str(error), position=error.position))
            return Report(judged(findings), events)
    name = Path(getattr(error, "path", "")).name
    damaged = isinstance(error, StorageFailed) and is_damage(error)
    lost = name in repairs and not (root / name).exists()
    kinds = {settings.changelog: "log-rot", settings.tables: "table-altered"}
    finding = Finding(
        kinds.get(name, "unreadable") if damaged else "unreadable",
        str(error),
        file=name or None,
        repair=OPENING if lost else repairs.get(name) if damaged else None,
    )
    return Report(judged([finding]), 0)


def _lost(root: Path) -> Report | None:
    """What is said of an archive whose log is gone, while what was made of it is there."""
    settings = load_settings(root)
    remains = remains_of(root, settings)
    if (root / settings.changelog).is_file() or not remains:
        return None
    detail = f"it is not there, but {' and '.join(remains)} of an archive are"
    return Report(judged([Finding("log-cut", detail, file=settings.changelog)]), 0)


def describe(finding: Finding) -> str:
    """A finding in one line."""
    names = ("position", "replica", "seq", "collection", "key", "folder", "file", "row")
    told = ((name, getattr(finding, name)) for name in names)
    where = chain.from_iterable((name, cell(value)) for name, value in told if value is not None)
    return f"{finding.kind}: {cell(finding.detail)} ({' '.join(where)})"
