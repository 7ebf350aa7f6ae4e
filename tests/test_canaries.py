"""Planted bugs that the suites must catch: each check passes on the code as it is, and fails with one bug in it.

A bug is planted by compiling a function anew with one piece of its text replaced; text that is no longer there is an
error, so a canary cannot die unnoticed.
"""

from __future__ import annotations
import __future__

import asyncio
import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import refold
from refold import conflict, decide, events, fold, replay, verify
from refold.replay import catch_up
from refold.testing import MemoryLog, MemoryTables, Scribe, Ticks, append
from refold.testing.conformance_store import COUNTERS
from refold.testing.conformance_tables import PARTS
from refold_adapters import archive, lock, sqlite_columns, sqlite_connection, sqlite_unique
from refold_adapters.recovery import chains, union
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables
from tests.adapters import test_conformance, test_engine, test_lock, test_sqlite_log
from tests.adapters.recovery import test_union
from tests.engine import test_conflict, test_decide, test_events, test_fold, test_verify
from tests.engine.histories import histories

CAUGHT = (AssertionError, pytest.fail.Exception)


def mutated(function: Callable[..., Any], edits: Mapping[str, str]) -> Callable[..., Any]:
    """The function as it would be with other text in some places, each of which it has once."""
    source = textwrap.dedent(inspect.getsource(function))
    for text, other in edits.items():
        assert source.count(text) == 1, f"{function.__qualname__} has changed: {text!r} is there {source.count(text)}x"
        source = source.replace(text, other)
    flags = __future__.annotations.compiler_flag
    code = compile(source, "<canary>", "exec", flags=flags, dont_inherit=True)
    made: dict[str, Any] = {}
    exec(code, function.__globals__, made)
    changed: Callable[..., Any] = made[function.__name__]
    return changed


class Canary(NamedTuple):
    """A bug: the function it is in, which of its texts are replaced by which, and what catches it."""

    owner: Any
    name: str
    edits: dict[str, str]
    check: Callable[[Path], Coroutine[Any, Any, None] | None]


async def open_archive_is_synced(path: Path) -> None:
    """Every connection to an open archive's log syncs each commit."""
    async with archive.open_store(
        str(path), replica="a", new_id=lambda: "a", clock=Ticks(), readonly=False, folders=False
    ) as store:
        level = await store.write(lambda log, _: log._connection.execute("PRAGMA synchronous").fetchone()[0])  # type: ignore[attr-defined]
        assert level == 2


async def acknowledged_is_durable(path: Path) -> None:
    """What was acknowledged is in a copy of the files that is taken at that moment."""
    copies = [path / f"copy{n}" for n in range(4)]
    async with refold.open(path / "live", folders=False, clock=Ticks()) as engine:
        await engine.define(COUNTERS)
        for n, copy in enumerate(copies):
            await engine.put("counters", {"id": "1", "n": n})
            shutil.copytree(path / "live", copy)
    for n, copy in enumerate(copies):
        log = await asyncio.to_thread(SqliteLog, copy / "changelog.db")
        assert await asyncio.to_thread(log.end) == n + 2
        await asyncio.to_thread(log.close)


def tables_survive_a_crash_while_they_are_saved(path: Path) -> None:
    """Tables whose save was cut short anywhere catch up to what the log says."""
    log, scribe = MemoryLog(), Scribe("a")
    append(log, [scribe.define(PARTS), scribe.write("parts", "1", {"no": 1, "name": "x"})])
    truth = MemoryTables(log.at)
    while catch_up(log, truth):
        pass
    for step in ("_save_records", "_save_rows", "_save_checkpoint"):
        tables = SqliteTables(path / f"{step}.db", log.at)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SqliteTables, step, _die)
            with pytest.raises(KeyboardInterrupt):
                catch_up(log, tables)
        tables.close()
        tables = SqliteTables(path / f"{step}.db", log.at)
        while catch_up(log, tables):
            pass
        assert (tables.checkpoint(), tables.counts()) == (truth.checkpoint(), truth.counts()), step
        tables.close()


def _die(*_: Any) -> None:
    raise KeyboardInterrupt


