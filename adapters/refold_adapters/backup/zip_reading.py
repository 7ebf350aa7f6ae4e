"""Reading a zip that may be hostile: nothing is believed, nothing is read beyond what was declared.

A backup is a zip that this package wrote, so whatever a zip may have and ours never do is refused: comments, entries
that are stored or encrypted, links, folders, names that lead elsewhere, two entries of one name, bytes that belong to
two entries (Fifield, "A better zip bomb", 2019), anything between the last entry and the directory. An entry is
unpacked piece by piece, never further than its declared size, and its size and CRC have to be as declared.
"""

from __future__ import annotations

import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from refold.errors import ExtraMissing

from .errors import BackupRefused

DEFLATE, ZSTD = 8, 93
MAX_ENTRIES = 1_000_000
MAX_NAME = 4096
PIECE = 1 << 16
WINDOW_LOG = 27
"""The largest window of a zstd entry that is unpacked: 128 MiB."""

_END, _END64, _LOCATOR, _CENTRAL, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_END_SIZE, _END64_SIZE, _LOCATOR_SIZE, _CENTRAL_SIZE, _LOCAL_SIZE = 22, 56, 20, 46, 30
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ALLOWED_FLAGS = 0x0008 | 0x0800 | 0x0006  # sizes follow the data; the name is UTF-8; how hard deflate tried
_DEFLATE_RATIO = 1032
_BAD_NAME = re.compile(r"[\x00-\x1f\x7f\\]|^/|^[A-Za-z]:|^$|/$|//|(^|/)\.{1,2}(/|$)")


def is_plain_name(name: str) -> bool:
    """Whether a name is a path that stays below where it is unpacked, on any system."""
    try:
        return len(name.encode()) <= MAX_NAME and not _BAD_NAME.search(name)
    except UnicodeEncodeError:
        return False


class Source(Protocol):
    """Bytes that can be read anywhere."""

    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """So many bytes from there; fewer only at the end."""


class ZipEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry of the directory; `offset` is where its local header starts, `limit` where its bytes end at most."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    limit: int


