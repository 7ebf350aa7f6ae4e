"""Everything that reads bytes which somebody else wrote: each decoder is one entry of `decoders`.

An entry has inputs that it takes, and a function that decodes one. It may refuse with an error of the kind that it
says, and what it takes it has to take as it says: what was decoded encodes and decodes to the same, and nothing that
stands behind it is passed over.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import msgspec

from refold import RefoldError
from refold.clock import TimeTextError, parse_time
from refold.events import Event, Head, Kind, canonical, decode, seal, stored_event
from refold.frames import Done, Events, Hello, Message, Refused, Result, from_frame, payload_size, to_frame
from refold.intake import Intake
from refold.moment import parse_moment
from refold.schema import from_toml
from refold.template import Template, TemplateError
from refold.values import TYPES
from refold.vector import VectorError, parse_vector
from refold_adapters import adopting
from refold_adapters.adopting.layout import describe
from refold_adapters.adopting.old_files import read_old_csv, read_old_meta
from refold_adapters.csv_cells import CsvError, CsvReader, encode_row, original_row
from refold_adapters.folders.content import meta_json, read_meta
from refold_adapters.folders.disk import Disk
from refold_adapters.folders.index import File
from refold_adapters.folders.lines import LineRefused, proved, to_line
from refold_adapters.folders.reading import read_folder
from refold_adapters.lock import Lock
from refold_adapters.record_files import RecordFile
from refold_adapters.settings import FILE, load_settings
from refold_adapters.share import segments

NOW = 1_700_000_000_000


class Wrong(Exception):
    """An input was taken for what it is not."""


class Decoder(msgspec.Struct):
    """Inputs to begin with, what decodes one, and the errors with which it may refuse.

    `mend` makes a changed input pass the outer check (a checksum, a name) so that what lies behind it is reached;
    `weight` says how many inputs it gets beside the others.
    """

    seeds: list[bytes]
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    mend: Callable[[bytes], bytes] | None = None
    weight: int = 10


def some_events(count: int = 12) -> list[Event]:
    """A chain of events with every kind of value."""
    draw = random.Random(7)
    prev = bytes(32)
    events = []
    for seq in range(1, count + 1):
        data: dict[str, Any] = {"id": f"k{seq}", "n": seq << draw.randrange(60), "x": [1.5, None, {"ä": True}]}
        kind = [Kind.CREATE, Kind.UPDATE, Kind.DELETE, Kind.TAG][seq % 4]
        context = {"office": seq - 1} if seq > 1 else {}
        event = Event(
            "office", seq, (NOW + seq) << 16, kind, "things", f"k{seq % 5}", data, context, "me", 1, seq,
            f"r{seq}" if seq % 2 else None, {"reason": "=1+1\n"}, prev,
        )  # fmt: skip
        prev = event.hash
        events.append(event)
    return events


def _stored(data: bytes) -> object:
    event = stored_event(1, data)
    try:
        body = canonical(event)
    except TypeError:  # a map whose keys are no text, which no replica writes and `intake` refuses
        return event
    if canonical(decode(body)) != body:
        raise Wrong("an event is another one when it is written again")
    return event


def _taken(data: bytes) -> object:
    event = Intake("peer", NOW + 1000, 10_000).event(data)
    if canonical(event) != data:
        raise Wrong("bytes are taken in that are not those of their event")
    if proved(to_line(event))[1] != data:
        raise Wrong("an event is taken in that a folder cannot hold")
    return event


def _frame(data: bytes) -> object:
    size = payload_size(data[:12])
    held = bytes(size)  # as a reader makes room for what a header promises
    message = from_frame(data)
    del held
    if from_frame(to_frame(message)) != message:
        raise Wrong("a message is another one when it is written again")
    try:
        from_frame(data + b"\0")
    except RefoldError:
        return message
    raise Wrong("a byte behind a frame is passed over")


def _summed(data: bytes) -> bytes:
    """A frame with the length and checksum of what it holds now."""
    payload = data[12:]
    return data[:4] + len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload


def _line(data: bytes) -> object:
    event, body, digest = proved(data)
    if sha256(body).digest() != digest or proved(to_line(event))[1] != body:
        raise Wrong("a line is another one when it is written again")
    return event


class _OneFolder:
    """A disk with one file in it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, _place: str, _name: str, offset: int = 0, limit: int = -1) -> bytes | None:
        return self._data[offset:] if limit < 0 else self._data[offset : offset + limit]


