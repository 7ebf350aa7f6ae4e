"""Receipts: what an archive was made of, on one page that proves itself, and the proof of an archive against one.

A receipt is canonical JSON, keys sorted and no blanks, then a line end; its `hash` is the SHA-256 of that JSON without
it. Whoever keeps the hash elsewhere can tell that the receipt is the one that was given.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from refold.clock import format_time, from_millis
from refold.errors import RefoldError
from refold_adapters.settings import FILE

from .report import RestoreReport

NAME = "refold-receipt"
FORMAT = 1
_LIMIT = 64 << 20
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(eq=False)
class ReceiptRefused(RefoldError):
    """A file that is no receipt, or not the one that was given: nothing can be verified against it."""

    code: ClassVar[str] = "receipt-refused"
    message: ClassVar[str] = "{path}: could not verify: {why}"
    hint: ClassVar[str] = "take the receipt as it was written; another copy of it may be whole"
    path: str
    why: str


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands on a receipt. `heads` are those of the events that were brought back, by replica, in hexadecimal;
    `digest` is of their state, `digest_after` counts in the event that records the making, which `replica` wrote."""

    format: int
    made: str
    origin: str
    replica: str
    events: int
    vector: dict[str, int]
    heads: dict[str, str]
    digest: str
    digest_after: str
    at: str | None
    sources: list[dict[str, Any]]
    missing: list[str]
    missing_count: int
    left_out: int
    settings: str | None
    hash: str = ""


def receipt_of(report: RestoreReport, millis: int, settings: bytes | None) -> Receipt:
    """The receipt of what a report tells, made at a time in Unix milliseconds, with these bytes of refold.toml."""
    unsigned = Receipt(
        format=FORMAT,
        made=format_time(from_millis(millis)),
        origin=report.origin,
        replica=report.replica,
        events=report.events,
        vector=report.vector,
        heads=report.heads,
        digest=report.digest,
        digest_after=report.digest_after,
        at=report.at,
        settings=sha256(settings).hexdigest() if settings is not None else None,
        **report.told(),
    )
    return msgspec.structs.replace(unsigned, hash=sha256(_unsigned(unsigned)).hexdigest())


def _unsigned(receipt: Receipt) -> bytes:
    return _encode({name: value for name, value in msgspec.structs.asdict(receipt).items() if name != "hash"})


def write_receipt(place: Path, report: RestoreReport, millis: int) -> None:
    """Writes the receipt of an archive into it, durable on return, under a name that is free. Raises `OSError`."""
    settings = (place / FILE).read_bytes() if (place / FILE).is_file() else None
    receipt = receipt_of(report, millis, settings)
    number, path = 1, place / f"{NAME}.json"
    while path.exists():
        number += 1
        path = place / f"{NAME}-{number}.json"
    with path.open("wb") as file:
        file.write(_encode(receipt) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    report.receipt, report.receipt_hash = path.name, receipt.hash


def read_receipt(path: Path) -> Receipt:
    """The receipt in a file. Raises `ReceiptRefused`."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT)
        receipt = msgspec.json.decode(data, type=Receipt)
    except OSError as error:
        raise ReceiptRefused(str(path), str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReceiptRefused(str(path), f"it is no receipt: {error}") from error
    if receipt.format != FORMAT:
        raise ReceiptRefused(str(path), f"it has format {receipt.format}, this release knows {FORMAT}")
    if data != _encode(receipt) + b"\n" or receipt.hash != sha256(_unsigned(receipt)).hexdigest():
        raise ReceiptRefused(str(path), "its hash is not that of its content: it was altered")
    return receipt
