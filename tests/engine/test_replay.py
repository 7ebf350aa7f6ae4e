"""How a projection is told from one that belongs to another log."""

from __future__ import annotations

from refold.events import Checkpoint
from refold.replay import catch_up, is_ahead
from refold.schema import Collection, Field
from refold.testing import MemoryLog, MemoryTables, Scribe, append

PARTS = Collection(name="parts", key="id", fields={"id": Field("str"), "n": Field("int", null=True)})


def folded(log: MemoryLog) -> Checkpoint:
    """The checkpoint of tables that hold all of a log."""
    tables = MemoryTables(log.at)
    while catch_up(log, tables):
        pass
    return tables.checkpoint()


def test_a_projection_that_is_in_step_or_behind_is_not_ahead() -> None:
    log, one, other = MemoryLog(), Scribe("one"), Scribe("other")
    assert not is_ahead(log, Checkpoint())
    append(log, [one.define(PARTS), other.write("parts", "1", {"id": "1"})])
    checkpoint = folded(log)
    assert not is_ahead(log, checkpoint)
    append(log, [other.write("parts", "2", {"id": "2"}), one.write("parts", "3", {"id": "3"})])
    assert not is_ahead(log, checkpoint) and not is_ahead(log, Checkpoint())


def test_a_log_that_was_cut_is_behind_its_projection() -> None:
    log, shorter, one = MemoryLog(), MemoryLog(), Scribe("one")
    events = [one.define(PARTS), one.write("parts", "1", {"id": "1"}), one.write("parts", "2", {"id": "2"})]
    append(log, events)
    append(shorter, events[:2])
    assert is_ahead(shorter, folded(log))
    assert is_ahead(MemoryLog(), folded(log))


def test_a_log_that_agrees_at_the_newest_position_alone_is_another() -> None:
    one = Scribe("one")
    shared = [one.define(PARTS), one.write("parts", "1", {"id": "1"})]
    for longer in (False, True):
        log, replaced = MemoryLog(), MemoryLog()
        for target, n in ((log, 1), (replaced, 2)):
            other = Scribe("other")
            append(target, [shared[0], other.write("parts", "2", {"id": "2", "n": n}), shared[1]])
            if target is replaced and longer:
                append(target, [other.write("parts", "3", {"id": "3"})])
        assert is_ahead(replaced, folded(log))


def test_a_log_that_has_other_events_between_is_another() -> None:
    one, other, third = Scribe("one"), Scribe("other"), Scribe("third")
    shared = [one.define(PARTS), other.write("parts", "1", {"id": "1"})]
    log, replaced = MemoryLog(), MemoryLog()
    append(log, shared)
    append(replaced, [shared[0], third.write("parts", "9", {"id": "9"}), shared[1]])
    assert is_ahead(replaced, folded(log))
