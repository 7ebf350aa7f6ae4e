"""Files that are no backups, or other ones than they say: each is refused, with why, and harms nothing."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.errors import StorageFailed
from refold_adapters import backup as store
from refold_adapters.backup import BackupFile, BackupRefused
from refold_adapters.backup import zip_reading as reading
from refold_adapters.backup.documents import Document, check_documents
from refold_adapters.backup.manifest import Documents, Entry, Manifest, to_bytes
from refold_adapters.backup.reading import read_all
from refold_adapters.backup.zip_writing import zstd_zipfile

from .world import World, quiet

pytestmark = pytest.mark.anyio

Parts = dict[str, bytes]


def manifest_of(parts: Parts, **changes: object) -> Manifest:
    """A manifest that tells of these entries, of a log without events."""
    entries = [
        Entry(name, len(data), sha256(data).hexdigest()) for name, data in parts.items() if "documents/" not in name
    ]
    plain = Manifest(
        format=1,
        kind="full",
        description="",
        created="2027-01-01T00:00:00.000Z",
        replica="office",
        after=0,
        position=0,
        events=0,
        digest=None,
        vector={},
        heads_from={},
        heads_to={},
        parent=None,
        documents=None,
        entries=entries,
    )
    return msgspec.structs.replace(plain, **changes)


def whole(parts: Parts, manifest: Manifest | bytes | None = None) -> Parts:
    """The entries with a manifest and its proof."""
    if manifest is None:
        manifest = manifest_of(parts)
    data = manifest if isinstance(manifest, bytes) else to_bytes(manifest)
    proof = f"{sha256(data).hexdigest()}  manifest.json\n".encode()
    return {**parts, "manifest.json": data, "manifest.sha256": proof}


def zipped(parts: Parts, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip as the standard library writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in parts.items():
            made.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def opened(data: bytes, place: Path) -> BackupFile:
    """The backup with these bytes, opened."""
    path = place / "some.zip"
    path.write_bytes(data)
    return BackupFile(path)


def refused(data: bytes, place: Path, *, whole: bool = False) -> str:
    """Why a file is refused: on opening, or with `whole` on reading it all."""

    def look() -> None:
        with opened(data, place) as found:
            if whole:
                read_all(found, lambda done: None)
                check_documents(found, {}, quiet)

    with pytest.raises(BackupRefused) as caught:
        look()
    assert caught.value.path == str(place / "some.zip")
    return caught.value.why


def test_a_backup_made_by_hand_is_one(tmp_path: Path) -> None:
    with opened(zipped(whole({"refold.toml": b"[archive]\n"})), tmp_path) as found:
        assert found.settings() == b"[archive]\n"
        assert read_all(found, lambda done: None).events == 0


NAMES = [
    *(
        "../x",
        "a/../../x",
        "/etc/x",
        "..",
        ".",
        "a/./b",
        "a//b",
        "C:/x",
        "c:x",
        "a\\b",
        "..\\x",
        "a\x00b",
        "a\nb",
        "a/",
    ),
    *("\\\\server\\x", "a" * 5000),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    stand_in = "n" * len(name.encode())
    data = zipped(whole({stand_in: b"x"})).replace(stand_in.encode(), name.encode())
    assert "leads elsewhere" in refused(data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["some.zip"]


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    data = zipped(whole({"aaaa": b"1", "bbbb": b"2"})).replace(b"bbbb", b"aaaa")
    assert "two entries are called" in refused(data, tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    assert "not UTF-8" in refused(zipped(whole({"aaaa": b"1"})).replace(b"aaaa", b"a\xff\xfea"), tmp_path)


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010644, 0o060644])
def test_links_folders_and_devices(tmp_path: Path, mode: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        info = zipfile.ZipInfo("link")
        info.external_attr = mode << 16
        made.writestr(info, b"/etc/passwd", zipfile.ZIP_DEFLATED)
    assert "no plain file" in refused(out.getvalue(), tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_are_not_ours(tmp_path: Path, method: int) -> None:
    why = refused(zipped(whole({"x": b"abc"}), method), tmp_path)
    assert f"method {method}" in why or "in a way that is not ours" in why


def test_what_stands_around_the_zip(tmp_path: Path) -> None:
    plain = zipped(whole({"x": b"abc"}))
    assert "comment" in refused(plain + b"PK\5\6 garbage", tmp_path)
    assert "comment" in refused(plain[:-2] + b"\x05\x00hello", tmp_path)
    assert "not where it says" in refused(b"#!/bin/sh\n" + plain, tmp_path)
    assert "no zip" in refused(b"", tmp_path)
    for cut in (1, 10, 22, 60, len(plain) // 2):
        assert refused(plain[:-cut], tmp_path)


def central(data: bytes, name: bytes) -> int:
    """Where an entry of the directory starts."""
    return data.rindex(name) - 46


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    found = bytearray(data)
    struct.pack_into(form, found, at, *values)
    return bytes(found)


LIES: list[tuple[str, Callable[[bytes, int], bytes], str]] = [
    ("packed size reaches beyond", lambda data, at: patched(data, at + 20, "<I", 1 << 20), "reaches into another"),
    ("unpacked size is smaller", lambda data, at: patched(data, at + 24, "<I", 5), "more than the 5 bytes"),
    ("unpacked size is larger", lambda data, at: patched(data, at + 24, "<I", 4000), "damaged: 3000 of 4000"),
    ("unpacked size is absurd", lambda data, at: patched(data, at + 24, "<I", 1 << 31), "which deflate cannot do"),
    ("the CRC is another", lambda data, at: patched(data, at + 16, "<I", 7), "damaged"),
    ("the header is elsewhere", lambda data, at: patched(data, at + 42, "<I", 3), "reaches into another"),
    ("it is encrypted", lambda data, at: patched(data, at + 8, "<H", 1), "encrypted"),
    ("zip64 is announced and not there", lambda data, at: patched(data, at + 24, "<I", 0xFFFFFFFF), "zip64 sizes"),
    ("it is on another disk", lambda data, at: patched(data, at + 34, "<H", 1), "no plain file"),
    ("its name is longer", lambda data, at: patched(data, at + 28, "<H", 60000), "cut short"),
    ("it has a comment", lambda data, at: patched(data, at + 32, "<H", 9), "no plain file"),
]


@pytest.mark.parametrize(("lie", "why"), [pytest.param(lie, why, id=name) for name, lie, why in LIES])
def test_entries_that_lie_about_themselves(tmp_path: Path, lie: Callable[[bytes, int], bytes], why: str) -> None:
    name = "events/000001.jsonl"
    data = zipped(whole({name: b"{}\n" * 1000, "refold.toml": b"x"}))
    lying = lie(data, central(data, name.encode()))
    assert refused(lying, tmp_path, whole=True)
    with pytest.raises(BackupRefused, match=why):
        list(reading.ZipReading("lying", Memory(lying)).stream(name))


def test_the_local_header_is_of_another_entry(tmp_path: Path) -> None:
    data = zipped(whole({"aaaa": b"1"}))
    assert "another one in the directory" in refused(data.replace(b"aaaa", b"bbbb", 1), tmp_path, whole=True)


@pytest.mark.parametrize("count", [0, 1, 500, 0xFFFF])
def test_the_directory_lies_about_how_many(tmp_path: Path, count: int) -> None:
    data = zipped(whole({"x": b"abc"}))
    assert refused(patched(data, len(data) - 14, "<HH", count, count), tmp_path)


def zip64(data: bytes, count: int, size: int, start: int) -> bytes:
    """The zip with a zip64 directory that says so."""
    end = len(data) - 22
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + tail


def test_zip64_is_read_and_its_lies_are_refused(tmp_path: Path) -> None:
    data = zipped(whole({"x": b"abc"}))
    end = len(data) - 22
    count, size, start = (
        struct.unpack("<H", data[end + 10 : end + 12])[0],
        *struct.unpack("<II", data[end + 12 : end + 20]),
    )
    with opened(zip64(data, count, size, start), tmp_path) as found:
        assert len(found.names()) == 3
    for lie in ((1 << 60, size, start), (count, 1 << 60, start), (count, size, 1 << 63), (1, size, start)):
        assert refused(zip64(data, *lie), tmp_path)
    sound = zip64(data, count, size, start)
    assert "not where it says" in refused(patched(sound, len(sound) - 22 - 12, "<Q", 5), tmp_path)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    """A directory of a thousand entries, all of one place: what unpacks to much from little."""
    data = zipped(whole({"a": b"0" * 100_000}))
    at = central(data, b"amanifest"[:1])
    place = data.index(b"PK\1\2")
    entry = data[place : place + 47]
    assert entry[46:] == b"a" and at
    entries = b"".join(entry[:46] + b"%c" % (65 + n) for n in range(20))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 20, 20, len(entries), place, 0)
    assert "reaches into another" in refused(data[:place] + entries + tail, tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, 93])
def test_bombs_are_not_unpacked_beyond_what_they_say(tmp_path: Path, method: int) -> None:
    large = 200 << 20
    name = "refold.toml"
    out = io.BytesIO()
    module = zstd_zipfile() if method == 93 else zipfile
    with module.ZipFile(out, "w", method) as made, made.open(name, "w") as file:
        for _ in range(large >> 20):
            file.write(bytes(1 << 20))
    data = out.getvalue()
    source = Memory(patched(data, central(data, name.encode()) + 24, "<I", 1000))
    tracemalloc.start()
    with pytest.raises(BackupRefused, match="more than the 1000 bytes"):
        for _ in reading.ZipReading("bomb", source).stream(name):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


class Memory:
    """Bytes as a `Source`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        """See `Source.read_at`."""
        return self._data[offset : offset + size]