def _history(data: bytes) -> object:
    return len(list(read_folder(cast(Disk, _OneFolder(data)), "here", None)))


def _csv(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    whole = CsvReader()
    rows = whole.feed(text) + whole.close()
    pieces = CsvReader()
    step = 1 + len(text) % 7
    cut = [row for at in range(0, len(text), step) for row in pieces.feed(text[at : at + step])] + pieces.close()
    if [_told(row) for row in rows] != [_told(row) for row in cut]:
        raise Wrong("rows depend on how the text is cut")
    for row in rows:
        if not isinstance(row, CsvError):
            again = CsvReader().feed(encode_row(row.cells, neutralise=True))
            found = again[0]
            if isinstance(found, CsvError) or original_row(found.cells) != row.cells:
                raise Wrong("a row is another one when it is written again")
    return rows


def _told(row: Any) -> object:
    return str(row) if isinstance(row, CsvError) else row


def _toml(data: bytes) -> object:
    return from_toml(data.decode("utf-8", "replace"))


def _template(data: bytes) -> object:
    template = Template.parse(data.decode("utf-8", "replace"))
    try:
        folder = template.folder({"date": "2024-07-29", "order_no": "../x", "place": "a/b", "n": 5})
    except (ValueError, KeyError):
        return template
    if folder.startswith("/") or ".." in folder.split("/") or "\0" in folder:
        raise Wrong(f"a folder outside the archive: {folder!r}")
    return template


def _cell(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    found = []
    for kind in TYPES.values():
        try:
            value = kind.parse(text)
        except ValueError:
            continue
        found.append(value)
        if kind.parse(kind.text(value)) != value:
            raise Wrong(f"{kind.name} is another value when it is written again: {value!r}")
    return found


class Files:
    """Decoders that read files, for which they have a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "office").mkdir(parents=True, exist_ok=True)

    def settings(self, data: bytes) -> object:
        (self.root / FILE).write_bytes(data)
        found = load_settings(self.root)
        for name in (found.changelog, found.tables):
            (self.root / name).exists()
        return found

    def segment(self, data: bytes) -> object:
        path = self.root / "office" / f"00000001-{sha256(data).hexdigest()[:32]}.segment"
        path.write_bytes(data)
        try:
            for found in segments.scan(self.root):
                if isinstance(found, Exception):
                    raise found
                segments.plan([found], {})
                return segments.read(found)
        finally:
            path.unlink()
        return None

    def records(self, kind: str) -> Callable[[bytes], object]:
        def decode_records(data: bytes) -> object:
            path = self.root / f"records.{kind}"
            path.write_bytes(data)
            file = RecordFile(path)
            try:
                return sum(1 for _ in file.rows())
            finally:
                file.close()

        return decode_records

    def holder(self, data: bytes) -> object:
        lock = Lock(self.root / "lock")
        return lock._refusal(data)


def _segment_seeds(root: Path, events: Sequence[Event]) -> list[bytes]:
    sealed = [seal(event) for event in events]
    found = segments.write(root / "office", 1, events, [body for body, _ in sealed])
    data = found.path.read_bytes()
    found.path.unlink()
    return [data]


TOML = b"""[archive]
changelog = "log.db"
folders = false
[collections.orders]
key = "id"
folder = "{date:%Y}/{id}"
strategy = "manual"
[collections.orders.fields]
id = "str"
date = { type = "date", null = true }
total = { type = "decimal", strategy = "max" }
"""


LAYOUT = Path(adopting.__file__).with_name("workshop.toml").read_bytes()


def decoders(root: Path) -> dict[str, Decoder]:
    """Every decoder by name; `root` is a directory for those that read files."""
    files = Files(root)
    events = some_events()
    bodies = [canonical(event) for event in events]
    head = {"office": Head(3, bytes(32))}
    messages: list[Message] = [
        Hello("office", NOW, head),
        Events(bodies),
        Done(3),
        Result(head, "ab"),
        Refused("x", "y", {"z": [1]}),
    ]
    lines = [to_line(event) for event in events]
    file = File("data.csv", 10, bytes(32))
    meta = meta_json("2024/x", {"orders": (file, 3)}, (3, 100, bytes(32)), NOW << 16, head, {})
    csv = b'id,n,note\n1,2,"a ""b"""\n3,,\r\n"4","x\ny",=1+1\n'
    refold = (RefoldError,)
    return {
        "event": Decoder(bodies, _stored, refold, weight=20),
        "intake": Decoder(bodies, _taken, refold, weight=20),
        "frame": Decoder([to_frame(message) for message in messages], _frame, refold, _summed, weight=20),
        "segment": Decoder(_segment_seeds(root, events), files.segment, refold, weight=5),
        "meta.json": Decoder([meta], read_meta, ()),
        "events.jsonl line": Decoder(lines, _line, (LineRefused,), weight=15),
        "events.jsonl": Decoder([b"".join(lines)], _history, (), weight=3),
        "csv": Decoder([csv, b'"a"\n""\n\n', b"\xef\xbb\xbfa,b\n'=1,\xf0\x9f\x92\xa9\n"], _csv, (), weight=10),
        "records.csv": Decoder([csv], files.records("csv"), refold, weight=4),
        "records.json": Decoder(
            [b'[{"id":1,"a":[{"b":1e5}]},\n {"id":"\\u00e4"}]'], files.records("json"), refold, weight=3
        ),
        "records.jsonl": Decoder([b'{"id":1}\n{"id":2,"a":null}\n'], files.records("jsonl"), refold, weight=3),
        "refold.toml": Decoder([TOML], files.settings, refold, weight=3),
        "definitions": Decoder([TOML], _toml, refold, weight=2),
        "template": Decoder([b"{date:%Y}/{order_no}", b"{place:parent}/x", b"a{{b}}/{n}"], _template, (TemplateError,)),
        "moment": Decoder(
            [b"@12", b"@end", b"2024-07-29", b"2024-07-29T10:00:00Z", b"office:3,depot:4", b"before-import"],
            lambda data: parse_moment(data.decode("utf-8", "replace")),
            (RefoldError, TimeTextError),
        ),
        "time": Decoder(
            [b"2024-07-29T10:00:00.123Z", b"2024-02-29T23:59:59+02:00"],
            lambda data: parse_time(data.decode("utf-8", "replace")),
            (TimeTextError,),
        ),
        "vector": Decoder(
            [b"office:3,depot:4"], lambda data: parse_vector(data.decode("utf-8", "replace")), (VectorError,)
        ),
        "cell": Decoder([b"12.50", b"2024-07-29", b'{"a":[1]}', b"-9223372036854775808", b"1e308", b"aGk="], _cell, ()),
        "old meta.json": Decoder(
            [b'{"schema_version":"1.0","checksum":"ab","file_size":3}'], read_old_meta, (), weight=4
        ),
        "old csv": Decoder([csv, b'id,n\n"a \\"b\\"",2\n'], read_old_csv, (), weight=4),
        "layout": Decoder([LAYOUT], lambda data: describe(data.decode("utf-8", "replace"), "x"), refold, weight=2),
        "lock": Decoder([b'{"pid":1,"host":"h","since":"2024"}'], files.holder, (), weight=4),
    }
