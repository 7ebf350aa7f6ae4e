"""A process that looks at records, each for a limited time: `python -m refold_adapters.validating.worker`.

It is told a definition and a limit, then rows, and answers what is wrong with each. Matching a pattern can take longer
than the sun will shine. Python's matcher looks for signals as it goes, so an alarm ends it; that record has its error,
and the next one is looked at. Whoever started the process kills it when even that does not help.

Messages are a length (4 bytes, big-endian) and a pickle, between two processes of one program and one user.
"""

from __future__ import annotations

import pickle
import signal
import struct
import sys
from typing import Any, BinaryIO

from refold.schema import Schema, from_data

from .checks import FieldError, Row, errors_of

LENGTH = struct.Struct(">I")


class TimeIsUp(Exception):
    """A record has been looked at for as long as it may."""


def packed(message: Any) -> bytes:
    """A message as it goes through the pipe."""
    body = pickle.dumps(message, protocol=5)
    return LENGTH.pack(len(body)) + body


def _receive(stream: BinaryIO) -> Any:
    head = stream.read(LENGTH.size)
    return pickle.loads(stream.read(LENGTH.unpack(head)[0])) if len(head) == LENGTH.size else None


def out_of_time(limit: float) -> FieldError:
    """What is said of a record that took too long."""
    return FieldError(None, "time-limit", f"it was looked at for {limit:g} s, and given up")


def _limited(schema: Schema, row: Row, limit: float) -> list[FieldError]:
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            return errors_of(schema, row)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeIsUp:
        return [out_of_time(limit)]


def _time_is_up(*_: Any) -> None:
    raise TimeIsUp


def main() -> None:
    """Answers until the other side closes."""
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    name, data, limit = _receive(incoming)
    schema = Schema(from_data(name, data))
    while (rows := _receive(incoming)) is not None:
        outgoing.write(packed([_limited(schema, row, limit) for row in rows]))
        outgoing.flush()


if __name__ == "__main__":
    main()
