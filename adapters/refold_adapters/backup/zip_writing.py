"""Writing the zip: entries packed one after the other into something that only takes bytes, and hashed on the way."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from hashlib import sha256
from typing import IO, Any, Literal, Self, cast

from refold.errors import ExtraMissing

from .encryption import Out
from .manifest import Entry

Compression = Literal["deflate", "zstd"]
LEVEL = 6
_MODE = 0o100644 << 16
_ZSTD_METHOD = 93


class ZipWriting:
    """A zip in the making; `entries` is what it holds so far. Raises `ExtraMissing` where zstd is not installed."""

    def __init__(self, out: Out, compression: Compression, created: str) -> None:
        self._date = _date(created)
        self._kind = zipfile.ZIP_DEFLATED if compression == "deflate" else _ZSTD_METHOD
        self._module: Any = zipfile if compression == "deflate" else zstd_zipfile()
        self._zip = self._module.ZipFile(cast(IO[bytes], out), "w", self._kind, compresslevel=LEVEL)
        self.entries: list[Entry] = []

    def add(self, name: str, pieces: Iterable[bytes], *, listed: bool = True) -> Entry:
        """One entry, and what it came to be."""
        info = self._module.ZipInfo(name, self._date)
        info.compress_type = self._kind
        info.external_attr = _MODE
        level = "compress_level" if hasattr(info, "compress_level") else "_compresslevel"
        setattr(info, level, LEVEL)
        found, size = sha256(), 0
        with self._zip.open(info, "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece)
                found.update(piece)
                size += len(piece)
        entry = Entry(name, size, found.hexdigest())
        if listed:
            self.entries.append(entry)
        return entry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Writes the directory, unless there was an error: then nothing more is written, also not by the collector."""
        if kind is not None:
            self._zip.fp = None
        self._zip.close()


def _date(created: str) -> tuple[int, int, int, int, int, int]:
    """A time as a zip tells it: no earlier than 1980, no later than 2107."""
    year, month, day = (int(part) for part in created[:10].split("-"))
    hour, minute, second = (int(part) for part in created[11:19].split(":"))
    if not 1980 <= year <= 2107:
        return 1980, 1, 1, 0, 0, 0
    return year, month, day, hour, minute, second


def zstd_zipfile() -> Any:
    """The standard library's zipfile where it knows zstd, or its backport. Raises `ExtraMissing`."""
    if hasattr(zipfile, "ZIP_ZSTANDARD"):
        return zipfile
    try:
        from backports.zstd import zipfile as backported
    except ImportError:
        raise ExtraMissing("backports.zstd", "zstd") from None
    return backported
