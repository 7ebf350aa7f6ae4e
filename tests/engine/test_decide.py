"""Decisions: what is written, what is refused without a trace, and how events are numbered, dated and chained."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.clock import HybridClock
from refold.decide import Decision, Ground, Operation, Repeat, Request, decide, version_token
from refold.errors import (
    DefinitionRefused,
    RecordUnknown,
    RefoldError,
    RequestReused,
    ValueRefused,
    VersionMismatch,
)
from refold.events import GENESIS, Event, Head, Kind, canonical, seal
from refold.fold import State, fold_all, latest
from refold.ports import Record
from refold.schema import Collection, Field, Schema, to_data
from refold.testing import START, Scribe, Ticks

SCHEMA = Schema(
    Collection(
        name="c",
        key="id",
        fields={"id": Field("str"), "n": Field("int", null=True), "d": Field("str", default="x")},
        version=3,
    )
)


class World:
    """What decisions stand on, carried from one to the next as the writer does."""

    def __init__(self, now: Ticks | None = None) -> None:
        self.head = Head(0, GENESIS)
        self.clock = HybridClock(now or Ticks())
        self.states: dict[Record, State] = {}
        self.requests: dict[str, Event] = {}
        self.events: list[Event] = []

    def decide(self, *groups: Sequence[Request]) -> Decision:
        ground = Ground("a", self.head, self.clock, {"c": SCHEMA}, dict(self.states), self.requests, {}, self.history)
        decision = decide(groups, ground)
        self.events += decision.events
        self.head = decision.head
        self.states.update(decision.states)
        self.requests |= {event.request_id: event for event in decision.events if event.request_id is not None}
        return decision

    def history(self, record: Record) -> list[Event]:
        return [event for event in self.events if event.record == record]

    def one(self, request: Request) -> Event | None:
        (answer,) = self.decide([request]).answers
        if isinstance(answer, Exception):
            raise answer
        (told,) = answer
        assert not isinstance(told, RefoldError)
        return told.event if isinstance(told, Repeat) else told

    def written(self, request: Request) -> Event:
        event = self.one(request)
        assert event is not None
        return event


def put(key: str = "1", n: Any = 1, **rest: Any) -> Request:
    return Request(Operation.PUT, "c", key, {"id": key, "n": n}, **rest)


def patch(key: str = "1", **values: Any) -> Request:
    return Request(Operation.PATCH, "c", key, values)


def delete(key: str = "1", **rest: Any) -> Request:
    return Request(Operation.DELETE, "c", key, {}, **rest)


def test_put_creates_whole_and_updates_what_differs() -> None:
    world = World()
    created = world.written(put(actor="me", meta={"reason": "why"}))
    assert (created.kind, created.data, created.context) == (Kind.CREATE, {"id": "1", "n": 1, "d": "x"}, {})
    assert (created.replica, created.seq, created.version, created.actor, created.reason) == ("a", 1, 3, "me", "why")
    updated = world.written(put(n=2))
    assert (updated.kind, updated.data, updated.context) == (Kind.UPDATE, {"n": 2}, {"a": 1})


def test_what_is_so_already_writes_nothing() -> None:
    world = World()
    world.written(put())
    assert world.one(put()) is None and world.one(patch(n=1, d="x")) is None
    assert world.one(patch(n=None)) is not None and world.one(patch(n=None)) is None
    world.written(delete())
    assert world.one(delete()) is None
    assert len(world.events) == 3


@pytest.mark.parametrize(("before", "after"), [(1, True), (True, 1), (0, False)])
def test_a_value_of_another_type_is_another_value(before: Any, after: Any) -> None:
    world = World()
    world.written(put(n=before))
    assert world.written(put(n=after)).data == {"n": after}


def test_a_record_is_created_anew_after_its_delete() -> None:
    world = World()
    world.written(put(n=5))
    deleted = world.written(delete())
    assert (deleted.kind, deleted.data, deleted.context) == (Kind.DELETE, {}, {"a": 1})
    again = world.written(put(n=None))
    assert (again.kind, again.data, again.context) == (Kind.CREATE, {"id": "1", "n": None, "d": "x"}, {"a": 2})
    assert latest(world.states["c", "1"]) == ({"id": "1", "n": None, "d": "x"}, True)


def test_what_is_not_there_cannot_be_changed() -> None:
    world = World()
    for request in (patch(n=1), delete()):
        with pytest.raises(RecordUnknown):
            world.one(request)
    world.written(put())
    world.written(delete())
    with pytest.raises(RecordUnknown):
        world.one(patch(n=1))
    assert world.head.seq == 2


def test_a_key_never_changes() -> None:
    world = World()
    world.written(put())
    with pytest.raises(ValueRefused, match="never changes"):
        world.one(patch(id="2"))


def test_a_stale_version_is_refused_with_both() -> None:
    world = World()
    token = version_token(world.states.get(("c", "1")))
    assert token == ""
    world.written(put(if_version=token))
    with pytest.raises(VersionMismatch) as caught:
        world.one(put(n=2, if_version=token))
    assert (caught.value.stated, caught.value.current) == ("", "a:1")
    world.written(put(n=2, if_version="a:1"))
    with pytest.raises(VersionMismatch):
        world.one(put(n=2, if_version="a:1"))
    with pytest.raises(VersionMismatch):
        world.one(delete(if_version="a:1"))
    assert version_token(world.states["c", "1"]) == "a:2"


def test_a_request_that_is_told_again_writes_once() -> None:
    world = World()
    event = world.written(put(request_id="r"))
    assert world.one(put(request_id="r", if_version="stale")) == event
    first, again = world.decide([put("2", request_id="s")], [put("2", request_id="s")]).answers
    assert isinstance(first, list) and isinstance(first[0], Event) and again == [Repeat(first[0])]
    patched = world.written(msgspec.structs.replace(patch(n=5), request_id="t"))
    assert (
        world.one(msgspec.structs.replace(patch(n=5), request_id="t")) == patched == world.one(put(n=5, request_id="t"))
    )
    gone_u = msgspec.structs.replace(delete(), request_id="u")
    gone = world.written(gone_u)
    assert world.one(gone_u) == gone
    again_t = msgspec.structs.replace(patch(n=6), request_id="t")
    gone_r = msgspec.structs.replace(delete(), request_id="r")
    others = [put("3", request_id="r"), put(n=9, request_id="r"), gone_r, again_t]
    for other in [*others, put(request_id="u")]:
        with pytest.raises(RequestReused) as caught:
            world.one(other)
        assert "c '1'" in caught.value.used_for
    assert len(world.events) == 4


def test_a_group_that_is_refused_leaves_no_trace() -> None:
    world = World()
    bad = [put("1", request_id="r"), put("2"), patch("never", n=1)]
    decision = world.decide([put("0")], bad, [put("1", n=7, request_id="r")], [put("2", n=8)])
    assert isinstance(decision.answers[1], RecordUnknown)
    assert [(event.key, event.seq, event.data["n"]) for event in decision.events] == [
        ("0", 1, 1),
        ("1", 2, 7),
        ("2", 3, 8),
    ]
    assert world.states.keys() == {("c", "0"), ("c", "1"), ("c", "2")}
    assert decision.head == Head(3, decision.hashes[-1])


def test_a_group_sees_its_own_writes_and_the_groups_before_it() -> None:
    decision = World().decide([put(), patch(n=2), delete()], [put(n=3), patch(n=3)])
    kinds = [
        [event.kind if isinstance(event, Event) else None for event in answer]
        for answer in decision.answers
        if isinstance(answer, list)
    ]
    assert kinds == [[Kind.CREATE, Kind.UPDATE, Kind.DELETE], [Kind.CREATE, None]]
    assert [event.batch for event in decision.events] == [3, 3, 3, 4]
    assert [event.context for event in decision.events] == [{}, {"a": 1}, {"a": 2}, {"a": 3}]


def test_times_grow_whatever_the_clock_does() -> None:
    now = Ticks(step=0)
    world = World(now)
    for back in (0, 10_000, -5, 1):
        now.now = START - back
        world.decide([put(n=back), patch(d=str(back))], [put("2", n=back)])
    times = [event.time for event in world.events]
    assert times == sorted(set(times)) and len(times) > 8


def test_a_write_is_dated_after_all_that_was_seen() -> None:
    world = World()
    other = Scribe("b", lambda: START + 10**9)
    seen = other.write("c", "1", {"id": "1", "n": 1, "d": "x"})
    world.states = dict(other.states)
    world.clock.observe(seen.time)
    event = world.written(put(n=2))
    assert event.time > seen.time and event.context == {"b": 1}


def test_concurrent_writes_are_judged_as_they_are_settled() -> None:
    one, other = Scribe("b", lambda: 5), Scribe("d", lambda: 6)
    start = one.write("c", "1", {"id": "1", "n": 1, "d": "x"})
    other.see([start])
    world = World()
    world.events = [start, one.write("c", "1", {"n": 2}), other.write("c", "1", {"n": 3})]
    world.states = fold_all({}, world.events)
    assert world.one(put(n=3)) is None
    assert world.written(put(n=2)).context == {"b": 2, "d": 1}


def test_a_definition_is_judged_against_the_one_it_meets() -> None:
    def define(kind: str) -> Request:
        wider = {**SCHEMA.collection.fields, "more": Field(kind, null=True)}
        return Request(Operation.DEFINE, "c", "", to_data(Collection(name="c", key="id", fields=wider)))

    decision = World().decide([define("int")], [define("str")], [define("int")])
    assert isinstance(decision.answers[1], DefinitionRefused)
    assert isinstance(decision.answers[0], list) and decision.answers[2] == [None]


def test_a_collection_that_differs_from_another_in_case_alone_is_refused() -> None:
    def define(name: str) -> Request:
        collection = Collection(name=name, key="id", fields={"id": Field("str")})
        return Request(Operation.DEFINE, name, "", to_data(collection))

    world = World()
    decision = world.decide([define("C")], [define("d"), define("D")], [define("e")], [define("E")])
    refused = [isinstance(answer, DefinitionRefused) for answer in decision.answers]
    assert refused == [True, True, False, True]
    assert [event.collection for event in world.events] == ["e"]


def test_a_changed_key_is_named_by_its_field() -> None:
    world = World()
    world.written(put())
    with pytest.raises(ValueRefused) as caught:
        world.one(patch(id="2"))
    assert caught.value.field == "id"


requests = st.lists(
    st.lists(
        st.builds(put, st.sampled_from("12"), st.integers(0, 2), request_id=st.none() | st.sampled_from("rs"))
        | st.builds(patch, st.sampled_from("123"), n=st.integers(0, 2))
        | st.builds(delete, st.sampled_from("123"), if_version=st.none() | st.sampled_from(["", "a:1", "a:2"])),
        min_size=1,
        max_size=4,
    ),
    max_size=6,
)


@given(requests, st.integers(1, 6))
def test_any_groups_make_one_unbroken_chain(groups: list[list[Request]], at_once: int) -> None:
    world = World()
    for start in range(0, len(groups), at_once):
        decision = world.decide(*groups[start : start + at_once])
        for event, body, digest in zip(decision.events, decision.bodies, decision.hashes, strict=True):
            assert (body, digest) == seal(event) and body == canonical(event)
        for group, answer in zip(groups[start : start + at_once], decision.answers, strict=True):
            assert isinstance(answer, Exception) or len(answer) == len(group)
    head = Head(0, GENESIS)
    for event in world.events:
        assert (event.seq, event.prev) == (head.seq + 1, head.hash)
        head = Head(event.seq, event.hash)
    assert world.head == head
    assert world.states == fold_all({}, world.events)


@given(requests)
def test_how_groups_are_gathered_into_commits_makes_no_difference(groups: list[list[Request]]) -> None:
    together, apart = World(), World()
    answers = together.decide(*groups).answers
    one_by_one = [apart.decide(group).answers[0] for group in groups]
    assert [type(answer) for answer in answers] == [type(answer) for answer in one_by_one]
    assert [msg.data for msg in together.events] == [msg.data for msg in apart.events]
    assert [(e.seq, e.key, e.kind, e.context, e.batch, e.request_id) for e in together.events] == [
        (e.seq, e.key, e.kind, e.context, e.batch, e.request_id) for e in apart.events
    ]
