"""What is kept and what goes: over any past, nothing kept is ever without what it goes on from."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from refold_adapters.backup.retention import Candidate, Decision, Policy, decide

HOUR, DAY = 3_600_000, 86_400_000


@st.composite
def pasts(draw: st.DrawFn) -> list[Candidate]:
    """Backups of any times, each full or going on from one made earlier, some of which is gone."""
    found: list[Candidate] = []
    for number in range(draw(st.integers(0, 12))):
        parent = draw(st.none() | st.sampled_from([*(known.id for known in found), "gone"]))
        found.append(Candidate(f"b{number}", draw(st.integers(0, 900 * DAY)), parent))
    return draw(st.permutations(found))


policies = st.builds(Policy, *[st.integers(0, 4)] * 6)


def line(id_: str, by_id: dict[str, Candidate]) -> set[str] | None:
    """A backup and all that it needs; None where something is missing."""
    found: set[str] = set()
    wanted: str | None = id_
    while wanted is not None:
        if wanted not in by_id:
            return None
        found.add(wanted)
        wanted = by_id[wanted].parent
    return found


@given(pasts(), policies)
def test_whenever_it_is_broken_off_what_could_be_restored_and_is_kept_still_can(
    past: list[Candidate], policy: Policy
) -> None:
    by_id = {known.id: known for known in past}
    decision = decide(past, policy)
    gone = [id_ for generation in decision.remove for id_ in generation]
    assert sorted([*decision.keep, *gone, *decision.left]) == sorted(by_id)
    assert set(decision.left) == {id_ for id_ in by_id if line(id_, by_id) is None}
    for count in range(len(gone) + 1):
        there = {id_: known for id_, known in by_id.items() if id_ not in gone[:count]}
        whole = {id_ for id_ in there if line(id_, there) is not None}
        assert whole == there.keys() - set(decision.left)
    if set(by_id) - set(decision.left):
        assert decision.keep


@given(pasts(), policies)
def test_keeping_more_never_removes_more(past: list[Candidate], policy: Policy) -> None:
    more = Policy(*(count + 1 for count in msgspec.structs.astuple(policy)))
    assert decide(past, policy).keep.keys() <= decide(past, more).keep.keys()


@given(pasts(), policies)
def test_the_order_of_the_history_does_not_matter(past: list[Candidate], policy: Policy) -> None:
    assert decide(past, policy) == decide(sorted(past, key=lambda known: known.id), policy)


@given(pasts(), policies)
def test_to_decide_again_after_removing_removes_nothing(past: list[Candidate], policy: Policy) -> None:
    decision = decide(past, policy)
    left = [known for known in past if known.id in decision.keep or known.id in decision.left]
    assert decide(left, policy).remove == []


def full(*days: float) -> list[Candidate]:
    """Full backups by the day they were made on."""
    return [Candidate(f"d{day:g}", int(day * DAY), None) for day in days]


def kept(decision: Decision) -> list[str]:
    return list(decision.keep)


def test_rules_count_periods_that_have_a_backup() -> None:
    past = full(0, 0.5, 1, 1.1, 5, 5.5, 40, 400)
    assert kept(decide(past, Policy(last=2))) == ["d400", "d40"]
    assert kept(decide(past, Policy(daily=3))) == ["d400", "d40", "d5.5"]
    assert kept(decide(past, Policy(monthly=9))) == ["d400", "d40", "d5.5"]
    assert kept(decide(past, Policy(yearly=9))) == ["d400", "d40"]
    assert decide(past, Policy(last=1, yearly=2)).keep == {"d400": ["last", "yearly"], "d40": ["yearly"]}


def test_weeks_begin_on_monday_and_hours_on_the_hour() -> None:
    monday = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp() * 1000)
    past = [Candidate(name, monday + ms, None) for name, ms in (("before", -1), ("first", 0), ("hour", HOUR - 1))]
    assert kept(decide(past, Policy(weekly=5))) == ["hour", "before"]
    assert kept(decide(past, Policy(hourly=5))) == ["hour", "before"]


def test_what_an_incremental_needs_is_kept_and_the_newest_always() -> None:
    past = [Candidate("f", 0, None), Candidate("i", DAY, "f"), Candidate("j", 2 * DAY, "i"), Candidate("k", DAY, "f")]
    assert decide(past, Policy(last=1)).keep == {"j": ["last"], "i": ["needed by j"], "f": ["needed by j"]}
    assert decide(past, Policy(last=1)).remove == [["k"]]
    assert decide(past, Policy()).keep["j"] == ["the newest"]


def test_what_cannot_be_restored_takes_no_place() -> None:
    past = [*full(1), Candidate("orphan", 9 * DAY, "gone")]
    decision = decide(past, Policy(last=1))
    assert (kept(decision), decision.remove, decision.left) == (["d1"], [], ["orphan"])
