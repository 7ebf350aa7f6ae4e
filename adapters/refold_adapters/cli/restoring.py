"""What `refold restore` does and says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from refold.moment import Moment
from refold_adapters.recovery import RestoreReport, prove_against, read_receipt, rehearse, restore

from .context import Settled, perform
from .output import cell, document, pairs, progress, say, write
from .reading import note
from .verifying import describe


def restored(
    settled: Settled,
    target: Path | None,
    *,
    origin: str,
    at: Moment | None,
    replica: str | None,
    receipt: Path | None,
    dry_run: bool,
) -> int:
    """Brings the archive back, in `target` or in place, or only says what that would do; the exit code."""
    if dry_run:
        return perform(lambda: _rehearse(settled, target, origin, at))
    actor = settled.actor(None)

    async def work() -> int:
        with progress(quiet=settled.quiet) as bars:
            expected = await asyncio.to_thread(read_receipt, receipt) if receipt is not None else None
            report = await restore(
                settled.root,
                target,
                origin=origin,
                at=at,
                replica=replica,
                actor=actor,
                against=expected,
                progress=bars,
            )
        tell_restored(settled, report)
        return 0 if report.ok else 4

    return perform(work)


async def _rehearse(settled: Settled, target: Path | None, origin: str, at: Moment | None) -> None:
    with progress(quiet=settled.quiet) as bars:
        found = await rehearse(settled.root, target, origin=origin, at=at, progress=bars)
    if settled.json:
        document({"dry_run": True, **msgspec.structs.asdict(found)})
        return
    note(found.skipped)
    rows = [("would restore", cell(found.path)), ("from", found.origin), ("events", str(found.events))]
    for name in ("created", "changed", "deleted", "defined"):
        count = getattr(found, name)
        rows += [(name, str(count))] if count is not None else []
    rows += [("lacking", cell(dots)) for dots in found.lacking]
    rows += [("other files in", cell(folder)) for folder in found.folders]
    pairs([*rows, ("written", "nothing")])


def prove(settled: Settled, path: Path) -> int:
    """Proves the archive against a receipt; the exit code."""
    settled.must_exist()

    async def work() -> int:
        receipt = await asyncio.to_thread(read_receipt, path)
        findings = await prove_against(settled.root, receipt)
        if settled.json:
            told = {"events": receipt.events, "digest": receipt.digest, "receipt_hash": receipt.hash}
            document({"ok": not findings, "findings": findings, **told})
            return 4 if findings else 0
        for finding in findings:
            write(describe(finding) + "\n")
        if not findings and not settled.quiet:
            write(f"proved: {receipt.events} events, digest {receipt.digest}\n")
        return 4 if findings else 0

    return perform(work)


def tell_restored(settled: Settled, report: RestoreReport) -> None:
    """Says what a restore made."""
    if settled.json:
        document({"ok": report.ok, **msgspec.structs.asdict(report)})
        return
    for skipped in report.skipped:
        say(f"note: {cell(skipped)}")
    for finding in report.findings:
        write(describe(finding) + "\n")
    if settled.quiet:
        return
    rows = [
        ("restored" if report.ok else "not in order", cell(report.path)),
        ("replica", report.replica),
        ("events", str(report.events)),
        ("records", str(report.records)),
        ("folders", str(report.folders)),
        ("bytes", str(report.bytes)),
        ("digest", report.digest),
        *([("with this note", report.digest_after)] if report.digest_after != report.digest else []),
        ("seconds", str(report.seconds)),
    ]
    if report.receipt is not None:
        rows.append(("receipt", f"{report.receipt}, {report.receipt_hash}"))
    pairs([*rows, ("old log", cell(report.kept))] if report.kept else rows)
