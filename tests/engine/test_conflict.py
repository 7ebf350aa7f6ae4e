"""Conflicts: every kind and strategy, settled by definition, and alike whatever the order the events came in."""

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from sys import float_info
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.conflict import (
    STRATEGIES,
    ConflictKind,
    Policy,
    branch_key,
    check_version,
    conflict_id,
    disagreements,
    needs_history,
    same,
    settle,
)
from refold.errors import VersionMismatch
from refold.events import Event, Kind
from refold.fold import State, fold_all
from refold.testing import Scribe
from refold.values import INT_MAX, TYPES

from .histories import FIELDS, SPEC, histories, maximal, meaning, reordered, total_of, writes_of

TYPES_OF = {name: field.type for name, field in SPEC.items()}
FITTING = {
    "n": ["max", "min", "sum"],
    "x": ["max", "min", "sum"],
    "s": ["max", "min"],
    "tags": ["union"],
    "price": ["max", "min", "sum"],
}
policies = st.builds(
    Policy,
    st.sampled_from(STRATEGIES),
    st.fixed_dictionaries({}, optional={name: st.sampled_from([*STRATEGIES, *FITTING[name]]) for name in FIELDS}),
    st.just(TYPES_OF),
)


def state_of(events: Sequence[Event]) -> State:
    return fold_all({}, events)["things", "1"]


def of_record(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.key == "1"]


def expected_value(policy: Policy, field: str, events: Sequence[Event]) -> Any:
    """The value of a field by the definition of its strategy."""
    writes = maximal(writes_of(events, field))
    values = [event.data[field] for event in writes]
    if all(same(value, values[0]) for value in values):
        return values[0]
    load = TYPES[TYPES_OF[field]].load
    known = [value for value in values if value is not None]
    match policy.of(field):
        case "first-write-wins":
            return values[0]
        case "max":
            return next(value for value in known if all(load(value) >= load(other) for other in known))
        case "min":
            return next(value for value in known if all(load(value) <= load(other) for other in known))
        case _:
            return values[-1]


