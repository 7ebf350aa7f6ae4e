"""Rows out of a SQLite file that SQLite itself cannot read any more.

The file is taken page by page: whatever looks like a leaf of a table is read for rows of four columns that end in a
blob, whatever else is broken, be it the header, the schema or the pages that lead to it. The blobs are events, which
are judged by their own bytes, so a page that only looks like a leaf does no harm. In a log nothing is ever changed in
place, so what stands on a page that is no longer in use is what stands elsewhere too.

A write-ahead log beside it is read as SQLite does: frames of its salt whose running checksum fits, up to the last that
ends a commit. What comes after was never acknowledged, and may have been written otherwise since.

The formats are those of <https://www.sqlite.org/fileformat2.html>: the b-tree leaf, the record, overflow pages, and the
checksum of section 4.2.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_HEADER = b"SQLite format 3\x00"
_LEAF = 13
_SIZES = {1 << power for power in range(9, 17)}
_WAL_HEADER, _FRAME_HEADER = 32, 24
_BLOB_LIMIT = 1 << 30


def _page_size(file: BinaryIO) -> int:
    """Of the header, if that can be believed; else SQLite's default."""
    file.seek(0)
    head = file.read(18)
    size = int.from_bytes(head[16:18], "big") if len(head) == 18 else 0
    size = 65536 if size == 1 else size
    return size if size in _SIZES else 4096


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer, and where it ends. Raises `IndexError` beyond the data."""
    value = 0
    for count in range(8):
        byte = data[at + count]
        value = value << 7 | byte & 127
        if byte < 128:
            return value, at + count + 1
    return value << 8 | data[at + 8], at + 9


class _Pages:
    """The pages of a database, those in its write-ahead log over those in the file."""

    def __init__(self, file: BinaryIO, wal: BinaryIO | None) -> None:
        self._file = file
        self._wal = wal
        self.size = _page_size(file)
        self.newer = dict(_frames(wal, self.size)) if wal is not None else {}
        """Where the newest committed copy of a page stands in the write-ahead log: a number a page of that log."""
        self.count = os.fstat(file.fileno()).st_size // self.size

    def read(self, number: int) -> bytes:
        """The bytes of page `number`, from 1; empty when it is not there."""
        if number in self.newer and self._wal is not None:
            self._wal.seek(self.newer[number])
            return self._wal.read(self.size)
        if not 0 < number <= self.count:
            return b""
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)

    def in_file(self, number: int) -> bytes:
        """The bytes that the file itself has for a page."""
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)


def _frames(wal: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """The pages of committed frames: page number, and where its bytes start."""
    wal.seek(0)
    head = wal.read(_WAL_HEADER)
    magic = int.from_bytes(head[:4], "big")
    if len(head) < _WAL_HEADER or magic not in (0x377F0682, 0x377F0683):
        return
    order = ">" if magic & 1 else "<"
    salt = head[16:24]
    told = int.from_bytes(head[8:12], "big")
    sums = _checksum(head[:24], (0, 0), order)
    if sums != struct.unpack(">II", head[24:32]) or told != size:
        return
    pending: list[tuple[int, int]] = []
    at = _WAL_HEADER
    while True:
        wal.seek(at)
        frame = wal.read(_FRAME_HEADER + size)
        if len(frame) < _FRAME_HEADER + size or frame[8:16] != salt:
            return
        sums = _checksum(frame[:8] + frame[_FRAME_HEADER:], sums, order)
        if sums != struct.unpack(">II", frame[16:24]):
            return
        pending.append((int.from_bytes(frame[:4], "big"), at + _FRAME_HEADER))
        if frame[4:8] != b"\0\0\0\0":
            yield from pending
            pending = []
        at += _FRAME_HEADER + size


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def carve(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every row of four columns that ends in a blob, in the file or its write-ahead log: its third column, a number,
    and the blob. Some may come twice. Raises `OSError`.
    """
    beside = path.with_name(path.name + "-wal")
    with path.open("rb") as file:
        wal = beside.open("rb") if beside.is_file() else None
        try:
            pages = _Pages(file, wal)
            for number in range(1, pages.count + 1):
                yield from _rows(pages, pages.in_file(number), number)
            for number in pages.newer:
                yield from _rows(pages, pages.read(number), number)
        finally:
            if wal is not None:
                wal.close()


def _rows(pages: _Pages, page: bytes, number: int) -> Iterator[tuple[int, bytes]]:
    start = 100 if number == 1 else 0
    if len(page) < pages.size or page[start] != _LEAF:
        return
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(min(cells, (pages.size - start - 8) // 2)):
        at = start + 8 + 2 * index
        try:
            row = _cell(pages, page, int.from_bytes(page[at : at + 2], "big"))
        except IndexError:
            continue
        if row is not None:
            yield row


_INTEGERS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
"""How many bytes a number or null has, by its type in a record."""


def _cell(pages: _Pages, page: bytes, at: int) -> tuple[int, bytes] | None:
    """The row in a cell; None when it is none of ours. Raises `IndexError`."""
    size, at = _varint(page, at)
    _, at = _varint(page, at)
    if not 0 < size <= _BLOB_LIMIT:
        return None
    record = _payload(pages, page, at, size)
    end, place = _varint(record, 0)
    types = []
    while place < end:
        kind, place = _varint(record, place)
        types.append(kind)
    if len(types) != 4 or types[3] < 12 or types[3] % 2 or any(kind not in _INTEGERS for kind in types[:3]):
        return None
    length = (types[3] - 12) // 2
    third = end + _INTEGERS[types[0]] + _INTEGERS[types[1]]
    start = third + _INTEGERS[types[2]]
    if start + length != len(record):
        return None
    number = 1 if types[2] == 9 else int.from_bytes(record[third:start], "big", signed=True)
    return number, record[start:]


def _payload(pages: _Pages, page: bytes, at: int, size: int) -> bytes:
    """The bytes of a record, those that overflow to further pages included. Raises `IndexError` when some are gone."""
    usable = pages.size
    local = size
    if size > usable - 35:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= usable - 35 else least
    parts = [page[at : at + local]]
    left = size - len(parts[0])
    following = int.from_bytes(page[at + local : at + local + 4], "big") if left else 0
    while left > 0:
        more = pages.read(following)
        if len(more) < pages.size:
            raise IndexError(following)
        parts.append(more[4 : 4 + left])
        left -= len(parts[-1])
        following = int.from_bytes(more[:4], "big")
    return b"".join(parts)
