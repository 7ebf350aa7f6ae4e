r"""The log file of scheduled runs: a line for each thing that happened, made for grep, alerts and logrotate.

    TIME LEVEL COMMAND KIND name=value …

TIME is RFC 3339 in UTC with milliseconds, LEVEL one of INFO, WARNING and ERROR, COMMAND the command, KIND one word for
what happened. A value with anything but letters, digits and `. _ : / + -` in it is a JSON string, so a line is a line
whatever stands in a record. Each is written by one call to a file that is only ever added to, so several runs may share
a file, and one that was rotated away is never written over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from refold.clock import format_time, from_millis
from refold.errors import StorageFailed

_is_bare = re.compile(r"[A-Za-z0-9._:/+-]+").fullmatch
_encode = msgspec.json.Encoder().encode


def log_line(millis: int, level: str, command: str, kind: str, pairs: dict[str, object]) -> str:
    """One line, with its end. Values that are None are left out."""
    told = "".join(f" {name}={_spelt(value)}" for name, value in pairs.items() if value is not None)
    return f"{format_time(from_millis(millis))} {level} {command} {kind}{told}\n"


def _spelt(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _is_bare(text):
        return text
    return _encode(text.encode("utf-8", "backslashreplace").decode()).decode().replace("\x7f", "\\u007f")


class RunLog:
    """A log file while one run lasts, or none where there is no path. `failed` is the first error of writing it."""

    def __init__(self, path: Path | None, command: str, clock: Callable[[], int]) -> None:
        self._command = command
        self._clock = clock
        self._path = path
        self._descriptor = -1
        self.failed: StorageFailed | None = None
        if path is not None:
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise StorageFailed(str(path), "opening the log file", str(error)) from error

    def __call__(self, level: str, kind: str, **pairs: object) -> None:
        """Adds a line. What cannot be written does not stop the run, and is told at its end by `failed`."""
        if self._descriptor < 0 or self.failed is not None:
            return
        line = log_line(self._clock(), level, self._command, kind, pairs).encode()
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            self.failed = StorageFailed(str(self._path), "writing the log file", str(error))

    def close(self) -> None:
        """Lets go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
