"""What every `Changelog` must do. Inherit from the suite and say how a log is made."""

from __future__ import annotations

from typing import Any

from refold.errors import EventForked, EventsMissing, RefoldError
from refold.events import Event, Head, canonical
from refold.ports import Changelog
from refold.replay import events_after, newest_time

from .scribe import Scribe, append, caught

OWNER = "home"
"""The owner of the logs that suites make."""


class ChangelogConformance:
    """The contract of `Changelog`, as tests."""

    def make(self) -> Changelog:
        """A new, empty log whose owner is `OWNER`."""
        raise NotImplementedError

    def reopen(self, log: Changelog) -> Changelog:
        """The same log, opened anew where it can be; `log` is not used again."""
        return log

    def filled(self, count: int = 5) -> tuple[Changelog, list[Event]]:
        """A log of `count` events of one record, and those events."""
        log, scribe = self.make(), Scribe("a")
        return log, append(log, [scribe.write("things", "1", {"n": n}) for n in range(count)])

    def test_an_empty_log(self) -> None:
        log = self.make()
        assert (log.end(), log.heads(), newest_time(log)) == (0, {}, 0)
        assert events_after(log, 0, 10) == [] and log.bodies(0, 10) == [] and log.at([1]) == []
        assert log.replica() == OWNER

    def test_what_was_appended_comes_back(self) -> None:
        log, events = self.filled()
        assert [event.position for event in events] == [1, 2, 3, 4, 5]
        assert events_after(log, 0, 100) == events
        assert log.bodies(0, 100) == [(event.position, canonical(event)) for event in events]
        assert log.end() == 5
        assert log.heads() == {"a": Head(5, events[-1].hash)}

    def test_appending_goes_on_where_the_last_run_ended(self) -> None:
        log, scribe = self.make(), Scribe("a")
        runs = [append(log, [scribe.write("things", str(run), {"n": n}) for n in range(run)]) for run in (1, 3, 120)]
        assert events_after(log, 0, 1000) == [event for run in runs for event in run]
        assert log.end() == 124

    def test_pages(self) -> None:
        log, events = self.filled()
        assert events_after(log, 2, 2) == events[2:4]
        assert events_after(log, 4, 100) == events[4:]
        assert events_after(log, 5, 100) == []
        assert events_after(log, 0, 0) == []
        assert log.bodies(3, 1) == [(4, canonical(events[3]))]

    def test_events_by_position(self) -> None:
        log, events = self.filled(1100)
        assert log.at([4, 2]) == [events[1], events[3]]
        assert log.at([]) == [] and log.at([0, 1101, 3]) == [events[2]]
        assert log.at(list(range(1, 1101))) == events

    def test_values_come_back_exactly(self) -> None:
        values: dict[str, Any] = {
            "none": None,
            "bool": True,
            "ints": [0, 1, -1, 2**63 - 1, -(2**63)],
            "floats": [0.1, -0.0, 1e308, 5e-324, 1.0],
            "texts": ["", "\0", "Zanzibar-Urban/West", "Groß", "\U0001f600", "a\r\nb"],
            "nested": {"b": {"a": [1, {"": []}]}, "a": 1.0, "": None},
        }
        log = self.make()
        (event,) = append(log, [Scribe("a").write("things", "ключ", values, actor="A", meta={"reason": "why"})])
        (found,) = events_after(self.reopen(log), 0, 1)
        assert found == event and repr(found.data) == repr(event.data)

    def test_heads_and_newest_time_of_several_replicas(self) -> None:
        fast, slow = Scribe("fast", lambda: 10**12), Scribe("slow", lambda: 1000)
        events = [fast.write("things", "1", {"n": 1}), slow.write("things", "2", {"n": 1})]
        events += [fast.write("things", "1", {"n": 2}), slow.write("things", "2", {"n": 2})]
        log = self.make()
        append(log, events[:3])
        append(log, events[3:])
        assert log.heads() == {"fast": fast.head, "slow": slow.head}
        assert newest_time(log) == events[2].time

    def test_what_a_vector_does_not_cover_comes_in_the_order_of_the_log(self) -> None:
        one, other = Scribe("a"), Scribe("b")
        events = [(one if n % 3 else other).write("things", str(n), {"n": n}) for n in range(12)]
        log = self.make()
        append(log, events)
        for vector in ({}, {"a": 3}, {"a": 8, "b": 4}, {"b": 2, "a": 1}, {"a": 100}, {"c": 5, "b": 4}):
            lacking = [at for at, event in enumerate(events, 1) if event.seq > vector.get(event.replica, 0)]
            for limit in (1, 3, 100):
                assert [position for position, _ in log.since(vector, limit)] == lacking[:limit]
        assert log.since({"a": 7, "b": 4}, 5) == log.bodies(11, 1)

    def test_dots_lead_to_positions(self) -> None:
        log, events = self.filled()
        dots = [(event.replica, event.seq) for event in events]
        assert log.positions(dots) == [1, 2, 3, 4, 5]
        assert log.positions([("nobody", 1), dots[2], (dots[0][0], 99)]) == [3]

    def test_a_gap_is_refused_and_named(self) -> None:
        log, scribe = self.make(), Scribe("a")
        events = [scribe.write("things", "1", {"n": n}) for n in range(5)]
        append(log, events[:1])
        error = caught(EventsMissing, append, log, events[3:])
        assert error.missing == ["a:2", "a:3"]
        assert log.end() == 1

    def test_a_context_that_is_not_covered_is_refused_and_named(self) -> None:
        log, one, other = self.make(), Scribe("a"), Scribe("b")
        first = [one.write("things", "1", {"n": n}) for n in range(2)]
        other.see(first)
        late = other.write("things", "1", {"n": 9})
        assert "a:2" in caught(EventsMissing, append, log, [late]).missing
        append(log, first[:1])
        assert "a:2" in caught(EventsMissing, append, log, [late]).missing
        append(log, [first[1], late])
        assert log.end() == 3

    def test_a_context_may_be_met_within_the_run_but_not_after(self) -> None:
        log, one, other = self.make(), Scribe("a"), Scribe("b")
        first = one.write("things", "1", {"n": 1})
        other.see([first])
        second = other.write("things", "1", {"n": 2})
        caught(EventsMissing, append, log, [second, first])
        append(log, [first, second])
        assert log.end() == 2

    def test_a_fork_is_refused(self) -> None:
        log = self.make()
        one, twin = Scribe("a"), Scribe("a")
        events = [one.write("things", "1", {"n": n}) for n in range(3)]
        append(log, events)
        error = caught(EventForked, append, log, [twin.write("things", "1", {"n": 99})])
        assert (error.replica, error.seq, error.ours) == ("a", 1, events[0].hash.hex())
        twin.write("things", "1", {"n": 99})
        twin.write("things", "1", {"n": 99})
        after_the_fork = twin.write("things", "1", {"n": 99})
        error = caught(EventForked, append, log, [after_the_fork])
        assert (error.replica, error.seq) == ("a", 3)
        assert log.end() == 3 and log.heads() == {"a": one.head}

    def test_an_event_is_taken_once(self) -> None:
        log, events = self.filled(2)
        caught(RefoldError, append, log, events[1:])
        caught(RefoldError, append, log, events)
        assert events_after(log, 0, 10) == events

    def test_a_run_that_repeats_itself_is_refused(self) -> None:
        log = self.make()
        event = Scribe("a").write("things", "1", {"n": 1})
        other = Scribe("a").write("things", "1", {"n": 2})
        caught(EventForked, append, log, [event, other])
        assert log.end() == 0
        append(log, [event])

    def test_a_run_is_taken_whole_or_not_at_all(self) -> None:
        log, scribe = self.make(), Scribe("a")
        events = [scribe.write("things", "1", {"n": n}) for n in range(4)]
        caught(EventsMissing, append, log, [events[0], events[1], events[3]])
        assert log.end() == 0 and log.heads() == {} and events_after(log, 0, 10) == []
        assert append(log, events) == events_after(log, 0, 10)

    def test_a_log_is_the_same_when_opened_again(self) -> None:
        log, events = self.filled()
        heads, newest = log.heads(), newest_time(log)
        log = self.reopen(log)
        assert events_after(log, 0, 100) == events
        assert (log.end(), log.heads(), newest_time(log), log.replica()) == (5, heads, newest, OWNER)
        scribe = Scribe("b")
        assert append(log, [scribe.write("things", "2", {"n": 1})])[0].position == 6
