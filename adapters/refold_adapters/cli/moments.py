"""Commands about moments of an archive: diff, blame, tag."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from refold import Difference
from refold.blame import Blame, Standing
from refold.clock import format_time
from refold.errors import RecordUnknown
from refold.moment import Moment
from refold.vector import format_vector

from .context import Settled, pass_settled, perform
from .events import event_document
from .options import MomentType, at_option, speech, wording
from .output import cell, document, json_text, say, table, write
from .reading import note, pages


@click.command()
@click.argument("old", type=MomentType())
@click.argument("new", type=MomentType())
@click.argument("collection", required=False)
@click.argument("key", required=False)
@speech
@pass_settled
def diff(settled: Settled, /, old: Moment, new: Moment, collection: str | None, key: str | None) -> int:
    """Show what changed from the moment OLD to the moment NEW: in everything, in a collection, in one record.

    Moments are times, dates, @POSITION, @end, tags or version vectors. With --json, a line of JSON for each record.
    """

    async def work() -> None:
        counts: Counter[str] = Counter()
        async with settled.reading() as engine:
            for moment in (old, new):
                note((await engine.at(moment)).notes)
            async for page in pages(engine.diff(old, new, collection, key)):
                counts.update(difference.kind for difference in page)
                await asyncio.to_thread(_differences, settled, page)
        if not settled.quiet and not settled.json:
            kinds = ("created", "changed", "deleted", "defined")
            say(", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind] or kind != "defined"))

    return perform(work)


def difference_document(difference: Difference) -> dict[str, Any]:
    """A difference as scripts read it."""
    return {
        "kind": difference.kind,
        "collection": difference.collection,
        "key": difference.key,
        "fields": {name: {"old": change.old, "new": change.new} for name, change in difference.fields.items()},
    }


def _differences(settled: Settled, page: list[Difference]) -> None:
    if settled.json:
        write("".join(json_text(difference_document(difference)) + "\n" for difference in page))
    else:
        write("".join(line + "\n" for difference in page for line in _lines(difference)))


def _lines(difference: Difference) -> Iterator[str]:
    yield " ".join((difference.kind, cell(difference.collection), cell(difference.key))).rstrip()
    for name, change in difference.fields.items():
        for sign, value in (("-", change.old), ("+", change.new)):
            if value is not None:
                yield f"  {sign} {cell(name)}: {cell(value)}".rstrip()


@click.command()
@click.argument("collection")
@click.argument("key")
@at_option
@speech
@pass_settled
def blame(settled: Settled, /, collection: str, key: str, at: Moment | None) -> int:
    """Show who wrote each value of a record, when and why; also the values that lost to one they had not seen."""

    async def work() -> None:
        async with settled.reading() as engine:
            source = engine if at is None else await engine.at(at)
            found = await source.blame(collection, key)
        if found is None:
            raise RecordUnknown(collection, key)
        if settled.json:
            document(_blame_document(found))
        else:
            table(("field", "value", "", "actor", "time", "reason", "event", "position"), list(_blame_rows(found)))

    return perform(work)


def _standing_document(standing: Standing) -> dict[str, Any]:
    event = standing.event
    return {
        "value": standing.value,
        "holds": standing.holds,
        "dot": f"{event.replica}:{event.seq}",
        "position": event.position,
        "time": format_time(event.time),
        "kind": event.kind,
        "actor": event.actor,
        "reason": event.reason,
    }


def _blame_document(found: Blame) -> dict[str, Any]:
    standings = {name: [_standing_document(one) for one in ones] for name, ones in found.fields.items()}
    return {
        "collection": found.collection,
        "key": found.key,
        "deleted": found.deleted,
        "fields": {name: {"value": found.values[name], "standing": standings[name]} for name in standings},
        "presence": [_standing_document(standing) for standing in found.presence],
    }


def _blame_rows(found: Blame) -> Iterator[tuple[str, ...]]:
    shown = {name: cell(value) for name, value in found.values.items()}
    for name, standings in found.fields.items():
        if not any(standing.holds for standing in standings):
            yield cell(name), shown[name], "settled" if standings else "default", "", "", "", "", ""
        for standing in sorted(standings, key=lambda one: not one.holds):
            yield cell(name), cell(standing.value), *_who(standing)
    for standing in sorted(found.presence, key=lambda one: not one.holds):
        yield "(record)", "there" if standing.value else "deleted", *_who(standing)


def _who(standing: Standing) -> tuple[str, ...]:
    event = standing.event
    told = (cell(event.actor), format_time(event.time), cell(event.reason))
    return "" if standing.holds else "lost", *told, f"{cell(event.replica)}:{event.seq}", str(event.position)


@click.command()
@click.argument("name", required=False)
@click.option("--at", type=MomentType(), help="Name this moment, and not what the archive holds now.")
@click.option("--list", "listing", is_flag=True, help="List the names, with what they stand for.")
@click.option("--delete", is_flag=True, help="Take the name back.")
@wording
@speech
@pass_settled
def tag(
    settled: Settled,
    /,
    name: str | None,
    at: Moment | None,
    time: int | None,
    *,
    listing: bool,
    delete: bool,
    **who: str | None,
) -> int:
    """Give a moment a NAME, so that one can come back to it; a name that is taken is moved.

    Names are events like any other: they reach every replica, and are there after a restore.
    """
    if listing + delete > 1 or (at is not None and (listing or delete)) or (listing and name is not None):
        raise click.UsageError("say a NAME, with --at MOMENT if it is not now; or --list; or --delete NAME")
    if name is None:
        if delete or at is not None:
            raise click.UsageError("say which NAME")
        return perform(lambda: _tags(settled))
    settled.must_exist()
    who["actor"] = settled.actor(who["actor"])

    async def work() -> None:
        async with settled.writing(time) as engine:
            if delete:
                event = await engine.untag(name, **who)
            else:
                view = await engine.at(at) if at is not None else None
                note(view.notes if view is not None else [])
                event = await engine.tag(name, view.vector if view is not None else None, **who)
        if settled.json:
            document({"event": event_document(event) if event is not None else None})
        elif not settled.quiet:
            vector = event.data[name] if event is not None else None
            done = f"tagged {name} {format_vector(vector)}" if vector else f"took back {name}"
            write(f"{done}\n" if event is not None else "nothing changed\n")

    return perform(work)


async def _tags(settled: Settled) -> None:
    async with settled.reading() as engine:
        tags = await engine.tags()
    if settled.json:
        document({"tags": tags})
    else:
        table(("name", "vector"), [(cell(name), cell(format_vector(vector))) for name, vector in tags.items()])


COMMANDS = [diff, blame, tag]