@settings(max_examples=settings().max_examples // 2)
@given(histories(), policies, st.randoms(use_true_random=False))
def test_settling_does_not_depend_on_the_order_of_events(events: list[Event], policy: Policy, random: Random) -> None:
    own = of_record(events)
    if own:
        other = of_record(reordered(events, random))
        assert settle("things", "1", state_of(own), policy, own) == settle(
            "things", "1", state_of(other), policy, other
        )


@settings(max_examples=settings().max_examples // 2)
@given(histories(), policies)
def test_settling_does_what_the_strategies_say(events: list[Event], policy: Policy) -> None:
    own = of_record(events)
    if not own:
        return
    settled = settle("things", "1", meaning(own), policy, own)
    fields = {field for event in own for field in event.data}
    assert settled.values.keys() == fields
    for field in fields:
        if policy.of(field) not in {"sum", "union"}:
            assert same(settled.values[field], expected_value(policy, field, own)), field
    sides = [event.kind is not Kind.DELETE for event in maximal(own)]
    by_strategy = {"first-write-wins": sides[0], "keep-both": any(sides)}
    assert settled.present == by_strategy.get(policy.strategy, sides[-1])


@settings(max_examples=settings().max_examples // 2)
@given(histories(), policies)
def test_a_conflict_is_where_values_differ_and_nowhere_else(events: list[Event], policy: Policy) -> None:
    own = of_record(events)
    if not own:
        return
    conflicts = {conflict.kind: conflict for conflict in settle("things", "1", meaning(own), policy, own).conflicts}
    differ = {}
    for field in sorted({field for event in own for field in event.data}):
        writes = maximal(writes_of(own, field))
        if any(not same(event.data[field], writes[0].data[field]) for event in writes):
            differ[field] = [(event.replica, event.seq, event.time) for event in writes]
    modification = conflicts.pop(ConflictKind.CONCURRENT_MODIFICATION, None)
    assert (modification is None) == (not differ)
    if modification is not None:
        found = modification.sides.items()
        assert {field: [(s.replica, s.seq, s.time) for s in sides] for field, sides in found} == differ
        assert modification.open == any(policy.of(field) == "manual" for field in differ)
        assert modification.id == conflict_id(modification.sides)
    deletion = conflicts.pop(ConflictKind.DELETION, None)
    assert (deletion is None) == (len({event.kind is Kind.DELETE for event in maximal(own)}) == 1)
    assert not conflicts


@settings(max_examples=settings().max_examples // 2)
@given(histories(fields=["n", "x", "price"]), st.randoms(use_true_random=False))
def test_sum_adds_what_every_write_added(events: list[Event], random: Random) -> None:
    own = of_record(reordered(events, random))
    if not own:
        return
    policy = Policy(fields={"n": "sum", "x": "sum", "price": "sum"}, types=TYPES_OF)
    state = state_of(own)
    settled = settle("things", "1", state, policy, own)
    for field in disagreements(state)[0]:
        assert needs_history(state, policy)
        writes = writes_of(own, field)
        exact = total_of(writes, field)
        found = settled.values[field]
        if field == "n":
            assert found == max(-INT_MAX - 1, min(INT_MAX, int(exact)))
        elif field == "x":
            assert found == max(-float_info.max, min(float_info.max, float(exact)))
        else:
            assert Decimal(found).as_integer_ratio() == exact.as_integer_ratio()


def apart(**values: Any) -> tuple[list[Event], Event, Event]:
    """A record with n = 10, and two replicas that write to it without seeing each other; `b` is later."""
    one, other = Scribe("a", lambda: 1000), Scribe("b", lambda: 2000)
    start = one.write("things", "1", {"n": 10, "tags": [1], "price": "10", "x": 10.0, "s": "start"})
    other.see([start])
    mine, theirs = one.write("things", "1", values["a"]), other.write("things", "1", values["b"])
    return [start, mine, theirs], mine, theirs


def settle_apart(field: str, strategy: str, a: Any, b: Any) -> Any:
    events, _, _ = apart(a={field: a}, b={field: b})
    policy = Policy(fields={field: strategy}, types=TYPES_OF)
    return settle("things", "1", state_of(events), policy, events).values[field]


@pytest.mark.parametrize(
    ("field", "strategy", "a", "b", "outcome"),
    [
        ("n", "last-write-wins", 1, 2, 2),
        ("n", "first-write-wins", 1, 2, 1),
        ("n", "manual", 1, 2, 2),
        ("n", "keep-both", 1, 2, 2),
        ("n", "max", 7, 3, 7),
        ("n", "min", 7, 3, 3),
        ("n", "max", None, -3, -3),
        ("n", "min", 3, None, 3),
        ("price", "max", "9", "10.5", "10.5"),
        ("price", "min", "9", "10.5", "9"),
        ("price", "max", "1.10", "1.1", "1.10"),
        ("tags", "union", [1, 2], [2, 3], [1, 2, 3]),
        ("tags", "union", [1], [True, 1.0], [1, True, 1.0]),
        ("tags", "union", [1], None, None),
        ("n", "sum", 12, 13, 15),
        ("n", "sum", None, 13, 3),
        ("n", "sum", INT_MAX, INT_MAX - 1, INT_MAX),
        ("x", "sum", 10.1, 10.2, 10.3),
        ("x", "sum", 1.7e308, 1.6e308, 1.7976931348623157e308),
        ("price", "sum", "10.01", "10.02", "10.03"),
        ("price", "sum", "10000000000000000000000000000000.01", "10.02", "10000000000000000000000000000000.03"),
    ],
)
def test_strategies(field: str, strategy: str, a: Any, b: Any, outcome: Any) -> None:
    found = settle_apart(field, strategy, a, b)
    assert sorted(map(repr, found)) == sorted(map(repr, outcome)) if strategy == "union" and b else same(found, outcome)


def test_sum_of_nested_concurrency() -> None:
    a, b, c = Scribe("a"), Scribe("b"), Scribe("c")
    first = a.write("things", "1", {"n": 10})
    b.see([first])
    c.see([first])
    plus_1, plus_5 = a.write("things", "1", {"n": 11}), b.write("things", "1", {"n": 15})
    a.see([plus_5])
    settled_by_a = a.write("things", "1", {"n": 16})
    plus_100 = c.write("things", "1", {"n": 110})
    events = [first, plus_1, plus_5, settled_by_a, plus_100]
    policy = Policy(fields={"n": "sum"}, types=TYPES_OF)
    assert settle("things", "1", state_of(events), policy, events).values["n"] == 116
    last = Scribe("d")
    last.see(events)
    events.append(last.write("things", "1", {"n": 3}))
    assert settle("things", "1", state_of(events), policy, events).values["n"] == 3


def test_different_fields_are_merged_and_the_same_value_is_agreed_on() -> None:
    events, _, _ = apart(a={"n": 1}, b={"s": "x"})
    settled = settle("things", "1", state_of(events), Policy())
    assert (settled.values["n"], settled.values["s"], settled.conflicts) == (1, "x", [])
    events, _, _ = apart(a={"tags": [1, {"k": 2}]}, b={"tags": [1, {"k": 2}]})
    assert settle("things", "1", state_of(events), Policy()).conflicts == []
    events, _, _ = apart(a={"tags": [1]}, b={"tags": [True]})
    assert len(settle("things", "1", state_of(events), Policy()).conflicts) == 1


def test_a_conflict_tells_its_sides() -> None:
    events, mine, theirs = apart(a={"n": 1, "s": "x"}, b={"n": 2, "s": "y"})
    policy = Policy(fields={"s": "manual"})
    (conflict,) = settle("things", "1", state_of(events), policy).conflicts
    assert (conflict.collection, conflict.key, conflict.open) == ("things", "1", True)
    assert conflict.strategy == "last-write-wins+manual"
    assert conflict.outcome == {"n": 2, "s": "y"}
    assert [(side.dot, side.time, side.value) for side in conflict.sides["n"]] == [
        (("a", 2), mine.time, 1),
        (("b", 1), theirs.time, 2),
    ]


@pytest.mark.parametrize(
    ("strategy", "present"),
    [("last-write-wins", True), ("first-write-wins", False), ("manual", True), ("keep-both", True)],
)
def test_a_delete_beside_a_change(strategy: str, present: bool) -> None:
    events, _, _ = apart(a=None, b={"n": 2})
    settled = settle("things", "1", state_of(events), Policy(strategy))
    assert settled.present is present
    assert settled.values == {"n": 2, "tags": [1], "price": "10", "x": 10.0, "s": "start"}
    (conflict,) = settled.conflicts
    assert (conflict.kind, conflict.outcome) == (ConflictKind.DELETION, {"": present})
    assert [side.value for side in conflict.sides[""]] == [False, True]
    assert conflict.open == (strategy == "manual")


def test_two_deletes_agree() -> None:
    events, _, _ = apart(a=None, b=None)
    settled = settle("things", "1", state_of(events), Policy())
    assert not settled.present and not settled.conflicts


def test_keep_both_sets_the_losing_branch_beside() -> None:
    events, _, _ = apart(a={"n": 1, "s": "mine"}, b={"n": 2})
    settled = settle("things", "1", state_of(events), Policy("keep-both"))
    assert settled.values["n"] == 2 and settled.values["s"] == "mine"
    assert settled.branches == {branch_key("1", ("a", 2)): {**settled.values, "n": 1, "s": "mine"}}


def test_a_manual_resolution_closes_the_conflict() -> None:
    events, _, _ = apart(a={"n": 1}, b={"n": 2})
    judge = Scribe("judge")
    judge.see(events)
    events.append(judge.write("things", "1", {"n": 1}, Kind.RESOLVE))
    settled = settle("things", "1", state_of(events), Policy("manual"))
    assert settled.values["n"] == 1 and not settled.conflicts


@settings(max_examples=settings().max_examples // 2)
@given(histories(max_steps=8))
def test_ids_are_of_the_dots(events: list[Event]) -> None:
    own = of_record(events)
    if own:
        one, other = (settle("things", "1", meaning(own), Policy(strategy)).conflicts for strategy in STRATEGIES[:2])
        assert [conflict.id for conflict in one] == [conflict.id for conflict in other]
        dots = [frozenset(side.dot for group in c.sides.values() for side in group) for c in one]
        assert len(set(dots)) == len({conflict.id for conflict in one})


def test_a_stated_version_must_be_the_current_one() -> None:
    check_version("things", "1", None, "a:1")
    check_version("things", "1", "a:1", "a:1")
    with pytest.raises(VersionMismatch) as caught:
        check_version("things", "1", "a:1", "a:2")
    assert (caught.value.stated, caught.value.current) == ("a:1", "a:2")
