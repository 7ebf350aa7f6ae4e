"""Sources made of given events, some of them rotten, and what must come of them by the definition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import msgspec
from hypothesis import strategies as st

from refold.events import Event, seal
from refold.verify import Finding
from refold_adapters.recovery.source import Damage, Found, Item, Known

Dot = tuple[str, int]


class Listed(msgspec.Struct):
    """A source that holds a list of items."""

    label: str
    items: list[Item]
    kind: str = "list"

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.label

    def events(self) -> Iterator[Item]:
        """See `Source.events`."""
        yield from self.items


def found(event: Event, *, sealed: bool) -> Found:
    """An event as a source yields it."""
    body, digest = seal(event)
    return Found(event, body, digest, sealed)


def rotten(event: Event, *, link: bool) -> Found:
    """An event that still decodes, and is not what was written: its data, or its link to the one before, rotted."""
    if link:
        return found(msgspec.structs.replace(event, prev=sha256(event.prev).digest()), sealed=False)
    return found(msgspec.structs.replace(event, data={**event.data, "rot": 1}), sealed=False)


class Wreck(msgspec.Struct):
    """What is left of a history: the sources, the dots that some source has intact, and all dots that are witnessed."""

    sources: list[Listed]
    intact: set[Dot]
    witnessed: dict[str, int]


@st.composite
def wrecks(draw: st.DrawFn, history: Sequence[Event]) -> Wreck:
    """Random subsets of a history in one to four sources, with events that rotted where something can tell."""
    sources = [Listed(f"source {number}", []) for number in range(draw(st.integers(1, 4)))]
    truth = {event.dot: event for event in history}
    lost = ["gone", "gone", "rot", "link", "unread"]
    plan: dict[tuple[int, Dot], str] = {}
    for dot in truth:
        is_lost = draw(st.integers(0, 4)) == 0
        for number in range(len(sources)):
            plan[number, dot] = draw(st.sampled_from(lost if is_lost else ["sealed", "plain", "plain", *lost]))
    intact = {dot for (_, dot), fate in plan.items() if fate in {"sealed", "plain"}}
    heads = {dot for dot in truth if draw(st.integers(0, 5)) == 0}
    witnessed: dict[str, int] = {}

    def witness(replica: str, seq: int) -> None:
        witnessed[replica] = max(seq, witnessed.get(replica, 0))

    for (number, dot), fate in plan.items():
        event, items = truth[dot], sources[number].items
        can_tell = dot in heads or (dot[0], dot[1] + 1) in intact
        if fate in {"sealed", "plain"}:
            items.append(found(event, sealed=fate == "sealed"))
        elif fate in {"rot", "link"} and can_tell:
            items.append(rotten(event, link=fate == "link"))
        elif fate == "unread":
            items.append(Damage(Finding("log-rot", replica=dot[0], seq=dot[1]), b"?"))
            witness(*dot)
    for dot in heads:
        sources[draw(st.integers(0, len(sources) - 1))].items.append(Known(*dot, truth[dot].hash, "somewhere"))
        witness(*dot)
    for dot in intact:
        witness(*dot)
        for seen in truth[dot].context.items():
            witness(*seen)
    for source in sources:
        source.items = draw(st.permutations(source.items))
    return Wreck(sources, intact, witnessed)


def recoverable(history: Sequence[Event], intact: set[Dot]) -> dict[str, int]:
    """The greatest causally closed set of intact events, as a version vector; the history is in a causal order."""
    have: dict[str, int] = {}
    for event in history:
        follows = event.seq == have.get(event.replica, 0) + 1
        if event.dot in intact and follows and all(have.get(name, 0) >= seq for name, seq in event.context.items()):
            have[event.replica] = event.seq
    return have
