"""Commands for replicas that meet: sync, conflicts, resolve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import click

from refold import Conflict, Engine
from refold.batch import schema_for
from refold.clock import format_time
from refold.conflict import FIELD_STRATEGIES, ConflictKind
from refold.conflict_list import OPEN, RESOLVED, STATUSES, Quality
from refold.errors import ResolutionRefused, RuleBroken
from refold.session import MAX_SKEW
from refold.sync import SyncReport

from .context import Settled, pass_settled, perform
from .events import event_document
from .options import assignments, speech, wording
from .output import cell, document, json_text, progress, safe, say, table, write

UNSETTLED = 5


@click.command()
@click.argument("peer")
@click.option(
    "--max-skew",
    type=click.FloatRange(0),
    default=MAX_SKEW / 1000,
    show_default=True,
    metavar="SECONDS",
    help="How far the peer's clock, or an event's time, may be ahead.",
)
@speech
@pass_settled
def sync(settled: Settled, /, peer: str, max_skew: float) -> int:
    """Exchange events with PEER, both ways: another archive's path, or dir:///PATH of a directory that replicas share.

    What was taken in stays when the session breaks off; run it again to go on. Exit code 5 when records that were
    written on both sides have a conflict that waits to be settled.
    """
    settled.must_exist()
    if not math.isfinite(max_skew):
        raise click.BadParameter(f"{max_skew} is no number of seconds", param_hint="--max-skew")

    async def work() -> int:
        async with settled.writing() as engine:
            with progress(quiet=settled.quiet) as bars:
                report = await engine.sync(peer, max_skew=int(max_skew * 1000), progress=bars)
        _tell(settled, report)
        return UNSETTLED if report.conflicts else 0

    return perform(work)


def _tell(settled: Settled, report: SyncReport) -> None:
    if settled.json:
        document(report)
        return
    if not report.related:
        say("note: the two had no event in common before")
    if not settled.quiet:
        counts = (f"{getattr(report, name)} {name}" for name in ("sent", "received", "merged", "conflicts"))
        write(f"{', '.join(counts)}\n")
    if report.conflicts:
        say("`refold conflicts --status open` shows what waits to be settled")


def conflict_document(conflict: Conflict) -> dict[str, Any]:
    """A conflict as scripts read it."""
    actors = {(event.replica, event.seq): event.actor for event in conflict.events}
    return {
        "id": conflict.id,
        "kind": conflict.kind,
        "collection": conflict.collection,
        "key": conflict.key,
        "status": conflict.status,
        "strategy": conflict.strategy,
        "base": conflict.base,
        "sides": {
            name: [
                {
                    "dot": f"{side.replica}:{side.seq}",
                    "time": format_time(side.time),
                    "actor": actors.get(side.dot, ""),
                    "value": side.value,
                }
                for side in sides
            ]
            for name, sides in conflict.sides.items()
        },
        "outcome": conflict.outcome,
        "settled_by": event_document(conflict.settled_by) if conflict.settled_by is not None else None,
    }


@click.group(invoke_without_command=True)
@click.option("--status", type=click.Choice(STATUSES), help="Only these; all that are not resolved otherwise.")
@click.option("--kind", type=click.Choice([str(kind) for kind in ConflictKind]), help="Only this kind.")
@click.option("--collection", default="", metavar="NAME", help="Only of this collection.")
@click.option("-n", "--limit", type=click.IntRange(0), help="At most so many.")
@click.option(
    "--what-if",
    metavar="strategy=NAME",
    help="Instead, show what would come out otherwise under another strategy; nothing is changed.",
)
@click.option("--summary", is_flag=True, help="Count instead how they ended, by kind, and how many needed nobody.")
@speech
@click.pass_context
@pass_settled
def conflicts(settled: Settled, ctx: click.Context, /, what_if: str | None, summary: bool, **which: Any) -> int:
    """List conflicts: those that wait to be settled, and those that a strategy settled. With --json, a line each."""
    if ctx.invoked_subcommand is not None:
        return 0
    if summary:
        if what_if is not None or any(value not in (None, "") for value in which.values()):
            raise click.UsageError("--summary counts the whole list: it takes no other option")
        return perform(lambda: _summary(settled))
    strategy = _strategy(what_if)

    async def work() -> None:
        async with settled.reading() as engine:
            status, kind = which["status"] or "", which["kind"] or ""
            shown = 0
            async for conflict in engine.conflicts(
                status, kind=kind, collection=which["collection"], strategy=strategy
            ):
                if which["limit"] is not None and shown >= which["limit"]:
                    break
                if conflict.status == RESOLVED and not which["status"]:
                    continue
                if strategy is not None and _same_outcome(await engine.conflict(conflict.id), conflict):
                    continue
                shown += 1
                await asyncio.to_thread(_line, settled, conflict)
        if strategy is not None and not settled.json and not settled.quiet:
            say(f"{shown} would come out otherwise under {strategy}")

    return perform(work)


_ENDS = ("open", "settled", "replaced", "resolved")


async def _summary(settled: Settled) -> None:
    async with settled.reading() as engine:
        found = await engine.merge_quality()
    whole = Quality(*(sum(getattr(one, name) for one in found.values()) for name in _ENDS))
    told = {**found, "all": whole}
    if settled.json:
        ends = {
            kind: {name: getattr(one, name) for name in (*_ENDS, "total", "automatic")} for kind, one in told.items()
        }
        document({"conflicts": ends})
        return
    rows = [
        (kind, *(str(getattr(one, name)) for name in (*_ENDS, "total")), _percent(one.automatic))
        for kind, one in told.items()
    ]
    table(("kind", *_ENDS, "total", "automatic"), rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _strategy(what_if: str | None) -> str | None:
    if what_if is None:
        return None
    name, _, strategy = what_if.partition("=")
    if name != "strategy" or strategy not in FIELD_STRATEGIES:
        raise click.BadParameter(
            f"{what_if!r} is not strategy= and one of {', '.join(FIELD_STRATEGIES)}", param_hint="--what-if"
        )
    return strategy


def _same_outcome(now: Conflict, then: Conflict) -> bool:
    return (now.outcome, now.open) == (then.outcome, then.open)


def _line(settled: Settled, conflict: Conflict) -> None:
    if settled.json:
        write(json_text(conflict_document(conflict)) + "\n")
        return
    told = " ".join(f"{name or '(present)'}={cell(value)}" for name, value in conflict.outcome.items())
    row = (conflict.id, conflict.status, str(conflict.kind), conflict.collection, conflict.key, told)
    write("\t".join(safe(text) for text in row) + "\n")


@conflicts.command()
@click.argument("conflict_id", metavar="ID")
@speech
@pass_settled
def show(settled: Settled, /, conflict_id: str) -> int:
    """Show one conflict: what the fields were before, what each side made of them, and what came out and why."""

    async def work() -> None:
        async with settled.reading() as engine:
            conflict = await engine.conflict(conflict_id)
        if settled.json:
            document(conflict_document(conflict))
        else:
            _show(conflict, engine.replica)

    return perform(work)


def _show(conflict: Conflict, replica: str) -> None:
    """The sides in columns, the one of this replica first."""
    write(f"{conflict.kind} of {safe(conflict.collection)} {safe(conflict.key)}: {conflict.status}\n")
    events = sorted(conflict.events, key=lambda event: (event.replica != replica, event.time))
    names = [f"{'ours' if event.replica == replica else 'theirs'} {event.replica}:{event.seq}" for event in events]
    rows: list[Sequence[str]] = []
    for name, sides in conflict.sides.items():
        values = {side.dot: _value(name, side.value) for side in sides}
        base = _value(name, conflict.base[name]) if name in conflict.base else ""
        outcome = _value(name, conflict.outcome[name])
        rows.append((safe(name) or "(record)", base, *(values.get((e.replica, e.seq), "") for e in events), outcome))
    rows.append(("(actor)", "", *(cell(event.actor) for event in events), ""))
    rows.append(("(time)", "", *(format_time(event.time) for event in events), ""))
    table(("field", "base", *names, "outcome"), rows)
    closer = conflict.settled_by
    if closer is not None:
        why = f": {cell(closer.reason)}" if closer.reason else ""
        write(f"resolved by {closer.replica}:{closer.seq}, {cell(closer.actor)}, {format_time(closer.time)}{why}\n")
    elif conflict.kind in _HINTS:
        write(f"open: {_HINTS[conflict.kind]}\n")
    elif conflict.status == OPEN:
        write(f"strategy {conflict.strategy}: shown is the last write, until somebody settles it with refold resolve\n")
    else:
        write(f"settled by strategy {conflict.strategy}\n")


_HINTS = {
    ConflictKind.DEPENDENCY: "until the record that it refers to is there, or it refers to another",
    ConflictKind.UNIQUE: "until one of these records holds another value; refold resolve --take lets one keep it",
}


def _value(name: str, value: Any) -> str:
    if name:
        return cell(value) if value is not None else "null"
    return "present" if value else "deleted"


@click.command()
@click.argument("conflict_id", metavar="ID", required=False)
@click.option("--take", metavar="DOT", help="Let this side hold, named as replica:seq.")
@click.option("--set", "pairs", multiple=True, metavar="FIELD=VALUE", help="Let the field be so; may be repeated.")
@click.option("--keep-both", is_flag=True, help="Keep the outcome, and make a record of its own of every other side.")
@click.option("--interactive", is_flag=True, help="Walk through all that are open, and ask.")
@wording
@speech
@pass_settled
def resolve(settled: Settled, /, conflict_id: str | None, interactive: bool, time: int | None, **choice: Any) -> int:
    """Settle a conflict by taking a side, stating values, or keeping both."""
    settled.must_exist()
    who = {"actor": settled.actor(choice.pop("actor")), "reason": choice.pop("reason")}
    if interactive == (conflict_id is not None):
        raise click.UsageError("say the ID of one conflict, or --interactive")
    if interactive and (choice["take"] or choice["pairs"] or choice["keep_both"]):
        raise click.UsageError("--interactive asks for each conflict what is to hold")

    async def work() -> int:
        async with settled.writing(time) as engine:
            if conflict_id is None:
                return await _walk(engine, who)
            await _settle(settled, engine, conflict_id, choice, who)
            return 0

    return perform(work)


async def _settle(
    settled: Settled, engine: Engine, conflict_id: str, choice: dict[str, Any], who: dict[str, Any]
) -> None:
    conflict = await engine.conflict(conflict_id)
    schema = schema_for(engine.schemas, conflict.collection)
    values = assignments(schema, choice["pairs"]) if choice["pairs"] else None
    events = await engine.resolve(conflict_id, take=choice["take"], values=values, keep_both=choice["keep_both"], **who)
    if settled.json:
        document({"events": [event_document(event) for event in events]})
    elif not settled.quiet:
        write(f"settled {safe(conflict.collection)} {safe(conflict.key)}\n")


async def _walk(engine: Engine, who: dict[str, Any]) -> int:
    """Shows each open conflict and asks for a side; how it ended, as an exit code."""
    left = 0
    waiting = [conflict async for conflict in engine.conflicts(OPEN)]
    for conflict in waiting:
        dots = [f"{event.replica}:{event.seq}" for event in conflict.events]
        sides = [*dots, "both"] if conflict.kind not in _HINTS else dots if conflict.kind is ConflictKind.UNIQUE else []
        await asyncio.to_thread(_show, conflict, engine.replica)
        answer = await asyncio.to_thread(_ask, [*sides, "skip", "quit"])
        if answer == "quit":
            return UNSETTLED
        if answer == "skip":
            left += 1
        else:
            choice: dict[str, Any] = {"keep_both": True} if answer == "both" else {"take": answer}
            try:
                await engine.resolve(conflict.id, **choice, **who)
            except (ResolutionRefused, RuleBroken) as error:
                say(safe(str(error)))
                left += 1
    return UNSETTLED if left else 0


def _ask(answers: list[str]) -> str:
    chosen: str = click.prompt("which holds?", type=click.Choice(answers))
    return chosen


COMMANDS = [sync, conflicts, resolve]
