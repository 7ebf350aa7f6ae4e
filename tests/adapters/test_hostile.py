"""Ordinary use and hostile peers that could poison a store, hide a record or withhold what others wrote."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import refold
from refold import Collection, Engine, Field, RefoldError
from refold.errors import DefinitionRefused, EngineClosed, FormatUnknown, ResolutionRefused
from refold.events import Event, Head, Kind, canonical
from refold.frames import FrameRefused
from refold.intake import Taken
from refold.session import Standing
from refold.sync import between, frames_of
from refold.testing import Scribe, Ticks
from refold_adapters.share import SegmentRefused
from refold_adapters.share.segments import MAGIC, Header

pytestmark = pytest.mark.anyio

TEXTS = {"id": Field("str"), "a": Field("str", null=True), "b": Field("str", null=True)}


def notes(**options: Any) -> Collection:
    return Collection(**{"name": "notes", "key": "id", "fields": TEXTS, **options})


@asynccontextmanager
async def both(root: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """Two archives whose second clock is a little later."""
    first = refold.open(root / "a", replica="a", clock=Ticks(), folders=False)
    second = refold.open(root / "b", replica="b", clock=Ticks(1_700_000_001_000), folders=False)
    async with first as one, second as two:
        yield one, two


async def sound(*engines: Engine) -> None:
    """Every engine still writes, and what it holds is what its log says."""
    for engine in engines:
        await engine.define(Collection(name="more", key="id", fields={"id": Field("str")}))
        await engine.put("more", {"id": engine.replica})
        assert (await engine.verify()).findings == []


class Feeder:
    """A side that hands on events as they are, and says whatever it is told to say of its heads."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._pages = [[(place, canonical(event)) for place, event in enumerate(events, 1)]]
        self._heads = {event.replica: Head(event.seq, event.hash) for event in events}

    async def standing(self) -> tuple[Standing, int]:
        return Standing("feeder", None, self._heads), 1 << 60

    async def hashes(self, dots: Sequence[tuple[str, int]]) -> dict[str, bytes]:
        return {}

    async def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        return self._pages.pop() if self._pages else []

    async def take(self, bodies: Sequence[bytes] | None, peer: str, max_skew: int) -> Taken:
        return Taken(len(bodies or ()))

    async def conclusion(self) -> tuple[Mapping[str, Head], str | None]:
        return self._heads, None


async def test_a_branch_that_is_shown_may_become_a_record(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes(strategy="keep-both"))
        for key in ("1", "2"):
            await one.put("notes", {"id": key, "a": "0"})
        await one.sync(two)
        for key in ("1", "2"):
            await one.patch("notes", key, {"a": "1"})
            await two.patch("notes", key, {"a": "2"})
        await one.sync(two)
        first, second = [found async for found in one.conflicts()]
        await one.resolve(first.id, keep_both=True)
        branch = [record.key async for record in one.find("notes") if "~" in record.key and second.key in record.key]
        await one.put("notes", {"id": branch[0], "a": "mine"})
        await one.sync(two)
        assert await one.digest() == await two.digest()
        await sound(one, two)


async def test_a_policy_that_changes_in_the_run_that_touches_the_record(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes(strategy="keep-both"))
        await one.put("notes", {"id": "1", "a": "0"})
        await one.sync(two)
        await one.patch("notes", "1", {"a": "1"})
        await two.patch("notes", "1", {"a": "2"})
        await one.sync(two)
        await one.define(notes())
        await one.patch("notes", "1", {"b": "z"})
        await two.sync(one)
        for engine in (one, two):
            assert [record.key async for record in engine.find("notes")] == ["1"]
        await sound(one, two)


async def test_keys_that_cross_hide_no_record(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes(fields={"id": Field("str"), "code": Field("str", null=True)}))
        await two.define(notes(key="code", fields={"code": Field("str"), "id": Field("str", null=True)}))
        await two.put("notes", {"id": "x", "code": "c1"})
        await one.sync(two)
        await one.put("notes", {"id": "x", "code": "q"})
        await one.sync(two)
        assert sorted([record.key async for record in one.find("notes")]) == ["c1", "x"]
        await sound(one, two)


