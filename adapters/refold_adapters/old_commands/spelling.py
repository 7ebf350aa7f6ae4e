"""The bytes of a folder as the older tool writes them: a data.csv of one row, and the meta.json that vouches for it.

Pure. Cells are quoted only where they have to be, quotes are doubled, lines end in LF; meta.json is JSON with an indent
of 2, its entries in the tool's own order. `exported_at` is when the row was last changed, so that a folder that has not
changed has the same bytes, whenever and wherever it is exported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from refold.schema import meta_field
from refold_adapters.adopting.layout import Described

_json = json.JSONEncoder().encode
_needs_quotes = re.compile(r'[",\r\n]').search


def cell_text(value: Any) -> str:
    """A cell of the table as text; null is nothing."""
    return "" if value is None else str(value)


def line(cells: Sequence[str]) -> str:
    """A line of CSV."""
    joined = ",".join(cells)
    if '"' not in joined and "\n" not in joined and "\r" not in joined and joined.count(",") == len(cells) - 1:
        return joined + "\n"
    return ",".join('"' + cell.replace('"', '""') + '"' if _needs_quotes(cell) else cell for cell in cells) + "\n"


def data_csv(columns: Sequence[str], row: Mapping[str, Any]) -> bytes:
    """A data.csv of one row; a column that the table does not have is empty."""
    return (line(columns) + line([cell_text(row.get(name)) for name in columns])).encode()


def entries(described: Described, row: Mapping[str, Any]) -> dict[str, Any]:
    """What meta.json says besides checksum, size and time: the version, and what the collection asks for."""
    meta = described.collection.meta
    told = {name: row.get(field) if (field := meta_field(text)) is not None else text for name, text in meta.items()}
    return {"schema_version": described.layout.versions[0], **told}


def meta_json(described: Described, row: Mapping[str, Any], data: bytes, now: str) -> bytes:
    """The meta.json of a data.csv; `now` is said where the row does not tell when it was changed."""
    layout = described.layout
    changed = next((row[name] for name in (layout.updated, layout.created) if name is not None and row.get(name)), now)
    told = entries(described, row)
    first = {"schema_version": told.pop("schema_version"), "checksum": sha256(data).hexdigest(), "exported_at": changed}
    said = {**first, **told, "file_size": len(data)}.items()
    return ("{\n" + ",\n".join(f"  {_json(name)}: {_json(value)}" for name, value in said) + "\n}").encode()


def vouches(meta: bytes | None, described: Described, row: Mapping[str, Any], data: bytes) -> bool:
    """Whether a meta.json says of a data.csv what it should, whenever that was written."""
    if meta is None:
        return False
    try:
        told = json.loads(meta)
    except (ValueError, RecursionError):
        return False
    wanted = {**entries(described, row), "checksum": sha256(data).hexdigest(), "file_size": len(data)}
    return isinstance(told, dict) and all(told.get(name) == value for name, value in wanted.items())
