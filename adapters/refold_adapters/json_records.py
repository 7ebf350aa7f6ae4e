"""JSON Lines and JSON arrays as a stream of records: one value in memory at a time, each character looked at once.

An array is cut into its values without parsing them: outside strings only brackets count, and a comma at depth one ends
a value (RFC 8259). So a value that is malformed makes its own row bad and no other, as long as its brackets and quotes
are in pairs. Values are then read by a parser that refuses what it could not hand on exactly: NaN, infinity, and an
object in which a name stands twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

RECORD_LIMIT = 64 * 1024 * 1024

_outside = re.compile(r'["\[\]{},]').search
_inside = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL).match
_blank = " \t\r\n"


class Value(NamedTuple):
    """The text of one value, its number from 1, and the line it starts on; `text` is None when it is too long."""

    number: int
    line: int
    text: str | None


class Malformed(ValueError):
    """The text is no JSON Lines or no array; the message says where."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in an object")
    return found


_decode = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object).decode


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class LineSplitter:
    """The values of JSON Lines; blank lines are passed over."""

    def __init__(self, limit: int = RECORD_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._size = 0
        self._line = 1
        self._number = 0

    def feed(self, chunk: str) -> Iterator[Value]:
        """The values whose line ends in this chunk."""
        *ended, rest = chunk.split("\n")
        for text in ended:
            self._keep(text)
            yield from self._end()
            self._line += 1
        self._keep(rest)

    def close(self) -> Iterator[Value]:
        """The last value, when no line end follows it."""
        yield from self._end()

    def _keep(self, text: str) -> None:
        self._size += len(text)
        if self._size <= self._limit:
            self._pieces.append(text)
        else:
            self._pieces.clear()

    def _end(self) -> Iterator[Value]:
        text = "".join(self._pieces) if self._size <= self._limit else None
        self._pieces.clear()
        self._size = 0
        if text is None or text.strip(_blank):
            self._number += 1
            yield Value(self._number, self._line, text)


class ArraySplitter:
    """The values of one JSON array."""

    def __init__(self, limit: int = RECORD_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._size = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._done = False
        self._line = 1
        self._start = 1
        self._number = 0

    def feed(self, chunk: str) -> Iterator[Value]:
        """The values that end in this chunk. Raises `Malformed` where there is no array, or something after it."""
        position = 0
        while position < len(chunk):
            if self._in_string:
                position = self._string(chunk, position)
                continue
            found = _outside(chunk, position)
            end = found.start() if found else len(chunk)
            self._keep(chunk[position:end])
            position = end
            if found:
                position += 1
                yield from self._sign(found[0])

    def close(self) -> None:
        """Raises `Malformed` when the array has not ended."""
        if not self._done:
            raise Malformed(f"line {self._line}: the array has no end; the file may have been cut off")

    def _string(self, chunk: str, position: int) -> int:
        if self._escaped:
            self._keep(chunk[position])
            self._escaped = False
            return position + 1
        found = _inside(chunk, position)
        assert found
        self._keep(found[0])
        position = found.end()
        if position < len(chunk):
            self._escaped = chunk[position] == "\\"
            self._in_string = self._escaped
            self._keep(chunk[position])
            position += 1
        return position

    def _sign(self, sign: str) -> Iterator[Value]:
        if self._depth == 0:
            if sign != "[" or self._done:
                raise Malformed(f"line {self._line}: one JSON array is expected, and {sign} stands outside it")
            self._depth = 1
            return
        if self._depth == 1 and sign == "}":
            raise Malformed(f"line {self._line}: }} closes nothing")
        if self._depth == 1 and sign in ",]":
            yield from self._end(last=sign == "]")
            if sign != ",":
                self._depth, self._done = 0, True
            return
        self._depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign, 0)
        self._in_string = sign == '"'
        self._keep(sign)

    def _end(self, *, last: bool) -> Iterator[Value]:
        text = "".join(self._pieces) if self._size <= self._limit else None
        self._pieces.clear()
        self._size = 0
        if text is not None and not text.strip(_blank) and last and self._number == 0:
            return
        self._number += 1
        yield Value(self._number, self._start, text)

    def _keep(self, text: str) -> None:
        if self._depth == 0:
            if text.strip(_blank):
                raise Malformed(f"line {self._line}: one JSON array is expected, and there is text outside it")
        else:
            if not self._size:
                bare = text.lstrip(_blank)
                self._line += text.count("\n", 0, len(text) - len(bare))
                self._start = self._line
                text = bare
            self._size += len(text)
            if self._size <= self._limit:
                self._pieces.append(text)
            else:
                self._pieces.clear()
        self._line += text.count("\n")
