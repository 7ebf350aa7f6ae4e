"""The union of damaged sources: all that can be proved, nothing else, and the exact names of what is missing."""

from __future__ import annotations

from base64 import b64decode

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.events import Event
from refold.testing import Scribe
from refold_adapters.folders.lines import from_line
from refold_adapters.recovery.scratch import Scratch
from refold_adapters.recovery.source import Known
from refold_adapters.recovery.union import Range, Union, Verdict
from tests.engine.histories import histories

from .damage import Listed, found, recoverable, rotten, wrecks


def united(sources: list[Listed], prefer: int | None = None) -> tuple[Verdict, list[Event], list[bytes]]:
    """The verdict on sources, what is taken, and the lines of what is left out."""
    with Scratch() as scratch:
        union = Union(sources, scratch)
        union.gather(lambda what, done: None)
        verdict = union.judge(prefer)
        return verdict, [event for event, _ in union.events()], list(union.left_out(verdict))


def dots(ranges: list[Range]) -> set[tuple[str, int]]:
    return {(replica, seq) for replica, first, last in ranges for seq in range(first, last + 1)}


def written(count: int, replica: str = "a") -> list[Event]:
    scribe = Scribe(replica)
    return [scribe.write("things", str(number % 3), {"n": number}) for number in range(count)]


@given(st.data())
def test_the_union_takes_what_is_proved_and_names_what_is_missing(data: st.DataObject) -> None:
    history = data.draw(histories(max_steps=20))
    truth = {event.dot: event for event in history}
    wreck = data.draw(wrecks(history))
    verdict, taken, left = united(wreck.sources)
    have = recoverable(history, wreck.intact)
    assert verdict.have == have
    assert {event.dot: event for event in taken} == {
        dot: event for dot, event in truth.items() if event.seq <= have.get(event.replica, 0)
    }
    missing = {(name, seq) for name, last in wreck.witnessed.items() for seq in range(1, last + 1)} - wreck.intact
    assert dots(verdict.missing) == missing
    assert verdict.forks == {} and verdict.disagreed == []
    kept = {from_line(line).dot for line in left if b'"left_out"' not in line}
    assert kept == {dot for dot in wreck.intact if dot[1] > have.get(dot[0], 0)}
    assert len(kept) == verdict.blocked
    seen: dict[str, int] = {}
    for event in taken:
        assert event.seq == seen.get(event.replica, 0) + 1
        assert all(seen.get(name, 0) >= seq for name, seq in event.context.items())
        seen[event.replica] = event.seq


@settings(max_examples=30)
@given(st.data())
def test_whole_sources_however_split_lose_nothing(data: st.DataObject) -> None:
    history = data.draw(histories(max_steps=20))
    sources = [Listed(f"source {number}", []) for number in range(3)]
    for event in history:
        for number in data.draw(st.sets(st.integers(0, 2), min_size=1)):
            sources[number].items.insert(0, found(event, sealed=data.draw(st.booleans())))
    verdict, taken, left = united(sources)
    assert verdict.whole and left == []
    assert sorted(event.dot for event in taken) == sorted(event.dot for event in history)


def test_a_rotten_event_is_filled_by_the_one_whose_hash_its_successor_names() -> None:
    events = written(5)
    for position in range(4):
        for link in (False, True):
            log = Listed("log", [found(event, sealed=False) for event in events])
            log.items[position] = rotten(events[position], link=link)
            verdict, _, _ = united([log])
            assert (verdict.missing, verdict.have.get("a", 0)) == ([("a", position + 1, position + 1)], position)
            assert verdict.blocked == 4 - position
            verdict, taken, left = united([log, Listed("peer", [found(events[position], sealed=False)])])
            assert (verdict.whole, taken) == (True, events)
            (line,) = map(msgspec.json.decode, left)
            assert (line["seq"], line["sources"]) == (position + 1, ["log"])
            assert b64decode(line["bytes"]) == rotten(events[position], link=link).body


def test_what_had_seen_something_missing_is_left_out() -> None:
    one, two = Scribe("a"), Scribe("b")
    first, second = one.write("things", "1", {"n": 1}), one.write("things", "1", {"n": 2})
    other = two.write("things", "2", {"n": 1})
    two.see([first, second])
    blocked, after = two.write("things", "1", {"n": 3}), two.write("things", "2", {"n": 2})
    log = Listed("log", [found(event, sealed=True) for event in (first, other, blocked, after)])
    verdict, taken, left = united([log])
    assert (taken, verdict.missing, verdict.blocked) == ([first, other], [("a", 2, 2)], 2)
    assert [from_line(line) for line in left] == [blocked, after]


def test_a_fork_is_told_with_both_hashes_and_who_has_them() -> None:
    common = written(3)
    one, two = Scribe("a"), Scribe("a")
    for scribe in (one, two):
        scribe.see(common)
        scribe.head = msgspec.structs.replace(scribe.head, seq=3, hash=common[-1].hash)
    ours = [one.write("things", "1", {"n": number}) for number in (10, 11)]
    theirs = [two.write("things", "1", {"n": number}) for number in (20, 21, 22)]
    left = Listed("left", [found(event, sealed=True) for event in common + ours])
    right = Listed("right", [found(event, sealed=True) for event in common + theirs])
    verdict, taken, _ = united([left, right])
    assert taken == common and verdict.missing == []
    fork = verdict.forks["a"]
    assert (fork.seq, fork.branches) == (4, {ours[0].hash: 1, theirs[0].hash: 2})
    for prefer, branch, other in ((0, ours, theirs), (1, theirs, ours)):
        verdict, taken, kept = united([left, right], prefer)
        assert (verdict.forks, verdict.missing, taken) == ({}, [], common + branch)
        lines = [msgspec.json.decode(line) for line in kept]
        assert sorted(line["hash"] for line in lines) == sorted(event.hash.hex() for event in other)


def test_a_fork_shows_even_where_the_dot_itself_is_gone_from_one_side() -> None:
    common = written(2)
    two = Scribe("a")
    two.see(common)
    two.head = msgspec.structs.replace(two.head, seq=2, hash=common[-1].hash)
    theirs = [two.write("things", "1", {"n": number}) for number in (20, 21)]
    ours = written(4)
    left = Listed("left", [found(event, sealed=True) for event in ours])
    right = Listed("right", [found(theirs[1], sealed=True)])
    verdict, _, _ = united([left, right])
    assert verdict.forks["a"].branches == {ours[2].hash: 1, theirs[0].hash: 2}


def test_what_something_remembers_otherwise_is_not_passed_over() -> None:
    events = written(3)
    log = Listed("log", [found(event, sealed=True) for event in events])
    verdict, taken, _ = united([log, Listed("other", [Known("a", 2, bytes(32), "meta.json")])])
    assert (taken, verdict.disagreed, verdict.whole) == (events, [("a", 2, 2)], False)


def test_a_clock_that_lied_costs_nothing() -> None:
    one, two = Scribe("b", lambda: 10**12), Scribe("a", lambda: 1)
    first = one.write("things", "1", {"n": 1})
    two.seen[first.dot] = first
    two.states[first.record] = one.states[first.record]
    second = two.write("things", "1", {"n": 2})
    assert second.time < first.time and second.context == {"b": 1}
    verdict, taken, _ = united([Listed("log", [found(second, sealed=False), found(first, sealed=False)])])
    assert (verdict.whole, taken) == (True, [first, second])
