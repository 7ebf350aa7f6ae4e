"""Field types: what a value may be, how the log holds it, and how text files spell it.

The log holds JSON types alone, so an event reads the same as msgpack and as a line of JSON, whatever the schema says.
A field type is four plain functions between three spellings of one value:

| spelling | where | a date, for example |
| --- | --- | --- |
| Python | what callers pass and get | `datetime.date(2024, 7, 29)` |
| stored | in events and in the state | `"2024-07-29"` |
| text | in CSV cells | `2024-07-29` |

`store` takes Python or stored values and returns the stored one, or raises `Refused` when it cannot be held exactly:
that is the only gate, and every function behind it may trust what passed. Texts are RFC 3339 dates and times, the
shortest decimal that reads back as the same double, base64 (RFC 4648) for bytes, and JSON (RFC 8259).
"""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, NamedTuple

import msgspec

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
DEPTH = 100
"""How deep json values may nest: little enough for any reader, however deep in calls it stands itself."""

_EXACT_FLOAT = 2**53
_FINER = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
_json = msgspec.json.Encoder(order="deterministic")


class Refused(ValueError):
    """The value cannot be held exactly; the text says why."""


class FieldType(NamedTuple):
    """One type of field, as functions between the spellings of its values."""

    name: str
    store: Callable[[Any], Any]
    load: Callable[[Any], Any]
    parse: Callable[[str], Any]
    text: Callable[[Any], str]


def show(value: object, limit: int = 80) -> str:
    """A value as an error message shows it, cut to `limit` characters."""
    try:
        text = ascii(value) if isinstance(value, str) else str(value)
    except (RecursionError, ValueError):
        text = f"{type(value).__name__} too large to show"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def _text(value: Any) -> str:
    if type(value) is not str:
        if isinstance(value, Enum) and isinstance(value.value, str):
            return _text(value.value)
        raise Refused(f"text is expected, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refused(f"a lone surrogate at character {error.start} is not text") from None
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise Refused(f"a whole number is expected, not {type(value).__name__}")
    if not INT_MIN <= value <= INT_MAX:
        raise Refused("a whole number must fit in 64 bits")
    return value


def _float(value: Any) -> float:
    if type(value) is int:
        if not -_EXACT_FLOAT <= value <= _EXACT_FLOAT:
            raise Refused("a whole number beyond 2**53 is not exact as a float")
        return float(value)
    if type(value) is not float:
        raise Refused(f"a number is expected, not {type(value).__name__}")
    if not math.isfinite(value):
        raise Refused("NaN and infinity are not numbers that can be compared or exchanged")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Refused(f"true or false is expected, not {type(value).__name__}")
    return value


def _date(value: Any) -> str:
    if type(value) is date:
        return value.isoformat()
    if type(value) is not str:
        raise Refused(f"a date is expected, not {type(value).__name__}")
    try:
        good = len(value) == 10 and date.fromisoformat(value).isoformat() == value
    except ValueError:
        good = False
    if not good:
        raise Refused("a date is spelt YYYY-MM-DD")
    return value


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise Refused("a time needs a zone: 2024-07-29T10:00:00Z")
    try:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise Refused("a time must lie in the years 1 to 9999 of UTC") from None


def _datetime(value: Any) -> str:
    if isinstance(value, datetime):
        return _instant(value)
    if type(value) is not str:
        raise Refused(f"a time is expected, not {type(value).__name__}")
    if len(value) < 17:
        raise Refused("a time is spelt 2024-07-29T10:00:00Z")
    if _FINER.search(value):
        raise Refused("a time is exact to the microsecond")
    try:
        return _instant(datetime.fromisoformat(value))
    except Refused:
        raise
    except ValueError:
        raise Refused("a time is spelt 2024-07-29T10:00:00Z") from None


def _decimal(value: Any) -> str:
    if type(value) is int:
        value = Decimal(value)
    if type(value) is str:
        if not value.isascii() or "_" in value or value != value.strip():
            raise Refused("a decimal is spelt like 12.50")
        try:
            value = Decimal(value)
        except InvalidOperation:
            raise Refused("a decimal is spelt like 12.50") from None
    if type(value) is not Decimal:
        raise Refused(f"a decimal is expected, not {type(value).__name__}")
    if not value.is_finite():
        raise Refused("NaN and infinity are not numbers that can be compared or exchanged")
    return str(value)


def _bytes(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode()
    if type(value) is not str:
        raise Refused(f"bytes are expected, not {type(value).__name__}")
    try:
        if b64encode(b64decode(value, validate=True)).decode() == value:
            return value
    except (binascii.Error, ValueError):
        pass
    raise Refused("bytes as text are spelt in base64")


def _plain(value: Any, where: str = "", depth: int = 0) -> Any:
    if value is None or type(value) is bool:
        return value
    try:
        if type(value) is str:
            return _text(value)
        if type(value) is int:
            return _integer(value)
        if type(value) is float:
            return _float(value)
    except Refused as error:
        raise Refused(f"{where or 'value'}: {error}") from None
    if depth >= DEPTH:
        raise Refused("nested too deeply")
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                raise Refused(f"{where or 'value'}: keys are text, not {type(key).__name__}")
            _plain(key, f"{where} key")
        return {key: _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value), where, depth)
    raise Refused(f"{where or 'value'}: {type(value).__name__} is not exact inside a json field")


def _parse_int(text: str) -> int:
    digits = text[1:] if text[:1] in {"-", "+"} else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 40:
        raise Refused("a whole number is expected")
    return _integer(int(text))


def _parse_float(text: str) -> float:
    try:
        if not text.isascii() or "_" in text or text != text.strip():
            raise ValueError
        return _float(float(text))
    except Refused:
        raise
    except ValueError:
        raise Refused("a number is expected") from None


_BOOLS = {"true": True, "false": False, "1": True, "0": False}


def _parse_bool(text: str) -> bool:
    try:
        return _BOOLS[text.lower()]
    except KeyError:
        raise Refused("true or false is expected") from None


def _parse_json(text: str) -> Any:
    try:
        return _plain(msgspec.json.decode(text))
    except msgspec.DecodeError as error:
        raise Refused(f"JSON is expected: {error}") from None
    except (UnicodeError, RecursionError):
        raise Refused("JSON is expected") from None


def _write_json(value: Any) -> str:
    return _json.encode(value).decode()


def _same(value: Any) -> Any:
    return value


TYPES: dict[str, FieldType] = {
    kind.name: kind
    for kind in (
        FieldType("str", _text, _same, _text, _same),
        FieldType("int", _integer, _same, _parse_int, str),
        FieldType("float", _float, _same, _parse_float, _write_json),
        FieldType("bool", _bool, _same, _parse_bool, lambda value: "true" if value else "false"),
        FieldType("date", _date, date.fromisoformat, _date, _same),
        FieldType("datetime", _datetime, datetime.fromisoformat, _datetime, _same),
        FieldType("decimal", _decimal, Decimal, _decimal, _same),
        FieldType("bytes", _bytes, b64decode, _bytes, _same),
        FieldType("json", _plain, _same, _parse_json, _write_json),
    )
}
"""Every field type by the name that definitions use."""
