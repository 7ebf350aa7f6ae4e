"""What changed between two moments, laid over the one, gives the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold import Difference, Field, diff
from refold.engine import Engine
from refold.errors import CollectionUnknown, MomentUnknown
from refold.events import Event
from refold.schema import to_data
from refold.testing import MemoryStore, memory_engine
from refold.view import View

from .pasts import PARTS, belongs, moments, pasts
from .test_view import all_of, archive

pytestmark = pytest.mark.anyio

Shown = dict[str, dict[str, dict[str, Any]]]


@contextmanager
def held(events: int, page: int) -> Iterator[None]:
    """Fewer events held in memory, and smaller pages."""
    before = diff.HELD, diff.PAGE
    diff.HELD, diff.PAGE = events, page
    try:
        yield
    finally:
        diff.HELD, diff.PAGE = before


async def shown(view: View) -> Shown:
    """What a view shows, by collection and key; the definition under the empty key."""
    found: Shown = {}
    for name, schema in view.schemas.items():
        found[name] = {"": to_data(schema.collection)}
        found[name] |= {record.key: record.values for record in await all_of(view, name)}
    return found


def blank_of(definition: dict[str, Any]) -> dict[str, Any]:
    fields = {name.partition(":")[2]: spec for name, spec in definition.items() if name.startswith("field:")}
    return {name: spec.get("default") for name, spec in sorted(fields.items(), key=lambda item: item[1]["order"])}


def laid_over(old: Shown, differences: list[Difference]) -> Shown:
    """The state after changes to it; a field that a definition brings or takes is there with its default, or is not."""
    new = {name: dict(records) for name, records in old.items()}
    for one in differences:
        records = new.setdefault(one.collection, {})
        if one.kind == "deleted":
            del records[one.key]
            continue
        changed = {**records.get(one.key, {}), **{name: change.new for name, change in one.fields.items()}}
        assert one.kind != "created" or one.key not in records
        if one.kind == "defined":
            changed = {name: value for name, value in changed.items() if value is not None}
        records[one.key] = changed
    new = {name: records for name, records in new.items() if records.get("")}
    for records in new.values():
        blank = blank_of(records[""])
        for key in records:
            if key:
                records[key] = {name: records[key].get(name, value) for name, value in blank.items()}
    return new


async def differences(engine: Engine, *arguments: Any) -> list[Difference]:
    return [difference async for difference in engine.diff(*arguments)]


@settings(max_examples=60)
@given(pasts(), st.integers(0, 1000), st.integers(0, 1000))
async def test_a_diff_leads_from_one_view_to_the_other(events: list[Event], first: int, second: int) -> None:
    known = [moment for moment in moments(events) if belongs(events, moment)]
    async with archive(events) as engine:
        one, other = known[first % len(known)], known[second % len(known)]
        found = await differences(engine, one, other)
        old, new = await shown(await engine.at(one)), await shown(await engine.at(other))
        assert laid_over(old, found) == new
        assert all(change.old == old.get(d.collection, {}).get(d.key, {}).get(name, change.old)
                   for d in found for name, change in d.fields.items())  # fmt: skip
        with held(0, 1):
            assert await differences(engine, one, other) == found
        with held(1000, 1):
            assert await differences(engine, one, other) == found
        for difference in found:
            if difference.key:
                assert difference in await differences(engine, one, other, "parts", difference.key)
        assert await differences(engine, one, other, "parts") == found
        assert await differences(engine, one, one) == []


async def test_a_diff_costs_what_changed() -> None:
    store = MemoryStore()
    async with memory_engine(store) as engine:
        await engine.define(PARTS)
        async with engine.batch() as batch:
            for number in range(1000):
                batch.put("parts", {"id": str(number), "n": 0})
        await engine.tag("before")
        await engine.patch("parts", "7", {"n": 7})
        await engine.delete("parts", "8")
        await engine.put("parts", {"id": "new", "n": 1})
        looked: list[object] = []

        def records(after: tuple[str, str], limit: int) -> list[tuple[tuple[str, str], bytes]]:
            looked.append((after, limit))
            return []

        store.tables.records = records  # type: ignore[method-assign]
        found = await differences(engine, "before")
        assert [(one.kind, one.key) for one in found] == [("changed", "7"), ("deleted", "8"), ("created", "new")]
        assert found[0].fields == {"n": diff.Change(0, 7)}
        assert found[1].fields == {"id": diff.Change("8", None), "n": diff.Change(0, None)}
        assert looked == []
        assert [one.key for one in await differences(engine, "@end", "before")] == ["7", "8", "new"]
        assert await differences(engine, "before", "@end", "parts", "7") == found[:1]


async def test_a_definition_that_changed_is_told_and_a_new_field_alone_changes_no_record() -> None:
    async with memory_engine() as engine:
        await engine.define(PARTS)
        await engine.put("parts", {"id": "1", "n": 1})
        await engine.tag("before")
        wider = msgspec.structs.replace(PARTS, fields={**PARTS.fields, "t": Field("str", default="-")})
        await engine.define(wider)
        (found,) = await differences(engine, "before")
        assert (found.kind, found.collection, found.key, list(found.fields)) == ("defined", "parts", "", ["field:t"])


async def test_what_is_not_there_is_refused() -> None:
    async with memory_engine() as engine:
        await engine.define(PARTS)
        with pytest.raises(CollectionUnknown):
            await differences(engine, "@1", "@end", "others")
        with pytest.raises(MomentUnknown):
            await differences(engine, "never")
