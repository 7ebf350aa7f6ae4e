"""Every file below the archive's root that may be a document, in no order, and without following a link.

Left out are refold's own files, names that start with a dot, the quarantine, and directories that are archives of their
own. What is neither a file nor a folder is told as well, since a record may point to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from refold_adapters.folders.disk import EDITED, INDEX, QUARANTINE

from .own import OwnFiles
from .paths import stat_of

_PAGE = 1000


class Odd(NamedTuple):
    """A path, as the file system's bytes, at which no file stands that could be looked at, and why."""

    path: bytes
    detail: str
    unreadable: bool = False


class Walked(NamedTuple):
    """Some of what there is: files, each with its path and how it stands in one tuple, and what is none."""

    files: list[tuple[bytes, int, int, int]]
    odd: list[Odd]


def walk(root: Path) -> Iterator[Walked]:
    """Everything there is, some at a time. Raises what reading the settings does."""
    own = OwnFiles(root)
    page = Walked([], [])
    places = [""]
    while places:
        place = places.pop()
        _folder(f"{root}/{place}", own, f"{place}/" if place else "", places, page)
        if len(page.files) + len(page.odd) >= _PAGE:
            yield page
            page = Walked([], [])
    yield page


def _folder(folder: str, own: OwnFiles, lead: str, places: list[str], page: Walked) -> None:
    """Adds what stands in one folder to the page, and the folders below it to the places."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError as error:
        page.odd.append(Odd(os.fsencode(lead[:-1]), error.strerror or str(error), unreadable=True))
        return
    names = {entry.name for entry in entries}
    if lead and INDEX in names:
        return
    others = own.others(names, at_root=not lead)
    for entry in entries:
        name = entry.name
        if name not in others or name[0] == "." or EDITED in name:
            continue
        if entry.is_dir(follow_symlinks=False):
            if lead or name != QUARANTINE:
                places.append(lead + name)
        elif entry.is_file(follow_symlinks=False):
            try:
                stat = stat_of(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            except OSError as error:
                page.odd.append(Odd(os.fsencode(lead + name), error.strerror or str(error), unreadable=True))
            else:
                page.files.append((os.fsencode(lead + name), *stat))
        else:
            what = "a symbolic link, and links are not followed" if entry.is_symlink() else "no regular file"
            page.odd.append(Odd(os.fsencode(lead + name), f"it is {what}"))
