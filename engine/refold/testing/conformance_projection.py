"""What every `Projection` must do. Inherit from the suite and say how one is made, and what it holds."""

from __future__ import annotations

from collections.abc import Sequence

from refold.events import Event
from refold.ports import Pieces, Projection
from refold.replay import advance

from .conformance_tables import PARTS, THINGS
from .memory import MemoryLog
from .scribe import Scribe, append


class ProjectionConformance:
    """The contract of `Projection`, as tests."""

    def make(self, events: Sequence[Event]) -> Projection:
        """A projection that has applied nothing yet, of an archive whose log holds these events."""
        raise NotImplementedError

    def content(self, projection: Projection) -> object:
        """What the projection holds, to be compared with what another one holds."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """A log's events: definitions, records, changes and deletes of two replicas."""
        one, other = Scribe("a"), Scribe("b")
        events = [one.define(THINGS), one.define(PARTS)]
        events += [one.write("things", str(n), {"id": str(n), "n": n}) for n in range(12)]
        other.see(events)
        events += [other.write("things", str(n), {"n": -n}) for n in range(0, 12, 3)]
        events += [one.write("things", str(n), {"n": 100 + n}) for n in range(0, 12, 2)]
        events += [other.write("things", "5"), one.write("parts", "1", {"no": 1, "name": "bolt"})]
        return append(MemoryLog(), events)

    def follow(self, projection: Projection, events: Sequence[Event], batch: int) -> None:
        """Applies what the projection has not seen, `batch` events at once."""
        checkpoint = projection.checkpoint()
        for start in range(checkpoint.position, len(events), batch):
            run = events[start : start + batch]
            checkpoint = advance(checkpoint, run)
            projection.apply(run, checkpoint)
            assert projection.checkpoint() == checkpoint

    def test_a_new_projection_has_seen_nothing(self) -> None:
        projection = self.make([])
        assert projection.name
        checkpoint = projection.checkpoint()
        assert (checkpoint.position, checkpoint.vector) == (0, {})
        assert projection.verify() == []
        projection.close()

    def test_batching_makes_no_difference(self) -> None:
        events = self.events()
        contents = []
        for batch in (1, 3, 1000):
            projection = self.make(events)
            self.follow(projection, events, batch)
            assert projection.verify() == []
            contents.append(self.content(projection))
            projection.close()
        assert contents[0] == contents[1] == contents[2]

    def test_pieces_find_nothing_where_nothing_is_wrong(self) -> None:
        events = self.events()
        projection = self.make(events)
        self.follow(projection, events, 3)
        names = projection.pieces() if isinstance(projection, Pieces) else []
        assert len(set(names)) == len(names)
        assert not any(projection.verify_piece(name) for name in names if isinstance(projection, Pieces))
        projection.close()

    def test_a_reset_forgets_and_the_log_brings_it_back(self) -> None:
        events = self.events()
        projection = self.make(events)
        self.follow(projection, events, 1000)
        content, checkpoint = self.content(projection), projection.checkpoint()
        projection.reset()
        assert projection.checkpoint().position == 0
        self.follow(projection, events, 4)
        assert (self.content(projection), projection.checkpoint()) == (content, checkpoint)
        assert projection.verify() == []
        projection.close()
