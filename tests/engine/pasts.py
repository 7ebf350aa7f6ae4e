"""Random pasts of archives: several replicas, groups of events, deletes, concurrency, definitions that change.

And what belongs to a moment by definition: read off the whole log, event by event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from refold.clock import to_millis
from refold.events import TAGS, Event, Kind
from refold.moment import AtPosition, AtTime, Moment
from refold.schema import Collection, Field, to_data
from refold.testing import Scribe

KEYS = ["1", "1a", "2", "2~a-2"]
PARTS = Collection(name="parts", key="id", fields={"id": Field("str"), "n": Field("int", null=True)}, folder="{id}")
ALL = Collection(
    name="parts",
    key="id",
    fields={**PARTS.fields, "s": Field("str", default="?", strategy="keep-both"), "t": Field("int", null=True)},
    folder="{id}",
)
DEFINITIONS = [
    PARTS,
    msgspec.structs.replace(PARTS, strategy="keep-both"),
    msgspec.structs.replace(PARTS, strategy="first-write-wins", folder="all"),
    ALL,
    msgspec.structs.replace(PARTS, fields={**PARTS.fields, "n": Field("int", null=True, strategy="sum")}),
]
VALUES = st.fixed_dictionaries({}, optional={"n": st.none() | st.integers(-2, 2), "s": st.sampled_from(["", "x", "?"])})


def whole(events: Sequence[Event]) -> list[Event]:
    """Without the group at the end that is not there whole."""
    have = {event.dot for event in events}
    return [event for event in events if (event.replica, event.batch) in have]


def _step(draw: st.DrawFn, scribe: Scribe, size: int, number: int) -> Event:
    last = scribe.head.seq + size - number
    action = draw(st.sampled_from(["write"] * 6 + ["delete", "define", "tag"]))
    if action == "define":
        old = scribe.states.get(("parts", ""))
        whole_one = to_data(draw(st.sampled_from(DEFINITIONS)))
        kept = whole_one if old is None or draw(st.booleans()) else {"strategy": whole_one["strategy"]}
        return scribe.write("parts", "", kept, Kind.DEFINE, batch=last)
    if action == "tag":
        return scribe.write(*TAGS, {"here": {scribe.replica: scribe.head.seq + 1}}, Kind.TAG, batch=last)
    key = draw(st.sampled_from(KEYS))
    data: dict[str, Any] | None = {"id": key, **draw(VALUES)} if action == "write" else None
    return scribe.write("parts", key, data, batch=last)


@st.composite
def pasts(draw: st.DrawFn, *, max_steps: int = 12) -> list[Event]:
    """What one to four replicas write, in groups of up to three, all knowing how the collection was first defined."""
    clocks = draw(st.lists(st.integers(1, 3) | st.integers(1, 10**6), min_size=1, max_size=4))
    scribes = [Scribe("dcba"[number], _creeping(now)) for number, now in enumerate(clocks)]
    events = [scribes[0].define(draw(st.sampled_from(DEFINITIONS)))]
    for scribe in scribes:
        scribe.see(events)
    for _ in range(draw(st.integers(1, max_steps))):
        scribe = draw(st.sampled_from(scribes))
        if draw(st.integers(0, 3)) == 0:
            shown = list(draw(st.sampled_from(scribes)).seen.values())
            scribe.see(whole(shown[: draw(st.integers(0, len(shown)))]))
        else:
            size = draw(st.sampled_from([1, 1, 1, 2, 3]))
            events += [_step(draw, scribe, size, number) for number in range(size)]
    return events


def _creeping(now: int) -> Any:
    """A clock that goes on by one millisecond each second time that it is read."""
    count = 0

    def read() -> int:
        nonlocal count
        count += 1
        return now + count // 2

    return read


def belongs(events: Sequence[Event], moment: Moment) -> list[Event]:
    """The events of a moment by definition; positions count from 1."""
    marked = [
        event
        for position, event in enumerate(events, 1)
        if (isinstance(moment, AtPosition) and position <= moment.position)
        or (isinstance(moment, AtTime) and to_millis(event.time) <= moment.millis)
    ]
    return whole(marked)


def moments(events: Sequence[Event]) -> list[Moment]:
    """Every moment that tells these events apart."""
    times = sorted({to_millis(event.time) for event in events})
    return [*(AtTime(time) for time in times), *(AtPosition(position) for position in range(1, len(events) + 1))]
