"""A collection of three schema versions, random histories by writers of any of them, and what they mean by definition.

The meaning is worked out with plain dictionaries from the events and their contexts; the steps are not asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from refold.events import Event
from refold.schema import Collection, Field
from refold.testing import Scribe
from refold.versions import Add, Convert, Drop, Rename, Step

from .histories import maximal, writes_of

NAME = "things"
FIRST = Collection(
    name=NAME,
    key="id",
    folder="{room}",
    fields={
        "id": Field("str"),
        "room": Field("str", null=True),
        "label": Field("str", null=True),
        "amount": Field("str", null=True),
        "note": Field("str", null=True),
    },
)
SECOND_STEPS: list[Step] = [Rename("label", "name"), Convert("amount", "int", mapping={"none": 0})]
SECOND = Collection(
    name=NAME,
    key="id",
    folder="{room}",
    version=2,
    steps=[msgspec.structs.replace(step, version=2) for step in SECOND_STEPS],
    fields={
        "id": Field("str"),
        "room": Field("str", null=True),
        "name": Field("str", null=True),
        "amount": Field("int", null=True),
        "note": Field("str", null=True),
    },
)
THIRD_STEPS: list[Step] = [
    Rename("name", "title"),
    Rename("room", "place"),
    Drop("note"),
    Add("colour", default="grey"),
    Convert("amount", "str"),
    Rename("amount", "count"),
]
THIRD = Collection(
    name=NAME,
    key="id",
    folder="{place}",
    version=3,
    steps=[*SECOND.steps, *(msgspec.structs.replace(step, version=3) for step in THIRD_STEPS)],
    fields={
        "id": Field("str"),
        "place": Field("str", null=True),
        "title": Field("str", null=True),
        "count": Field("str", null=True),
        "colour": Field("str", default="grey"),
    },
)
GENERATIONS = [FIRST, SECOND, THIRD]

_texts = st.none() | st.sampled_from(["", "a", "b"])
_amounts = st.none() | st.sampled_from(["1", "2", "none", "many", " 1"])
VALUES: list[dict[str, st.SearchStrategy[Any]]] = [
    {"room": _texts, "label": _texts, "amount": _amounts, "note": _texts},
    {"room": _texts, "name": _texts, "amount": st.none() | st.integers(0, 2), "note": _texts},
    {"place": _texts, "title": _texts, "count": st.none() | st.sampled_from(["0", "1"]), "colour": _texts},
]


_names = [st.lists(st.sampled_from(list(values)), min_size=1, max_size=3, unique=True) for values in VALUES]


def write(scribe: Scribe, generation: int, key: str, data: dict[str, Any] | None) -> Event:
    """What a writer of a generation (0, 1, 2) writes of a record."""
    return scribe.write(NAME, key, None if data is None else {"id": key, **data}, version=generation + 1)


@st.composite
def mixed_histories(draw: st.DrawFn, *, max_steps: int = 14) -> list[Event]:
    """What writers of different generations write, each knowing its own events and what it was shown of the others'.

    A writer goes on to a later generation at any time, and may never. Most of it is about one record, so that writers
    of different generations often know each other's writes of one field, and often do not.
    """
    scribes = [Scribe("cba"[number], lambda: 5) for number in range(draw(st.integers(2, 3)))]
    generations = {scribe.replica: draw(st.sampled_from([0, 0, 1, 2])) for scribe in scribes}
    events: list[Event] = []
    for _ in range(draw(st.integers(4, max_steps))):
        scribe, other = draw(st.sampled_from(scribes)), draw(st.sampled_from(scribes))
        shown = list(other.seen.values())
        scribe.see(shown if draw(st.booleans()) else shown[: draw(st.integers(0, len(shown)))])
        action = draw(st.sampled_from(["write", "write", "write", "write", "upgrade", "delete"]))
        if action == "upgrade":
            generations[scribe.replica] = min(2, generations[scribe.replica] + 1)
            continue
        own = generations[scribe.replica]
        data = {name: draw(VALUES[own][name]) for name in draw(_names[own])} if action == "write" else None
        events.append(write(scribe, own, draw(st.sampled_from(["1", "1", "1", "2"])), data))
    return events


def told(event: Event, generation: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an event says as a generation has it, and the values that this one cannot read."""
    data, kept = dict(event.data), dict[str, Any]()
    if event.version == 1 and generation >= 1:
        if "label" in data:
            data["name"] = data.pop("label")
        amount = data.get("amount")
        if amount is not None:
            readable = amount == "none" or re.fullmatch("[0-9]+", amount)
            data["amount"] = (0 if amount == "none" else int(amount)) if readable else None
            kept |= {} if readable else {"amount": amount}
    if event.version <= 2 <= generation:
        for old, new in (("name", "title"), ("room", "place"), ("amount", "count")):
            if old in data:
                data[new] = data.pop(old)
            if old in kept:
                kept[new] = kept.pop(old)
        data.pop("note", None)
        data |= {"count": str(data["count"])} if data.get("count") is not None else {}
    return data, kept


def means(events: Sequence[Event], generation: int) -> tuple[dict[str, list[Event]], list[Event]]:
    """Of the events of one record the writes that stand, by field as a generation has it; and those of presence."""
    read = [msgspec.structs.replace(event, data=told(event, generation)[0]) for event in events]
    fields = {name for event in read for name in event.data}
    return {name: maximal(writes_of(read, name)) for name in sorted(fields)}, maximal(read)