def test_a_manifest_is_read_only_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.reading, "MANIFEST_LIMIT", 300)
    assert "at most 300" in refused(zipped(whole({"x": b"abc"})), tmp_path)


def test_more_entries_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ENTRIES", 2)
    assert "at most 2" in refused(zipped(whole({"x": b"abc"})), tmp_path)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.reading, "LINE_LIMIT", 100_000)
    data = zipped(whole({"events/000001.jsonl": bytes(300_000)}))
    assert "a line of more than" in refused(data, tmp_path, whole=True)


def test_a_manifest_and_entries_that_do_not_agree(tmp_path: Path) -> None:
    parts = {"x": b"abc"}
    assert "no entry 'manifest.json'" in refused(zipped(parts), tmp_path)
    other = whole(parts)
    assert "last entry names" in refused(zipped({**other, "manifest.sha256": b"0" * 64}), tmp_path)
    assert "not in both" in refused(zipped({**other, "y": b""}), tmp_path)
    assert "not in both" in refused(zipped(whole({}, manifest_of(parts))), tmp_path)
    assert "not in both" in refused(zipped(whole({"x": b"abcd"}, manifest_of(parts))), tmp_path)
    changed = zipped(whole({"x": b"abd"}, manifest_of(parts)))
    assert "its hash is another" in refused(changed, tmp_path, whole=True)
    (tmp_path / "n").mkdir()
    path = tmp_path / "n" / f"20270101T000000000Z-full-{'0' * 32}.zip"
    path.write_bytes(zipped(other))
    with pytest.raises(BackupRefused, match="not the one that its name says"):
        BackupFile(path)