async def test_keys_that_are_one_number_and_two_texts(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes(fields={"id": Field("int")}))
        await two.define(notes(fields={"id": Field("str")}))
        await one.put("notes", {"id": 7})
        await two.put("notes", {"id": "007"})
        await one.sync(two)
        scribe = Scribe("z")
        await between(one.side(), Feeder([scribe.write("notes", "9" * 25)]))
        await sound(one, two)


async def test_a_definition_is_not_settled_by_values(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes(folder="x/{id}"))
        await two.define(notes(folder="y/{id}"))
        await one.sync(two)
        (conflict,) = [found async for found in one.conflicts()]
        for choice in ({"values": {"key": "red"}}, {"keep_both": True}):
            with pytest.raises(ResolutionRefused):
                await one.resolve(conflict.id, **choice)
        await one.resolve(conflict.id, take=conflict.events[0].dot)
        assert one.schemas["notes"].collection.folder == "x/{id}"
        await sound(one, two)


async def test_definitions_that_cannot_stand_are_refused_before_they_are_in_the_log(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, _):
        scribe = Scribe("z")
        broken = [
            scribe.write("notes", "", {"folder": "{nothing}"}, Kind.DEFINE),
            scribe.define(notes()),
        ]
        with pytest.raises(FormatUnknown):
            await between(one.side(), Feeder(broken))
        wide = Scribe("w").define(notes(fields={"id": Field("str")}))
        many = {f"field:f{n}": {"type": "str", "null": True, "order": n} for n in range(1, 2500)}
        with pytest.raises(DefinitionRefused, match="1000"):
            await between(one.side(), Feeder([msgspec.structs.replace(wide, data={**wide.data, **many})]))
        assert one.position == 0
        await sound(one)


async def test_fields_that_differ_in_case_alone_stop_no_sync(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes())
        await one.sync(two)
        await one.define(notes(fields={**TEXTS, "Tag": Field("str", null=True)}))
        await two.define(notes(fields={**TEXTS, "tag": Field("str", null=True)}))
        await one.put("notes", {"id": "1", "Tag": "x"})
        await one.sync(two)
        assert await one.digest() == await two.digest()
        await sound(one, two)


async def test_a_collection_of_merged_types_may_be_defined_again_as_it_is(tmp_path: Path) -> None:
    async with both(tmp_path) as (one, two):
        await one.define(notes(fields={"id": Field("str"), "a": Field("int", null=True)}))
        await two.define(notes(fields={"id": Field("str"), "a": Field("str", null=True)}))
        await one.sync(two)
        await one.define(one.schemas["notes"].collection)
        assert one.schemas["notes"].types["a"].name == "json"
        await sound(one, two)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (Field("int", null=True), Field("str", null=True)),
        (Field("str", null=True), Field("str", required=True)),
        (Field("str", null=True, pattern="x"), Field("str", null=True, default="x")),
    ],
)
async def test_applications_that_define_a_field_otherwise_start_again_and_write_nothing(
    tmp_path: Path, mine: Field, theirs: Field
) -> None:
    async with both(tmp_path) as (one, two):
        ways = {
            one: notes(fields={"id": Field("str"), "a": mine}),
            two: notes(fields={"id": Field("str"), "a": theirs}),
        }
        for engine, collection in ways.items():
            await engine.define(collection)
        await one.sync(two)
        merged = one.schemas["notes"].collection.fields["a"]
        positions = [one.position, two.position]
        for engine in (one, two, one):
            for collection in ways.values():
                assert await engine.define(collection) == []
            assert engine.schemas["notes"].collection.fields["a"] == merged
        assert [one.position, two.position] == positions
        with pytest.raises(DefinitionRefused):
            await one.define(notes(fields={"id": Field("str"), "a": Field("bool", null=True)}))
        await sound(one, two)


async def test_data_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    async with both(tmp_path) as (one, _):
        with pytest.raises(FrameRefused):
            await between(one.side(), Feeder([Scribe("z").write("notes", "1", {"a": deep})]))
        await sound(one)


