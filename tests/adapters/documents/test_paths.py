"""Paths of documents lead nowhere but below the root, and nothing that stands there can hold a reader up."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from refold_adapters.documents import paths
from refold_adapters.documents.paths import Absent, Below, stat_of

from .world import digest, write


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Below]:
    root = tmp_path / "root"
    write(root, "a/b.pdf", b"bytes")
    below = Below(root)
    yield below
    below.close()


def kind(below: Below, path: str) -> str:
    with pytest.raises(Absent) as looked:
        below.look(path)
    with pytest.raises(Absent) as read:
        below.hash(path)
    assert looked.value.kind == read.value.kind
    assert looked.value.detail
    return read.value.kind


def test_a_document_is_read(below: Below) -> None:
    assert below.hash("a/b.pdf") == (stat_of(os.stat(below.root / "a/b.pdf")), digest(b"bytes"))
    assert below.look("a/b.pdf") == below.hash("a/b.pdf")[0]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside", "a/../../outside", "a//b.pdf", "./a/b.pdf", "a/b.pdf/", "", ".", "a/\0"]
)
def test_a_path_that_leads_elsewhere_is_refused(below: Below, path: str) -> None:
    write(below.root.parent, "outside", b"secret")
    assert kind(below, path) == "document-outside"


def test_links_are_not_followed_whole_or_in_part(below: Below) -> None:
    write(below.root.parent, "outside/x.pdf", b"secret")
    for name, target in {
        "file": "../outside/x.pdf",
        "inside": "a/b.pdf",
        "folder": "../outside",
        "loop": "loop",
        "self": ".",
    }.items():
        (below.root / name).symlink_to(target)
    for path in ("file", "inside", "folder/x.pdf", "loop", "loop/x.pdf", "self/a/b.pdf", "self/self/a/b.pdf"):
        assert kind(below, path) == "document-outside"


def test_what_is_no_file_never_holds_a_reader_up(below: Below, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(below.root / "fifo")
    monkeypatch.chdir(below.root)  # the path of a socket may have a hundred bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        for path in ("fifo", "socket", "a"):
            assert kind(below, path) == "document-unreadable"


def test_a_fifo_that_takes_the_place_of_a_file_does_not_hold_a_reader_up(
    below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = Below._regular

    def swapped(self: Below, folder: int, name: str) -> Any:
        found = regular(self, folder, name)
        os.unlink(below.root / "a/b.pdf")
        os.mkfifo(below.root / "a/b.pdf")
        return found

    monkeypatch.setattr(Below, "_regular", swapped)
    with pytest.raises(Absent) as absent:
        below.hash("a/b.pdf")
    assert absent.value.kind == "document-unreadable"


@pytest.mark.parametrize("path", ["no", "a/no", "no/no", "a/b.pdf/no", "a" * 300, "/".join("a" * 2000)])
def test_what_is_not_there_is_missing(below: Below, path: str) -> None:
    assert kind(below, path) == "document-missing"


def failing(number: int, at: str) -> Callable[..., Any]:
    real = getattr(os, at)

    def call(*arguments: Any, **options: Any) -> Any:
        if arguments[0] == "b.pdf" or at == "read":
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    return call


@pytest.mark.parametrize(
    ("at", "number"), [("open", errno.EACCES), ("read", errno.EIO), ("stat", errno.ESTALE), ("open", errno.ENOTCONN)]
)
def test_what_cannot_be_read_is_not_missing(
    below: Below, monkeypatch: pytest.MonkeyPatch, at: str, number: int
) -> None:
    monkeypatch.setattr(os, at, failing(number, at))
    with pytest.raises(Absent) as absent:
        below.hash("a/b.pdf")
    assert (absent.value.kind, absent.value.detail) == ("document-unreadable", os.strerror(number))


def test_a_document_that_changes_while_it_is_read_is_read_again(below: Below, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CHUNK", 2)
    path, changes = below.root / "a/b.pdf", [b"longer than it was", b"shorter"]

    def change() -> None:
        if changes:
            path.write_bytes(changes.pop(0))

    assert below.hash("a/b.pdf", change)[1] == digest(b"shorter")


def test_a_document_that_never_rests_is_told(below: Below) -> None:
    path, count = below.root / "a/b.pdf", iter(range(100))

    def stir() -> None:
        write(below.root, "a/b.pdf", b"bytes", next(count))

    with pytest.raises(Absent) as absent:
        below.hash("a/b.pdf", stir)
    assert absent.value.kind == "document-unsettled"
    assert path.read_bytes() == b"bytes"
