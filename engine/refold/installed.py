"""What is installed for a URL: stores and peers are found among the entry points of a group, by the URL's scheme."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from .errors import SchemeUnknown


def installed(group: str, url: str) -> Any:
    """What the installed packages offer for a URL, or for a path, whose scheme is `file`. Raises `SchemeUnknown`."""
    scheme = url.partition("://")[0] if "://" in url else "file"
    found = {point.name: point for point in entry_points(group=group)}
    if scheme not in found:
        raise SchemeUnknown(url, sorted(found))
    return found[scheme].load()