async def test_an_engine_that_is_closed_in_the_middle_is_a_typed_error(tmp_path: Path) -> None:
    async with refold.open(tmp_path / "b", replica="b", folders=False) as two:
        await two.define(notes())
        for start in range(0, 6000, 1000):
            async with two.batch() as batch:
                for n in range(start, start + 1000):
                    batch.put("notes", {"id": str(n)})
        async with refold.open(tmp_path / "a", replica="a", folders=False) as one:
            begun = asyncio.Event()
            session = asyncio.create_task(one.sync(two, progress=lambda what, done: begun.set()))
            await begun.wait()
        with pytest.raises(EngineClosed):
            await session
        await sound(two)


def segment(root: Path, heads: dict[str, Head], payload: bytes = b"", **options: Any) -> None:
    """A file as a hostile or broken writer leaves it, its name and its sizes right."""
    header = Header("evil", 1, dict.fromkeys(heads, 1), heads, {}, 1, len(payload))
    told = options.get("told") or msgspec.msgpack.encode(header)
    data = b"".join((MAGIC, len(told).to_bytes(4, "big"), told, payload))
    (root / "evil").mkdir()
    (root / f"evil/00000001-{hashlib.sha256(data).hexdigest()[:32]}.segment").write_bytes(data)


@pytest.mark.parametrize(
    "harm", ["claims ours", "claims another's", "garbage", "no hash", "no event", "deep", "folder", "link"]
)
async def test_one_bad_file_withholds_nothing_of_the_others(tmp_path: Path, harm: str) -> None:
    share = tmp_path / "share"
    share.mkdir()
    head = Head(1000, b"x" * 32)
    match harm:
        case "claims ours":
            segment(share, {"a": head})
        case "claims another's":
            segment(share, {"elsewhere": head})
        case "garbage":
            segment(share, {"z": head}, frames_of([b"\x93garbage"])[0])
        case "no hash":
            segment(share, {"z": Head(1, b"x")})
        case "no event":
            event = Scribe("z").write("notes", "1", {"a": float("inf")})
            segment(share, {"z": Head(1, event.hash)}, frames_of([canonical(event)])[0])
        case "deep":
            segment(share, {}, told=b"\x91" * 5000 + b"\x00")
        case "folder":
            (share / f"evil/00000001-{'0' * 32}.segment").mkdir(parents=True)
        case _:
            (share / "evil").mkdir()
            (share / f"evil/00000001-{'0' * 32}.segment").symlink_to("nowhere")
    async with both(tmp_path) as (one, two):
        await one.define(notes())
        await one.put("notes", {"id": "1"})
        for engine in (one, two):
            with pytest.raises(SegmentRefused, match="evil"):
                await engine.sync(f"dir://{share}")
        assert await two.get("notes", "1") is not None
        await sound(one, two)


async def test_a_segment_that_rots_is_written_anew_by_whoever_has_its_events(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    async with both(tmp_path) as (one, two):
        await one.define(notes())
        await one.put("notes", {"id": "1"})
        await one.sync(f"dir://{tmp_path / 'share'}")
        (path,) = (tmp_path / "share").rglob("*.segment")
        data = bytearray(path.read_bytes())
        data[-5] ^= 4
        path.write_bytes(data)
        for engine in (one, two):
            with pytest.raises(RefoldError, match=path.name):
                await engine.sync(f"dir://{tmp_path / 'share'}")
        assert await two.get("notes", "1") is not None


@pytest.mark.parametrize("pattern", ["a{99999999999999}", "(" * 5000 + ")" * 5000, "("])
async def test_a_pattern_that_cannot_be_compiled_is_a_typed_error(tmp_path: Path, pattern: str) -> None:
    async with both(tmp_path) as (one, _):
        good = Scribe("z").define(notes())
        field = {"type": "str", "null": True, "pattern": pattern, "order": 9}
        bad = msgspec.structs.replace(good, data={**good.data, "field:x": field})
        with pytest.raises(RefoldError):
            await between(one.side(), Feeder([bad]))
        await sound(one)