NONSENSE: list[dict[str, object]] = [
    {"position": 5},
    {"events": -1, "after": 1},
    {"vector": {"a": 1}},
    {"heads_to": {"a": (1, "zz")}, "vector": {"a": 1}, "position": 1, "events": 1},
    {"heads_to": {"a": (-1, "0" * 64)}, "vector": {"a": -1}, "position": -1, "events": -1},
    {"kind": "incremental"},
    {"digest": "x"},
    {"documents": Documents(1, 1, 1)},
    {"created": "yesterday"},
    {"entries": [Entry("x", -1, "0" * 64)]},
    {"entries": [Entry("x", 1, "0")]},
    {"entries": [Entry("x", 1, "0" * 64)] * 2},
    {"entries": [Entry("manifest.json", 1, "0" * 64)]},
    {"format": 2},
]


@pytest.mark.parametrize("changes", NONSENSE, ids="-".join)
def test_manifests_that_make_no_sense(tmp_path: Path, changes: dict[str, object]) -> None:
    assert "manifest" in (why := refused(zipped(whole({}, manifest_of({}, **changes))), tmp_path)) or "format" in why


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"format":"1"}', b'{"format":1}']
)
def test_manifests_that_are_none(tmp_path: Path, data: bytes) -> None:
    assert "cannot be read" in refused(zipped(whole({}, data)), tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a/../b", "C:x", "a\\b", "", "x/"],
    ids=["up", "root", "within", "drive", "back", "none", "end"],
)
def test_documents_that_lead_elsewhere(tmp_path: Path, path: str) -> None:
    listing = msgspec.json.encode(Document(path, 1, "0" * 64, 0, None)) + b"\n"
    parts = {"documents.jsonl": listing}
    data = zipped(whole(parts, manifest_of(parts, documents=Documents(1, 1, 1))))
    assert "no document" in refused(data, tmp_path, whole=True)


