"""Commands that read: get, ls, log, deletions, status, digest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import click
import msgspec

from refold import Deletion, Engine, Event, Kind, Record
from refold.batch import schema_for
from refold.clock import format_time, from_millis, to_millis
from refold.errors import (
    FieldUnknown,
    RecordUnknown,
)
from refold.fold import format_digest
from refold.moment import Moment
from refold.view import View
from refold_adapters.hand_edits import Edits, edits_of

from .context import Settled, pass_settled, perform
from .events import event_document, event_row, record_document, record_line
from .options import TimeType, at_option, parsed, speech
from .output import at_terminal, cell, document, json_text, pairs, say, table, write

PAGE = 500
KINDS = click.Choice([str(kind) for kind in Kind])

EDITS_LISTED = 20
"""Edited files that `status` names; it counts the others."""


async def pages(items: AsyncIterator[Any]) -> AsyncIterator[list[Any]]:
    """Items in lists, so that writing them costs one call for many."""
    page: list[Any] = []
    async for item in items:
        page.append(item)
        if len(page) >= PAGE:
            yield page
            page = []
    if page:
        yield page


def note(notes: Iterable[str]) -> None:
    """Says what a moment leaves out."""
    for text in notes:
        say(f"note: {cell(text)}")


async def looked_at(engine: Engine, at: Moment) -> View:
    """The archive at a moment; what the moment leaves out is said."""
    view = await engine.at(at)
    note(view.notes)
    return view


@click.command()
@click.argument("collection")
@click.argument("key")
@click.option("--field", metavar="NAME", help="Only the value of this field.")
@at_option
@speech
@pass_settled
def get(settled: Settled, /, collection: str, key: str, field: str | None, at: Moment | None) -> int:
    """Show one record, also a deleted one with its last values."""

    async def work() -> None:
        async with settled.reading() as engine:
            source = engine if at is None else await looked_at(engine, at)
            schema = schema_for(source.schemas, collection)
            record = await source.get(collection, key)
        if record is None:
            raise RecordUnknown(collection, key)
        if field is not None:
            if field not in record.values:
                raise FieldUnknown(collection, field, list(schema.columns))
            value = record.values[field]
            text = value if isinstance(value, str) else cell(value)
            write((json_text(value) if settled.json else text) + "\n")
        elif settled.json:
            document(record_document(record))
        else:
            _show(record)

    return perform(work)


def _show(record: Record) -> None:
    rows = [(name, cell(value)) for name, value in record.values.items()]
    rows += [("(version)", record.version), ("(folder)", cell(record.folder))]
    pairs([*rows, ("(deleted)", "yes")] if record.deleted else rows)


@click.command()
@click.argument("collection", required=False)
@click.option("--where", multiple=True, metavar="FIELD=VALUE", help="Only records with this value; may be repeated.")
@click.option("--order", default="", metavar="[-]FIELD", help="By this field, - for descending; by key otherwise.")
@click.option("-n", "--limit", type=click.IntRange(0), help="At most so many.")
@at_option
@speech
@pass_settled
def ls(
    settled: Settled,
    /,
    collection: str | None,
    where: tuple[str, ...],
    order: str,
    limit: int | None,
    at: Moment | None,
) -> int:
    """List the records of a collection, or the collections. With --json, a line of JSON for each record."""
    if collection is None:
        if where or order or limit is not None:
            raise click.UsageError("--where, --order and --limit need a COLLECTION")
        return perform(lambda: _collections(settled, at))
    if at is not None and order:
        raise click.UsageError("--at lists by key: there is no table of then to --order")

    async def work() -> None:
        async with settled.reading() as engine:
            view = await looked_at(engine, at) if at is not None else None
            schema = schema_for((view or engine).schemas, collection)
            wanted = {}
            for pair in where:
                name, sign, text = pair.partition("=")
                if not sign:
                    raise click.UsageError(f"{pair!r} is no FIELD=VALUE")
                wanted[name] = parsed(schema, name, text)
            if order.removeprefix("-") and order.removeprefix("-") not in schema.columns:
                raise FieldUnknown(collection, order.removeprefix("-"), list(schema.columns))
            if view is not None:
                found = view.find(collection, wanted, limit=limit)
            else:
                found = engine.find(collection, wanted, order=order, limit=limit)
            if not settled.json and not at_terminal():
                write("\t".join(map(cell, schema.columns)) + "\n")
            async for page in pages(found):
                await asyncio.to_thread(_list, settled, schema.columns, page)

    return perform(work)


def _list(settled: Settled, columns: tuple[str, ...], page: list[Record]) -> None:
    if settled.json:
        write("".join(map(record_line, page)))
        return
    rows = [[cell(value) for value in record.values.values()] for record in page]
    if at_terminal():
        table([cell(name) for name in columns], rows)
    else:
        write("".join("\t".join(row) + "\n" for row in rows))


async def _collections(settled: Settled, at: Moment | None) -> None:
    async with settled.reading() as engine:
        if at is None:
            counts = (await engine.status()).collections
        else:
            counts = await (await looked_at(engine, at)).counts()
    if settled.json:
        document({"collections": counts})
    else:
        table(("collection", "records"), [(cell(name), str(count)) for name, count in counts.items()])


@click.command()
@click.argument("collection", required=False)
@click.argument("key", required=False)
@click.option("--since", type=TimeType(), metavar="TIME", help="From this time on.")
@click.option("--until", type=TimeType(), metavar="TIME", help="Up to this time.")
@click.option("--actor", help="Only what this actor wrote.")
@click.option(
    "--kind",
    multiple=True,
    type=click.Choice([str(kind) for kind in Kind]),
    help="Only events of this kind; may be repeated.",
)
@click.option("--after", type=click.IntRange(0), default=0, metavar="POSITION", help="Only what stands after it.")
@click.option("-n", "--limit", type=click.IntRange(0), help="At most so many.")
@click.option("-r", "--reverse", is_flag=True, help="The newest first.")
@click.option("-f", "--follow", is_flag=True, help="Then wait for new events and show each as it is written.")
@speech
@pass_settled
def log(settled: Settled, /, collection: str | None, key: str | None, **options: Any) -> int:
    """Show events: all, those of a collection, or the history of one record. With --json, a line of JSON each."""
    reverse, follow, limit = options["reverse"], options["follow"], options["limit"]
    if reverse and follow:
        raise click.UsageError("--follow shows events as they come, so it cannot --reverse them")
    fits = _filter(options["since"], options["until"], options["actor"], options["kind"])

    async def work() -> None:
        async with settled.reading() as engine:
            if collection is not None:
                schema_for(engine.schemas, collection)
            source = _events(engine, collection, key, after=options["after"], follow=follow, reverse=reverse)
            shown = _first(source, fits, limit)
            async for page in _singly(shown) if follow else pages(shown):
                await asyncio.to_thread(_log_lines, settled, page)

    return perform(work)


def _filter(since: int | None, until: int | None, actor: str | None, kinds: Sequence[str]) -> Callable[[Event], bool]:
    low = from_millis(since) if since is not None else 0

    def fits(event: Event) -> bool:
        if event.time < low or (until is not None and to_millis(event.time) > until):
            return False
        return (actor is None or event.actor == actor) and (not kinds or event.kind in kinds)

    return fits


async def _events(
    engine: Engine, collection: str | None, key: str | None, *, after: int, follow: bool, reverse: bool
) -> AsyncIterator[Event]:
    if key is not None and collection is not None and not follow:
        history = [event async for event in engine.history(collection, key) if event.position > after]
        for event in reversed(history) if reverse else history:
            yield event
        return
    if reverse:
        async for event in _backwards(engine, collection, after):
            yield event
        return
    async for event in engine.events(after, follow=follow, collection=collection):
        if key is None or event.key == key:
            yield event


async def _backwards(engine: Engine, collection: str | None, after: int) -> AsyncIterator[Event]:
    """Page by page from the end of the log; positions are an unbroken run."""
    end = engine.position
    while end > after:
        start = max(after, end - PAGE)
        page: list[Event] = []
        async for event in engine.events(start):
            if event.position > end:
                break
            page.append(event)
        for event in reversed(page):
            if collection is None or event.collection == collection:
                yield event
        end = start


async def _first(
    events: AsyncIterator[Event], fits: Callable[[Event], bool], limit: int | None
) -> AsyncIterator[Event]:
    if limit == 0:
        return
    count = 0
    async for event in events:
        if fits(event):
            yield event
            count += 1
            if count == limit:
                return


async def _singly(events: AsyncIterator[Event]) -> AsyncIterator[list[Event]]:
    async for event in events:
        yield [event]


def _log_lines(settled: Settled, page: Iterable[Event]) -> None:
    if settled.json:
        write("".join(json_text(event_document(event)) + "\n" for event in page))
    elif at_terminal():
        table((), [event_row(event, 120 if not settled.verbose else None) for event in page], header=False)
    else:
        write("".join("\t".join(event_row(event)) + "\n" for event in page))


@click.command()
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
@click.option("--actor", help="Only what this actor deleted.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="POSITION", help="Only what stands after it.")
@click.option("-n", "--limit", type=click.IntRange(0), help="At most so many.")
@speech
@pass_settled
def deletions(
    settled: Settled, /, collections: tuple[str, ...], actor: str | None, after: int, limit: int | None
) -> int:
    """Show what was deleted, when, by whom and why, and whether it still is. With --json, a line of JSON each."""

    async def work() -> None:
        async with settled.reading() as engine:
            async for page in pages(engine.deletions(collections, after=after, actor=actor, limit=limit)):
                await asyncio.to_thread(_deletion_lines, settled, page)

    return perform(work)


def _deletion_lines(settled: Settled, page: Iterable[Deletion]) -> None:
    if settled.json:
        told = ({**msgspec.structs.asdict(one), "time": format_time(one.time)} for one in page)
        write("".join(json_text(one) + "\n" for one in told))
        return
    rows = [
        (
            *(cell(value) for value in (one.position, format_time(one.time), one.collection, one.key)),
            "deleted" if one.standing else "there again",
            cell(one.actor),
            cell(one.reason),
        )
        for one in page
    ]
    if at_terminal():
        table((), rows, header=False)
    else:
        write("".join("\t".join(row) + "\n" for row in rows))


@click.command()
@click.option("--edits", "sure", is_flag=True, help="Read every data file to find those that were edited by hand.")
@speech
@pass_settled
def status(settled: Settled, /, *, sure: bool) -> int:
    """Show where the archive stands: its log, its projections, its records, and files that were edited by hand."""

    async def work() -> None:
        async with settled.reading() as engine:
            found = await engine.status()
            keeps = any(projection.name == "folders" for projection in found.projections)
            edits = await edits_of(engine, limit=EDITS_LISTED, sure=sure) if keeps else Edits(0, [])
        if settled.json:
            document({**msgspec.structs.asdict(found), "edits": edits})
            return
        rows = [("replica", found.replica), ("position", str(found.position))]
        rows += [(f"seq of {cell(replica)}", str(seq)) for replica, seq in sorted(found.vector.items())]
        for projection in found.projections:
            why = f": {cell(projection.error)}" if projection.error else ""
            rows.append((f"projection {projection.name}", f"{projection.state} at {projection.position}{why}"))
        rows += [(f"records of {cell(name)}", str(count)) for name, count in found.collections.items()]
        rows += [("edited by hand", cell(f"{edit.folder}/{edit.standing}")) for edit in edits.listed]
        if edits.count > len(edits.listed):
            rows.append(("edited by hand", f"{edits.count - len(edits.listed)} more files"))
        pairs(rows)

    return perform(work)


@click.command()
@speech
@pass_settled
def digest(settled: Settled, /) -> int:
    """Show the digest of the state: the same events give the same digest on any machine."""

    async def work() -> None:
        async with settled.reading() as engine:
            found = await engine.checkpoint()
        text = format_digest(found.digest or 0)
        if settled.json:
            heads = {replica: {"seq": head.seq, "hash": head.hash.hex()} for replica, head in found.heads.items()}
            document({"digest": text, "position": found.position, "vector": found.vector, "heads": heads})
        else:
            write(f"{text}\n")

    return perform(work)


COMMANDS = [get, ls, log, deletions, status, digest]
