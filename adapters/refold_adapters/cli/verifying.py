"""What `refold verify` does: it says whether an archive can be trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import refold
from refold import Finding, Report, Verdict
from refold.errors import FormatUnknown, LogCorrupt, ProjectionFailed, StorageFailed
from refold.verdict import FROM_FOLDERS, OPENING, TABLES, judged
from refold.verify import Claim
from refold.verifying import EVERYTHING
from refold_adapters.archive import is_damage
from refold_adapters.folders.content import META
from refold_adapters.folders.disk import INDEX
from refold_adapters.log_check import check_chain
from refold_adapters.settings import load_settings
from refold_adapters.witnesses import claims_of

from .context import Settled, perform
from .output import cell, document, progress, say, write

MEANINGS = {
    Verdict.TORN: "work that a crash left unfinished; nothing that was acknowledged is missing",
    Verdict.ALTERED: "what was made of the log is not as it was written; the log is sound",
    Verdict.UNVERIFIED: "a part could not be looked at, so nobody knows whether it is sound",
    Verdict.CUT: "the log ends before what others have seen of it",
    Verdict.FORK: "others know another history under the same id: a copy of this archive went on by itself",
    Verdict.ROT: "events of the log are not those that were written",
}


def run_verify(settled: Settled, witnesses: Sequence[str], only: Sequence[str]) -> int:
    """Verifies the archive and says what was found; the exit code."""
    lost = _lost(settled.root)
    if lost is None:
        settled.must_exist()

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            report = lost or await verified(settled, bars, witnesses, only)
        if settled.json:
            told = {"ok": report.ok, "verdict": report.verdict, "findings": report.findings, "events": report.events}
            document(told)
        else:
            _tell(settled, report)
        return 0 if report.ok else 4

    return perform(work)


def _tell(settled: Settled, report: Report) -> None:
    for finding in report.findings:
        write(describe(finding) + "\n")
    if report.ok:
        if not settled.quiet:
            write(f"ok: {report.events} events\n")
        return
    say(f"{report.verdict}: {MEANINGS[report.verdict]}; {len(report.findings)} findings")
    for repair in dict.fromkeys(finding.repair for finding in report.findings if finding.repair is not None):
        say(f"repair: {repair}")


def _lacks_index(root: Path) -> bool:
    return load_settings(root).folders and not (root / INDEX).is_file()


async def verified(
    settled: Settled, bars: Callable[[str, int], None], witnesses: Sequence[str] = (), only: Sequence[str] = ()
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
            report = await engine.verify(bars, claims=claims, only=only or EVERYTHING)
    except (StorageFailed, LogCorrupt, FormatUnknown, ProjectionFailed) as error:
        report = await asyncio.to_thread(_unopened, settled.root, error)
    if (not only or "folders" in only) and await asyncio.to_thread(_lacks_index, settled.root):
        why = f"{INDEX} is not there, so the folders were not compared; `refold export` writes them anew"
        findings.append(Finding("unreadable", why, file=INDEX, repair=OPENING))
    return Report(judged([*report.findings, *findings]), report.events)


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
    remains = [name for name in (settings.tables, INDEX, META) if (root / name).is_file()]
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
