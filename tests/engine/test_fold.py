"""State is a function of the event set: any causal order, duplication and batching, one state, one digest."""

from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.events import Event, Kind
from refold.fold import State, Write, decode_state, encode_state, fold, fold_all, is_concurrent, latest
from refold.ports import Record
from refold.replay import catch_up
from refold.testing import MemoryLog, MemoryTables, Scribe, append

from .histories import THINGS, histories, maximal, meaning, reordered, with_repeats, writes_of


def folded(events: Sequence[Event], batches: Sequence[int] = ()) -> dict[Record, bytes]:
    """The states that these events leave, taken in in batches of these sizes, then the rest at once."""
    states: dict[Record, State] = {}
    start = 0
    for size in (*batches, len(events)):
        states.update(fold_all(states, events[start : start + size]))
        start += size
    return {record: encode_state(state) for record, state in states.items()}


def records(events: Sequence[Event]) -> dict[Record, list[Event]]:
    found: dict[Record, list[Event]] = {}
    for event in events:
        found.setdefault(event.record, []).append(event)
    return found


@given(histories())
def test_the_fold_does_what_the_definition_says(events: list[Event]) -> None:
    assert folded(events) == {record: encode_state(meaning(own)) for record, own in records(events).items()}


@given(histories(), st.randoms(use_true_random=False), st.lists(st.integers(0, 5), max_size=5))
def test_order_duplication_and_batching_make_no_difference(
    events: list[Event], random: Random, batches: list[int]
) -> None:
    assert folded(with_repeats(reordered(events, random), random), batches) == folded(events)


@given(histories(max_steps=8), st.randoms(use_true_random=False), st.integers(1, 4))
def test_logs_with_the_same_events_have_the_same_digest(events: list[Event], random: Random, batch: int) -> None:
    define = Scribe("definer").define(THINGS)
    ends = []
    for order, size in ((events, 1000), (reordered(events, random), batch)):
        log = MemoryLog()
        append(log, [define, *order])
        tables = MemoryTables(log.at)
        while catch_up(log, tables, size):
            pass
        ends.append(tables.checkpoint())
    assert ends[0] == ends[1]


@given(histories())
def test_concurrency_is_noticed_and_nothing_else_is(events: list[Event]) -> None:
    for own in records(events).values():
        fields = {field for event in own for field in event.data}
        several = [len(maximal(own)) > 1, *(len(maximal(writes_of(own, field))) > 1 for field in fields)]
        assert is_concurrent(meaning(own)) == any(several)


@given(histories())
def test_the_latest_write_of_each_field_is_the_last_of_those_nobody_overruled(events: list[Event]) -> None:
    for own in records(events).values():
        values, present = latest(meaning(own))
        fields = {field for event in own for field in event.data}
        assert values == {field: maximal(writes_of(own, field))[-1].data[field] for field in fields}
        assert present == (maximal(own)[-1].kind is not Kind.DELETE)


@given(histories())
def test_a_state_reads_back_from_its_bytes(events: list[Event]) -> None:
    for data in folded(events).values():
        assert encode_state(decode_state(data)) == data


def test_bytes_that_are_no_state_are_refused() -> None:
    for data in (b"", b"\xc0", b"\x92\x80", b"\x92\x80\xc0"):
        with pytest.raises(msgspec.DecodeError):
            decode_state(data)


def test_a_state_does_not_grow_with_the_history_of_its_record() -> None:
    scribe = Scribe("a")
    for n in range(100):
        scribe.write("things", "1", {"n": n, "s": str(n)})
    assert scribe.states["things", "1"] == State({"a": 100}, [scribe.states["things", "1"].writes[0]])


def test_a_delete_that_was_not_seen_stays_beside_the_write() -> None:
    one, other = Scribe("a"), Scribe("b")
    first = one.write("things", "1", {"n": 1})
    other.see([first])
    deleted, changed = one.write("things", "1"), other.write("things", "1", {"s": "x"})
    state = fold(fold(fold(None, first), deleted), changed)
    assert state.version == {"a": 2, "b": 1}
    assert [(write.replica, write.present, write.data) for write in state.writes] == [
        ("a", None, {"n": 1}),
        ("b", True, {"s": "x"}),
        ("a", False, {}),
    ]
    assert state.writes == sorted(state.writes, key=lambda write: (write.time, write.replica, write.seq))
    assert isinstance(state.writes[0], Write)
