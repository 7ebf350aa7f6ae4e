"""What every implementation of `Tables` must do. Inherit from the suite and say how tables are made.

Whatever is asked of the tables is compared with what folding the events directly gives, or with `MemoryTables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refold.conflict_list import ConflictQuery
from refold.errors import FieldUnknown, ValueRefused
from refold.events import Event, Kind
from refold.fold import DIGEST_MODULUS, decode_state, fold_all, state_hash
from refold.ports import Query, Tables
from refold.replay import advance, catch_up, load_schemas
from refold.schema import Collection, Field, Schema, to_data
from refold.unique import coded

from .memory import MemoryLog, MemoryTables
from .scribe import Scribe, append, caught

ReadEvents = Callable[[Sequence[int]], list[Event]]

THINGS = Collection(
    name="things",
    key="id",
    fields={
        "id": Field("str"),
        "n": Field("int", null=True),
        "x": Field("float", null=True),
        "flag": Field("bool", null=True),
        "day": Field("date", null=True),
        "at": Field("datetime", null=True),
        "price": Field("decimal", null=True),
        "raw": Field("bytes", null=True),
        "more": Field("json", null=True),
        'Note, of "any" kind': Field("str", null=True),
    },
)
PARTS = Collection(name="parts", key="no", fields={"no": Field("int"), "name": Field("str", null=True)})
NOTE = 'Note, of "any" kind'

VALUES: list[Mapping[str, Any]] = [
    {"id": "1", "n": 5, "x": 1.5, "flag": True, "day": "2024-07-29", "at": "2024-07-29T10:00:00Z", "price": "12.50"},
    {"id": "2", "n": -5, "x": -0.5, "flag": False, "day": "0999-01-01", "at": "2024-07-29T10:00:00.500000Z"},
    {"id": "Ä", "n": 2**63 - 1, "price": "9.5", "raw": "AP8=", "more": {"a": [1, 2.5, None]}, NOTE: "x"},
    {"id": "z\0", "n": -(2**63), "price": "100", "raw": "", "more": [], NOTE: ""},
    {"id": "a' OR 1=1", "x": 1e308, NOTE: "Groß \U0001f600", "price": "-3", "at": "2024-07-29T09:59:59.999999Z"},
    {"id": "B", NOTE: "a", "more": "text", "day": "2024-07-30"},
    {"id": "b", NOTE: "B", "more": 7, "flag": True},
]


class TablesConformance:
    """The contract of `Tables`, as tests."""

    def make(self, events_after: ReadEvents) -> Tables:
        """New, empty tables over a log that `events_after` reads."""
        raise NotImplementedError

    def reopen(self, tables: Tables) -> Tables:
        """The same tables, opened anew where they can be; `tables` is not used again."""
        return tables

    def history(self) -> tuple[MemoryLog, list[Event]]:
        """A log with definitions, records, changes, deletes, a recreated record, and concurrent writes of two."""
        one, other = Scribe("a"), Scribe("b")
        events = [one.define(THINGS), one.define(PARTS)]
        events += [one.write("things", value["id"], value, request_id=f"r{value['id']}") for value in VALUES]
        events += [one.write("parts", str(no), {"no": no, "name": None}) for no in (10, 9, -1)]
        other.see(events)
        events += [other.write("things", "1", {"n": 7, NOTE: "other"}), other.write("things", "2")]
        events += [one.write("things", "1", {"n": 6}), one.write("parts", "9"), one.write("things", "B")]
        events += [one.write("things", "B", {"id": "B", "n": 1}), one.write("things", "1", {"x": 2.5})]
        log = MemoryLog("a")
        return log, append(log, events)

    def filled(self, batch: int = 1000) -> tuple[Tables, MemoryLog, list[Event]]:
        """Tables that have taken in `history`, `batch` events at once."""
        log, events = self.history()
        tables = self.make(log.at)
        while catch_up(log, tables, batch):
            pass
        return tables, log, events

    def both(self) -> tuple[Tables, MemoryTables, Schema]:
        """Filled tables, the model beside them, and the schema of the things in them."""
        tables, log, _ = self.filled()
        model = MemoryTables(log.at)
        while catch_up(log, model):
            pass
        return tables, model, load_schemas(tables)["things"]

    def test_new_tables_hold_nothing(self) -> None:
        tables = self.make(MemoryLog().at)
        assert tables.load([("things", "1")]) == {} and tables.requests(["r"]) == {}
        assert tables.history([("things", "1")]) == [] and tables.definitions() == {} and tables.counts() == {}
        checkpoint = tables.checkpoint()
        assert (checkpoint.position, checkpoint.vector, checkpoint.digest) == (0, {}, 0)

    def test_all_records_come_by_collection_and_key(self) -> None:
        tables, model, _ = self.both()
        expected = model.records(("", ""), 1000)
        assert [record for record, _ in expected] == sorted(record for record, _ in expected)
        assert {("parts", ""), ("parts", "9"), ("things", "2")} <= {record for record, _ in expected}
        for limit in (1, 3, 1000):
            after, found = ("", ""), []
            while page := tables.records(after, limit):
                assert len(page) <= limit
                found += page
                after = page[-1][0]
            assert found == expected
        assert tables.records(("q", "x"), 2) == model.records(("q", "x"), 2) != []
        assert tables.records(("z", ""), 2) == []

    def test_states_are_what_the_events_fold_to(self) -> None:
        tables, _, events = self.filled()
        expected = fold_all({}, events)
        loaded = tables.load([*expected, ("things", "never"), ("never", "1")])
        assert {record: decode_state(data) for record, data in loaded.items()} == expected
        assert tables.definitions() == {name: data for (name, key), data in loaded.items() if not key}
        digest = sum(state_hash(*record, data) for record, data in loaded.items()) % DIGEST_MODULUS
        checkpoint = tables.checkpoint()
        assert (checkpoint.position, checkpoint.digest) == (len(events), digest)
        assert checkpoint.heads == {
            event.replica: advance(checkpoint, [event]).heads[event.replica]
            for event in sorted(events, key=lambda event: event.seq)
        }

    def test_batching_makes_no_difference(self) -> None:
        whole, _, events = self.filled()
        records = sorted({event.record for event in events})
        for batch in (1, 2, 3, 7):
            tables, _, _ = self.filled(batch)
            assert tables.checkpoint() == whole.checkpoint()
            assert tables.load(records) == whole.load(records)
            assert tables.counts() == whole.counts()
            assert [tables.history([record]) for record in records] == [whole.history([record]) for record in records]

    def test_history_and_requests_lead_to_the_events(self) -> None:
        for batch in (1, 4, 1000):
            tables, _, events = self.filled(batch)
            for record in {event.record for event in events}:
                assert tables.history([record]) == [event.position for event in events if event.record == record]
            assert tables.history([("things", "1"), ("parts", "9")]) == [
                event.position for event in events if event.record in {("things", "1"), ("parts", "9")}
            ]
            asked = {event.request_id: event.position for event in events if event.request_id is not None}
            assert tables.requests([*asked, "never"]) == asked
            assert tables.requests([]) == {}

    def test_counts_are_of_present_records(self) -> None:
        tables, model, _ = self.both()
        assert tables.counts() == model.counts() == {"parts": 2, "things": len(VALUES) - 1}

    def test_everything_stays_when_opened_again(self) -> None:
        tables, log, events = self.filled()
        records = sorted({event.record for event in events})
        before = tables.checkpoint(), tables.load(records), tables.counts(), tables.definitions()
        tables = self.reopen(tables)
        assert (tables.checkpoint(), tables.load(records), tables.counts(), tables.definitions()) == before
        assert not catch_up(log, tables)

    def disputed(self) -> MemoryLog:
        """A log in which fields and presence were written apart, closed, and written apart again."""
        one, other = Scribe("a"), Scribe("b")
        events = [one.define(THINGS)]
        events += [one.write("things", key, {"id": key, "n": 0}) for key in "123"]
        other.see(events)
        for key in "12":
            events += [one.write("things", key, {"n": 1}), other.write("things", key, {"n": 2})]
        events += [one.write("things", "3", {"n": 1}), other.write("things", "3")]
        one.see(events)
        events += [one.write("things", "1", {"n": 3}), other.write("things", "1", {"n": 4})]
        other.see(events)
        events += [one.write("things", "2", {"n": 5}), other.write("things", "2", {"n": 6})]
        log = MemoryLog("a")
        append(log, events)
        return log

    def test_the_conflict_list_is_that_of_the_model(self) -> None:
        log = self.disputed()
        model = MemoryTables(log.at)
        while catch_up(log, model):
            pass
        for batch in (1, 3, 100):
            tables = self.make(log.at)
            while catch_up(log, tables, batch):
                pass
            for status in ("", "open", "settled", "resolved"):
                for kind in ("", "concurrent-modification", "deletion-conflict"):
                    query = ConflictQuery(status, kind)
                    assert tables.conflicts(query) == model.conflicts(query)
            assert tables.conflict_counts() == model.conflict_counts() != []
        tables = self.make(log.at)
        while catch_up(log, tables):
            pass
        tables = self.reopen(tables)
        whole = tables.conflicts(ConflictQuery())
        assert {one.entry.kind for one in whole} == {"concurrent-modification", "deletion-conflict"}
        assert {one.status for one in whole} == {"settled", "resolved"}
        assert tables.conflicts(ConflictQuery(limit=1)) == whole[:1]
        assert tables.conflicts(ConflictQuery(after=whole[0].entry.id)) == whole[1:]
        assert tables.conflicts(ConflictQuery(id=whole[-1].entry.id)) == whole[-1:]
        assert tables.conflicts(ConflictQuery(collection="parts")) == []

    def test_references_that_lead_nowhere_are_those_of_the_model(self) -> None:
        trips = Collection(
            name="trips", key="id", fields={"id": Field("str"), "part": Field("int", null=True, references="parts")}
        )
        plain = Collection(name="trips", key="id", fields={"id": Field("str"), "part": Field("int", null=True)})
        one, other = Scribe("a"), Scribe("b")
        events = [one.define(plain), one.write("trips", "0", {"id": "0", "part": 9})]
        events += [one.write("trips", "", to_data(trips), Kind.DEFINE), one.define(PARTS)]
        events += [one.write("trips", key, {"id": key, "part": no}) for key, no in (("1", 1), ("2", 2), ("3", None))]
        other.see(events)
        events += [one.write("parts", "1", {"no": 1}), other.write("trips", "3", {"part": 3})]
        events += [one.write("trips", "2"), one.write("parts", "9", {"no": 9}), other.write("trips", "1", {"part": 1})]
        one.see(events)
        events += [one.write("parts", "1"), one.write("parts", "3", {"no": 3})]
        for end in range(1, len(events) + 1):
            log = MemoryLog("a")
            append(log, events[:end])
            model = MemoryTables(log.at)
            while catch_up(log, model):
                pass
            for batch in (1, 4):
                tables = self.make(log.at)
                while catch_up(log, tables, batch):
                    pass
                assert tables.conflicts(ConflictQuery()) == model.conflicts(ConflictQuery()), end
                self.reopen(tables)

    def test_what_changed_is_that_of_the_model_wherever_it_stood(self) -> None:
        tables, log, _ = self.filled()
        model = MemoryTables(log.at)
        while catch_up(log, model):
            pass
        end = model.checkpoint().position
        for name in ("things", "parts", "never"):
            for upto in range(end + 1):
                for after in range(upto + 1):
                    expected = model.changed(name, after, upto, 100)
                    assert tables.changed(name, after, upto, 100) == expected, (name, after, upto)
                    assert tables.count_changed(name, after, upto) == len(expected)
                    for limit in (1, 2):
                        assert tables.changed(name, after, upto, limit) == expected[:limit]

    def related(self) -> list[Event]:
        """Records that took unique values apart and again alone, whose fields became unique and common again, and whose
        keep-both branches say what others hold."""
        unique = {"id": Field("str"), "n": Field("int", null=True, unique=True), "j": Field("json", null=True)}
        relaxed = {**unique, "n": Field("int", null=True), "j": Field("json", null=True, unique=True)}
        made = [
            Collection(name="coins", key="id", fields=fields, strategy=strategy)
            for fields, strategy in ((unique, "last-write-wins"), (relaxed, "manual"), (unique, "keep-both"))
        ]
        one, other = Scribe("a"), Scribe("b")
        events = [one.define(made[0])]
        events += [one.write("coins", key, {"id": key, "n": 1, "j": ["x"] * n}) for n, key in enumerate("123")]
        other.see(events)
        events += [other.write("coins", "1", {"n": 2}), one.write("coins", "4", {"id": "4", "n": 2, "j": ["x"] * 99})]
        events += [one.write("coins", "2"), one.write("coins", "", to_data(made[1]), Kind.DEFINE)]
        events += [one.write("coins", "5", {"id": "5", "n": 1, "j": ["x"] * 99}), one.write("coins", "3", {"j": None})]
        one.see(events)
        other.see(events)
        events += [one.write("coins", "4", {"n": 3, "j": 0}), other.write("coins", "4", {"n": 4, "j": ["x"]})]
        one.see(events)
        events += [one.write("coins", "", to_data(made[2]), Kind.DEFINE), one.write("coins", "6", {"id": "6", "n": 3})]
        events += [one.write("coins", "7", {"id": "7", "n": 4}), one.write("coins", "4"), one.write("coins", "5")]
        return events

    def test_unique_values_that_several_hold_are_those_of_the_model(self) -> None:
        events = self.related()
        kinds = set()
        for end in range(1, len(events) + 1):
            log = MemoryLog("a")
            append(log, events[:end])
            model = MemoryTables(log.at)
            while catch_up(log, model):
                pass
            kinds |= {one.entry.kind for one in model.conflicts(ConflictQuery("open"))}
            values = [coded("coins", field, value) for field in "nj" for value in (1, 2, 3, 4, 0, ["x"], ["x"] * 99)]
            for batch in (1, 4):
                tables = self.make(log.at)
                while catch_up(log, tables, batch):
                    pass
                assert tables.conflicts(ConflictQuery()) == model.conflicts(ConflictQuery()), end
                for limit in (1, 2, 100):
                    assert tables.holders(values, limit) == model.holders(values, limit), end
                self.reopen(tables)
        assert "unique-conflict" in kinds

    def test_referrers_are_those_of_the_model(self) -> None:
        fields = {"id": Field("str"), "part": Field("int", null=True, references="parts")}
        fields["other"] = Field("int", null=True, references="parts")
        one, log = Scribe("a"), MemoryLog("a")
        events = [one.define(Collection(name="trips", key="id", fields=fields)), one.define(PARTS)]
        events += [one.write("trips", str(n), {"id": str(n), "part": n % 2, "other": n % 3}) for n in range(9)]
        append(log, [*events, one.write("trips", "8")])
        tables, model = self.make(log.at), MemoryTables(log.at)
        for made in (tables, model):
            while catch_up(log, made):
                pass
        for through in ([("trips", "part")], [("trips", "other")], [("trips", "part"), ("trips", "other")], []):
            for target in (("parts", "0"), ("parts", "1"), ("parts", "9"), ("trips", "1")):
                whole = tables.referrers(target, through, 100)
                assert whole == model.referrers(target, through, 100)
                assert set(tables.referrers(target, through, 1)) <= set(whole)

    def test_find_orders_by_every_field_and_pages(self) -> None:
        tables, model, schema = self.both()
        for field in schema.columns:
            for order in (field, f"-{field}"):
                if field == "more":
                    continue
                expected = [key for _, key, _ in model.find(Query("things", order=order), schema)]
                for limit in (1, 2, 100):
                    found: list[str] = []
                    query = Query("things", order=order, limit=limit)
                    while page := tables.find(query, schema):
                        found += [key for _, key, _ in page]
                        query = Query("things", order=order, limit=limit, after=page[-1][0])
                    assert found == expected, (order, limit)

    def test_find_by_every_value(self) -> None:
        tables, model, schema = self.both()
        wanted: list[dict[str, Any]] = [{field: value} for row in VALUES for field, value in row.items()]
        wanted += [{field: None} for field in schema.columns if field != "id"]
        wanted += [{"flag": True, "n": None}, {"n": 12345}, {"id": "1", "n": 7}]
        for where in wanted:
            found, expected = (part.find(Query("things", where), schema) for part in (tables, model))
            assert [(key, data) for _, key, data in found] == [(key, data) for _, key, data in expected], where

    def test_keys_that_are_numbers_are_ordered_as_numbers(self) -> None:
        tables, _, _ = self.filled()
        schema = load_schemas(tables)["parts"]
        assert [key for _, key, _ in tables.find(Query("parts"), schema)] == ["-1", "10"]
        assert [key for _, key, _ in tables.find(Query("parts", order="-no"), schema)] == ["10", "-1"]
        assert [key for _, key, _ in tables.find(Query("parts", {"no": 10}), schema)] == ["10"]

    def test_a_search_that_makes_no_sense_is_refused(self) -> None:
        tables, _, schema = self.both()
        caught(FieldUnknown, tables.find, Query("things", {"never": 1}), schema)
        caught(FieldUnknown, tables.find, Query("things", {"never": None}), schema)
        caught(FieldUnknown, tables.find, Query("things", order="-never"), schema)
        caught(ValueRefused, tables.find, Query("things", {"n": "one"}), schema)

    def test_a_field_that_is_added_has_its_default_everywhere(self) -> None:
        log, scribe = MemoryLog("a"), Scribe("a")
        append(log, [scribe.define(PARTS), scribe.write("parts", "1", {"no": 1, "name": "old"})])
        tables = self.make(log.at)
        while catch_up(log, tables):
            pass
        wider = {**PARTS.fields, "size": Field("int", default=3), "note": Field("str", null=True)}
        append(log, [scribe.define(Collection(name="parts", key="no", fields=wider))])
        append(log, [scribe.write("parts", "2", {"no": 2, "name": "new", "size": 4, "note": "n"})])
        while catch_up(log, tables):
            pass
        schema = load_schemas(tables)["parts"]
        assert schema.columns == ("no", "name", "size", "note")
        assert [key for _, key, _ in tables.find(Query("parts", {"size": 3, "note": None}), schema)] == ["1"]
        assert [key for _, key, _ in tables.find(Query("parts", order="-size"), schema)] == ["2", "1"]

    def test_a_policy_that_changes_settles_the_whole_history_anew(self) -> None:
        one, other = Scribe("a"), Scribe("b", lambda: 2_000_000_000_000)
        fields = {"id": Field("str"), "n": Field("int", null=True)}
        log = MemoryLog("a")
        start = [one.define(Collection(name="c", key="id", fields=fields)), one.write("c", "1", {"id": "1", "n": 0})]
        start += [one.write("c", "2", {"id": "2", "n": 0})]
        other.see(start)
        apart = [one.write("c", "1", {"n": 1}), other.write("c", "1", {"n": 10})]
        apart += [one.write("c", "2", {"n": 1}), other.write("c", "2")]
        append(log, start + apart)
        tables = self.make(log.at)
        while catch_up(log, tables):
            pass

        def with_value(n: int) -> list[str]:
            return [key for _, key, _ in tables.find(Query("c", {"n": n}), load_schemas(tables)["c"])]

        assert (with_value(10), tables.counts()) == (["1"], {"c": 1})
        for strategy, count in (("first-write-wins", 2), ("last-write-wins", 1)):
            append(log, [one.define(Collection(name="c", key="id", fields=fields, strategy=strategy))])
            while catch_up(log, tables):
                pass
            assert with_value(1) == (["1", "2"] if count == 2 else [])
            assert tables.counts() == {"c": count}
        summed = {**fields, "n": Field("int", null=True, strategy="sum")}
        append(log, [one.define(Collection(name="c", key="id", fields=summed))])
        while catch_up(log, tables):
            pass
        assert with_value(11) == ["1"]