def conforming(suite: Any, test: str) -> Callable[[Path], None]:
    """One test of a conformance suite over SQLite."""

    def check(path: Path) -> None:
        instance = suite()
        instance.path, instance.made = path, 0
        getattr(instance, test)()

    check.__name__ = test
    return check


def alone(test: Callable[..., Any], *arguments: Any) -> Callable[[Path], Any]:
    """A test that needs no place on the disk."""

    def check(_: Path) -> Any:
        return test(*arguments)

    check.__name__ = test.__name__
    return check


def at(test: Callable[..., Any], *arguments: Any) -> Callable[[Path], Any]:
    """A test that is given a path first."""

    def check(path: Path) -> Any:
        return test(path, *arguments)

    check.__name__ = test.__name__
    return check


def poisoned(path: Path) -> None:
    """A log whose commit failed takes no further append."""
    test_sqlite_log.test_a_commit_that_fails_poisons_the_log_until_it_is_opened_again(path / "log.db", False)


def drawn(test: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> Callable[[Path], None]:
    """A property test with known examples; one that fails is not made smaller, for nobody will look at it."""
    quick = settings(phases=[Phase.generate], derandomize=True, database=None, max_examples=100)
    return alone(quick(given(*strategies)(vars(test)["hypothesis"].inner_test)))


LOG, TABLES = test_conformance.TestSqliteLog, test_conformance.TestSqliteTables
FOLDED = drawn(test_fold.test_the_fold_does_what_the_definition_says, histories())
ORDERED = drawn(
    test_fold.test_order_duplication_and_batching_make_no_difference,
    histories(),
    st.randoms(use_true_random=False),
    st.just([]),
)
SPELT = drawn(test_events.test_position_and_the_order_of_mappings_leave_no_trace, test_events.events)
SUMMED = drawn(
    test_conflict.test_sum_adds_what_every_write_added,
    histories(fields=["n", "x", "price"]),
    st.randoms(use_true_random=False),
)
CHAINED = alone(test_verify.test_any_flipped_bit_is_found, 0)
RECOVERED = drawn(test_union.test_the_union_takes_what_is_proved_and_names_what_is_missing, st.data())
SEEN_ONLY = alone(test_union.test_what_had_seen_something_missing_is_left_out)
FILLED = alone(test_union.test_a_rotten_event_is_filled_by_the_one_whose_hash_its_successor_names)
SEEN = alone(test_decide.test_a_group_sees_its_own_writes_and_the_groups_before_it)
REFUSED = alone(test_decide.test_a_group_that_is_refused_leaves_no_trace)

CANARIES = {
    "no fsync": Canary(
        sqlite_connection, "connect", {"str(synchronous), synchronous": "'OFF', 0"}, open_archive_is_synced
    ),
    "acknowledged before commit": Canary(
        SqliteLog,
        "append",
        {
            'self._connection.execute("BEGIN': 'self._connection.in_transaction or self._connection.execute("BEGIN',
            'self._connection.execute("COMMIT")': 'events[0].seq % 2 and self._connection.execute("COMMIT")',
        },
        acknowledged_is_durable,
    ),
    "checkpoint before data": Canary(
        SqliteTables,
        "_save",
        {"    try:\n": "    self._save_checkpoint(changes.checkpoint)\n    try:\n"},
        tables_survive_a_crash_while_they_are_saved,
    ),
    "wrong vector compare": Canary(fold, "fold", {">= old.seq": "> old.seq"}, FOLDED),
    "dropped field": Canary(fold, "fold", {"if not data:": "if True:"}, FOLDED),
    "unordered writes": Canary(fold, "fold", {"left.sort(key=_rank)": "pass"}, ORDERED),
    "told twice, folded twice": Canary(
        fold, "fold", {"if version.get(event.replica, 0) >= event.seq:": "if False:"}, ORDERED
    ),
    "unordered rows": Canary(
        sqlite_columns,
        "page_sql",
        {"ORDER BY {order}": ""},
        conforming(TABLES, "test_find_orders_by_every_field_and_pages"),
    ),
    "context not advanced": Canary(decide._Decider, "answer", {"        context,\n": "        {},\n"}, SEEN),
    "a refused group leaves a trace": Canary(
        decide._Decider, "group", {"return error\n": "return (self.chain(), error)[1]\n"}, REFUSED
    ),
    "digest not updated on replace": Canary(
        replay,
        "changes_of",
        {"if record in before:": "if False:"},
        conforming(TABLES, "test_batching_makes_no_difference"),
    ),
    "prev not checked": Canary(verify.ChainCheck, "_follow", {"link.prev != head.hash": "False"}, CHAINED),
    "mappings in any order": Canary(
        events, "canonical", {"_encoder.encode(event)[1:-1]": "msgspec.msgpack.encode(event)[1:-1]"}, SPELT
    ),
    "a gap taken": Canary(
        SqliteLog,
        "_refuse",
        {"raise EventsMissing(": "return (lambda missing: None)("},
        conforming(LOG, "test_a_gap_is_refused_and_named"),
    ),
    "no poison": Canary(SqliteLog, "append", {"if self._poison is not None:": "if False:"}, poisoned),
    "request forgotten": Canary(
        SqliteTables,
        "requests",
        {"return found": "return {}"},
        conforming(TABLES, "test_history_and_requests_lead_to_the_events"),
    ),
    "no lock": Canary(
        lock.Lock,
        "acquire",
        {"fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)": "pass"},
        at(test_lock.test_a_lock_is_free_again_whatever_its_file_says),
    ),
    "tables ahead of the log kept": Canary(
        archive.FileStore,
        "_tables_usable",
        {"not is_ahead(log, self._tables.checkpoint())": "True"},
        at(test_engine.test_an_earlier_log_has_its_tables_rebuilt),
    ),
    "a clash within one batch missed": Canary(
        sqlite_unique,
        "save_holdings",
        {
            "{row for holding in held.values() for row in holding.items()}": "set({value: holder"
            " for holding in held.values() for value, holder in holding.items()}.items())"
        },
        conforming(TABLES, "test_unique_values_that_several_hold_are_those_of_the_model"),
    ),
    "a clash that stays on the list": Canary(
        sqlite_unique,
        "save_holdings",
        {"standing = _clashes(connection, values)": "standing: list[Entry] = []"},
        conforming(TABLES, "test_unique_values_that_several_hold_are_those_of_the_model"),
    ),
    "a target that comes unnoticed": Canary(
        SqliteTables,
        "_relate",
        {"affected |= referrers": "_ = referrers"},
        conforming(TABLES, "test_references_that_lead_nowhere_are_those_of_the_model"),
    ),
    "an event whose hash is wrong": Canary(chains, "doubt", {"or each.hash in named": "or True"}, FILLED),
    "a gap not named": Canary(chains, "walk", {"chain.miss(chain.last + 1, dot.seq - 1)": "pass"}, RECOVERED),
    "a context not looked at": Canary(
        union.Union, "_ordered", {"have.get(replica, 0) < seq for replica": "False for replica"}, SEEN_ONLY
    ),
    "missing ones not named": Canary(union.Union, "_add_tails", {"if last > end and": "if False and"}, RECOVERED),
    "nothing kept aside": Canary(union.Union, "left_out", {"yield line_of(event, entry.hash)": "pass"}, RECOVERED),
    "sums rounded": Canary(conflict, "total", {"with localcontext(_SUMS):": "if True:"}, SUMMED),
}


def run(canary: Canary, path: Path) -> None:
    work = canary.check(path)
    if work is not None:
        asyncio.run(work)


@pytest.mark.parametrize("name", {canary.check: name for name, canary in CANARIES.items()}.values())
def test_a_check_passes_on_the_code_as_it_is(name: str, tmp_path: Path) -> None:
    run(CANARIES[name], tmp_path)


@pytest.mark.parametrize("name", CANARIES)
def test_a_planted_bug_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = CANARIES[name]
    original = getattr(canary.owner, canary.name)
    changed = mutated(original, canary.edits)
    monkeypatch.setattr(canary.owner, canary.name, changed)
    for module in list(sys.modules.values()):
        if module.__name__.startswith(("refold", "tests")) and vars(module).get(canary.name) is original:
            monkeypatch.setattr(module, canary.name, changed)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - told apart below
        run(canary, tmp_path)
    assert all(isinstance(error, CAUGHT) for error in leaves(caught.value)), caught.value


def leaves(error: BaseException) -> list[BaseException]:
    """What a group of errors holds; the error itself when it is none."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