def _u(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


class ZipReading:
    """The entries of a zip by name. Raises `BackupRefused` on opening when the directory is not as ours are."""

    def __init__(self, path: str, source: Source) -> None:
        self._path = path
        self._source = source
        start, size, count = self._find_directory()
        self.entries = self._read_directory(start, size, count)

    def _refuse(self, why: str) -> BackupRefused:
        return BackupRefused(self._path, why)

    def _read(self, offset: int, size: int) -> bytes:
        data = self._source.read_at(offset, size)
        if len(data) != size:
            raise self._refuse(f"it ends in the middle of something, at byte {offset + len(data)}")
        return data

    def _find_directory(self) -> tuple[int, int, int]:
        """Where the directory starts, its size, and how many entries it has."""
        end = self._source.size - _END_SIZE
        if end < 0:
            raise self._refuse(f"{self._source.size} bytes are no zip")
        tail = self._read(end, _END_SIZE)
        if tail[:4] != _END or _u(tail, 20, 2):
            raise self._refuse("it does not end as a zip without a comment does; it may be cut short")
        disks, here, count = _u(tail, 4, 4), _u(tail, 8, 2), _u(tail, 10, 2)
        size, start = _u(tail, 12, 4), _u(tail, 16, 4)
        if end >= _LOCATOR_SIZE and self._read(end - _LOCATOR_SIZE, 4) == _LOCATOR:
            end, disks, here, count, size, start = self._read_zip64(end)
        if disks or here != count:
            raise self._refuse("it says that it is in several parts")
        if start + size != end or count * _CENTRAL_SIZE > size:
            raise self._refuse("its directory is not where it says")
        if count > MAX_ENTRIES:
            raise self._refuse(f"it has {count} entries; at most {MAX_ENTRIES} are read")
        return start, size, count

    def _read_zip64(self, end: int) -> tuple[int, int, int, int, int, int]:
        if end < _LOCATOR_SIZE + _END64_SIZE:
            raise self._refuse("its zip64 directory is not there")
        locator = self._read(end - _LOCATOR_SIZE, _LOCATOR_SIZE)
        place = end - _LOCATOR_SIZE - _END64_SIZE
        if locator[:4] != _LOCATOR or _u(locator, 8, 8) != place or _u(locator, 4, 4) or _u(locator, 16, 4) != 1:
            raise self._refuse("its zip64 directory is not where it says")
        told = self._read(place, _END64_SIZE)
        if told[:4] != _END64 or _u(told, 4, 8) != _END64_SIZE - 12:
            raise self._refuse("its zip64 directory is none")
        return place, _u(told, 16, 8), _u(told, 24, 8), _u(told, 32, 8), _u(told, 40, 8), _u(told, 48, 8)

    def _read_directory(self, start: int, size: int, count: int) -> dict[str, ZipEntry]:
        found: list[ZipEntry] = []
        at, end = start, start + size
        window, base = b"", at
        for _ in range(count):
            if at + _CENTRAL_SIZE > end:
                raise self._refuse("its directory is cut short")
            if at + _CENTRAL_SIZE + 3 * _FULL16 > base + len(window) and base + len(window) < end:
                window, base = self._read(at, min(end - at, 1 << 20)), at
            head = window[at - base : at - base + _CENTRAL_SIZE]
            lengths = _u(head, 28, 2), _u(head, 30, 2), _u(head, 32, 2)
            whole = _CENTRAL_SIZE + sum(lengths)
            if at + whole > end:
                raise self._refuse("its directory is cut short")
            found.append(self._entry(head, window[at - base + _CENTRAL_SIZE : at - base + whole], lengths))
            at += whole
        if at != end:
            raise self._refuse("its directory has bytes that belong to no entry")
        return self._apart(found, start)

    def _entry(self, head: bytes, rest: bytes, lengths: tuple[int, int, int]) -> ZipEntry:
        if head[:4] != _CENTRAL:
            raise self._refuse("an entry of its directory is none")
        name = self._name(rest[: lengths[0]])
        flags, method = _u(head, 8, 2), _u(head, 10, 2)
        if flags & ~_ALLOWED_FLAGS:
            raise self._refuse(f"entry {name!r} is encrypted, or packed in a way that is not ours")
        if method not in (DEFLATE, ZSTD):
            raise self._refuse(f"entry {name!r} is packed by method {method}; known are {DEFLATE} and {ZSTD}")
        mode = _u(head, 40, 2)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or lengths[2] or _u(head, 34, 2):
            raise self._refuse(f"entry {name!r} is no plain file")
        sizes = self._sizes(name, head, rest[lengths[0] : lengths[0] + lengths[1]])
        packed, size, offset = sizes
        if method == DEFLATE and size > packed * _DEFLATE_RATIO:
            raise self._refuse(f"entry {name!r} says that {packed} bytes unpack to {size}, which deflate cannot do")
        return ZipEntry(name, method, _u(head, 16, 4), packed, size, offset, 0)

    def _name(self, data: bytes) -> str:
        try:
            name = data.decode("utf-8")
        except UnicodeDecodeError:
            raise self._refuse(f"the name {data[:80]!r} is not UTF-8") from None
        if not is_plain_name(name):
            raise self._refuse(f"the name {name[:80]!r} leads elsewhere, or is none")
        return name

    def _sizes(self, name: str, head: bytes, extra: bytes) -> tuple[int, int, int]:
        """Packed size, unpacked size and offset, by the zip64 field where the directory says so."""
        size, packed, offset = _u(head, 24, 4), _u(head, 20, 4), _u(head, 42, 4)
        values = [size, packed, offset]
        wide = b""
        at = 0
        while at + 4 <= len(extra):
            kind, length = _u(extra, at, 2), _u(extra, at + 2, 2)
            if kind != 1 or wide or at + 4 + length > len(extra):
                raise self._refuse(f"entry {name!r} has an extra field that is not ours")
            wide = extra[at + 4 : at + 4 + length]
            at += 4 + length
        asked = [n for n, value in enumerate(values) if value == _FULL32]
        if at != len(extra) or len(wide) != 8 * len(asked):
            raise self._refuse(f"entry {name!r} has zip64 sizes that do not fit")
        for place, n in enumerate(asked):
            values[n] = _u(wide, 8 * place, 8)
        return values[1], values[0], values[2]

    def _apart(self, found: list[ZipEntry], start: int) -> dict[str, ZipEntry]:
        """The entries by name, if no byte belongs to two of them."""
        found.sort(key=lambda entry: entry.offset)
        entries: dict[str, ZipEntry] = {}
        limit = start
        for entry in reversed(found):
            least = entry.offset + _LOCAL_SIZE + len(entry.name.encode()) + entry.packed
            if least > limit:
                raise self._refuse(f"entry {entry.name!r} reaches into another, or beyond the end")
            if entry.name in entries:
                raise self._refuse(f"two entries are called {entry.name!r}")
            entries[entry.name] = msgspec.structs.replace(entry, limit=limit)
            limit = entry.offset
        if limit and found:
            raise self._refuse("something stands before its first entry")
        return entries

    def stream(self, name: str) -> Iterator[bytes]:
        """An entry unpacked, in pieces of at most `PIECE` bytes; whole only when the iterator ends by itself.

        Raises `BackupRefused` where there is no such entry or it is not as declared, and `ExtraMissing`.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise self._refuse(f"it has no entry {name!r}")
        start = self._data(entry)
        done = crc = 0
        for piece in self._unpacked(entry, start):
            done += len(piece)
            crc = zlib.crc32(piece, crc)
            if done > entry.size:
                raise self._refuse(f"entry {name!r} unpacks to more than the {entry.size} bytes that it says")
            yield piece
        if (done, crc) != (entry.size, entry.crc):
            raise self._refuse(f"entry {name!r} is damaged: {done} of {entry.size} bytes, CRC {crc:08x}")

    def _data(self, entry: ZipEntry) -> int:
        """Where the packed bytes start."""
        head = self._read(entry.offset, _LOCAL_SIZE)
        name = entry.name.encode()
        start = entry.offset + _LOCAL_SIZE + _u(head, 26, 2) + _u(head, 28, 2)
        told = head[:4], _u(head, 8, 2), self._read(entry.offset + _LOCAL_SIZE, len(name))
        if told != (_LOCAL, entry.method, name) or _u(head, 26, 2) != len(name) or _u(head, 6, 2) & ~_ALLOWED_FLAGS:
            raise self._refuse(f"entry {entry.name!r} is another one in the directory")
        if start + entry.packed > entry.limit:
            raise self._refuse(f"entry {entry.name!r} reaches into another, or beyond the end")
        return start

    def _unpacked(self, entry: ZipEntry, start: int) -> Iterator[bytes]:
        unpack = _inflate() if entry.method == DEFLATE else _zstd()
        at, end = start, start + entry.packed
        try:
            while at < end:
                packed = self._read(at, min(PIECE, end - at))
                at += len(packed)
                yield from unpack.feed(packed)
                if unpack.ended and at < end:
                    break
        except unpack.errors as error:
            raise self._refuse(f"entry {entry.name!r} is damaged: {error}") from None
        if not unpack.ended or at != end or unpack.left():
            raise self._refuse(f"entry {entry.name!r} does not end where it says")


class _Unpack(msgspec.Struct):
    """A decompressor that never gives more than `PIECE` bytes at once."""

    feed: Callable[[bytes], Iterator[bytes]]
    left: Callable[[], bytes]
    errors: type[Exception]
    ended: bool = False


def _inflate() -> _Unpack:
    inner = zlib.decompressobj(-15)

    def feed(packed: bytes) -> Iterator[bytes]:
        while packed and not inner.eof:
            piece = inner.decompress(packed, PIECE)
            packed = inner.unconsumed_tail
            if piece:
                yield piece
            elif not packed:
                break
        while not inner.eof and (piece := inner.decompress(b"", PIECE)):
            yield piece
        unpack.ended = inner.eof

    unpack = _Unpack(feed, lambda: inner.unused_data, zlib.error)
    return unpack


def _zstd() -> _Unpack:
    zstd = zstd_module()
    inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})

    def feed(packed: bytes) -> Iterator[bytes]:
        while not inner.eof:
            piece = inner.decompress(packed, PIECE)
            packed = b""
            if piece:
                yield piece
            if inner.needs_input or (not piece and not inner.eof):
                break
        unpack.ended = inner.eof

    unpack = _Unpack(feed, lambda: inner.unused_data, zstd.ZstdError)
    return unpack


def zstd_module() -> Any:
    """The standard library's zstd, or its backport before Python 3.14. Raises `ExtraMissing`."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise ExtraMissing("backports.zstd", "zstd") from None
    return zstd