def test_documents_that_are_not_there_not_listed_or_out_of_order(tmp_path: Path) -> None:
    def made(*documents: Document, **held: bytes) -> bytes:
        parts = {"documents.jsonl": b"".join(msgspec.json.encode(document) + b"\n" for document in documents)}
        told = manifest_of(parts, documents=Documents(len(documents), 1, 1))
        return zipped(whole({**parts, **{f"documents/{name}": data for name, data in held.items()}}, told))

    a, b = (Document(name, 1, sha256(b"1").hexdigest(), 0, None) for name in "ab")
    with opened(made(a, b, a=b"1", b=b"1"), tmp_path) as found:
        assert check_documents(found, {}, quiet) == 2
    assert "no entry" in refused(made(a, b, a=b"1"), tmp_path, whole=True)
    assert "not listed" in refused(made(a, a=b"1", b=b"1"), tmp_path, whole=True)
    assert "out of order" in refused(made(b, a, a=b"1", b=b"1"), tmp_path, whole=True)
    assert "out of order" in refused(made(a, a, a=b"1"), tmp_path, whole=True)
    assert "hash is another" in refused(made(a, a=b"2"), tmp_path, whole=True)


async def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    parts = {"documents.jsonl": b""}
    data = zipped(whole(parts, manifest_of(parts, documents=Documents(0, 0, 1 << 60))))
    (tmp_path / "some.zip").write_bytes(data)
    with pytest.raises(StorageFailed, match="there is room for"):
        await store.restore_backup(tmp_path / "some.zip", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["some.zip"]


async def test_events_that_do_not_follow_or_do_not_end_where_it_says(world: World, tmp_path: Path) -> None:
    await world.write(0, 20)
    known = await world.create()
    with zipfile.ZipFile(world.path(known)) as found:
        lines = found.read("events/000001.jsonl").splitlines(keepends=True)
        told = msgspec.json.decode(found.read("manifest.json"), type=Manifest)

    def made(lines: list[bytes], **changes: object) -> bytes:
        parts = {"events/000001.jsonl": b"".join(lines)}
        entries = manifest_of(parts).entries
        return zipped(whole(parts, msgspec.structs.replace(told, entries=entries, **changes)))

    def look() -> None:
        with opened(made(lines), tmp_path) as sound:
            assert read_all(sound, lambda done: None).events == len(lines)
        assert "do not end where" in refused(made(lines[:-1]), tmp_path, whole=True)
        assert "follows" in refused(made([*lines[:3], *lines[4:]]), tmp_path, whole=True)
        assert "follows" in refused(made([*lines, lines[-1]]), tmp_path, whole=True)
        changed = lines[5].replace(b'"office"', b'"offine"')
        assert "its hash is" in refused(made([*lines[:5], changed, *lines[6:]]), tmp_path, whole=True)
        assert "no event" in refused(made([*lines[:5], b"{}\n", *lines[6:]]), tmp_path, whole=True)
        assert "middle of a line" in refused(made([*lines[:-1], lines[-1][:-1]]), tmp_path, whole=True)
        heads = {"office": (len(lines), "0" * 64)}
        assert "do not end where" in refused(made(lines, heads_to=heads), tmp_path, whole=True)

    await asyncio.to_thread(look)


@settings(max_examples=150)
@given(st.data())
def test_whatever_becomes_of_the_bytes_there_is_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes changed, taken out or put in anywhere: what opens reads as it was, or is refused."""
    place = tmp_path_factory.mktemp("bytes")
    parts = whole({"refold.toml": b"[archive]\n" * 50, "events/000001.jsonl": b""})
    plain = zipped(parts)
    at = data.draw(st.integers(0, len(plain) - 1))
    length = data.draw(st.integers(0, 4))
    changed = plain[:at] + data.draw(st.binary(max_size=4)) + plain[at + length :]
    try:
        with opened(changed, place) as found:
            read_all(found, lambda done: None)
            assert found.settings() == parts["refold.toml"]
    except BackupRefused:
        pass


def test_a_history_that_lies_is_not_believed(tmp_path: Path) -> None:
    for text in (b"[" * 100_000, b"\xff", json.dumps({"format": 1, "backups": [{"id": 1}]}).encode()):
        (tmp_path / "history.json").write_bytes(text)
        assert store.read_history(tmp_path).backups == []
