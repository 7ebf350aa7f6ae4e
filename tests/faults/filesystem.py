"""A file system that loses its power: what can be on the disk after any prefix of a trace.

The trace is replayed on objects (files and directories) instead of paths. A change of a file's bytes is durable once
the file was synced after it, a change of a directory once the directory was, and everything once the whole file system
was. Of the changes that are not durable, any may be there, be missing, or, for a write, be there in part. Two models:

`free`: every name and every write is for itself. That is what POSIX leaves open, and what some file system or other
does; after Pillai et al., "All File Systems Are Not Created Equal: On the Complexity of Crafting Crash-Consistent
Applications" (ALICE), OSDI 2014, and after SQLite's own crash test, where an unsynced write is applied, dropped or
trashed.

`ordered`: names and sizes change in the order in which they were asked for, as in a journal, and a sync of any file
takes along all names before it; bytes that are not synced may be missing all the same. That is ext4 as it is mounted
by default (data=ordered).
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from .shim import Call

Model = Literal["free", "ordered"]
SECTOR = 512
_RECORD = struct.Struct("<QQQIIII")


class Recorded(msgspec.Struct, frozen=True):
    """One call of the trace, as the shim wrote it down."""

    call: Call
    inode: int
    offset: int
    data: bytes
    name: str
    other: str


def read_trace(text: bytes) -> Iterator[Recorded]:
    """The calls of a trace, in order."""
    at = 0
    while at < len(text):
        inode, _, offset, call, size, length, second = _RECORD.unpack_from(text, at)
        at += _RECORD.size
        name = text[at : at + length].decode()
        other = text[at + length : at + length + second].decode()
        at += length + second
        data = text[at : at + size] if call == Call.WRITE else b""
        at += size if call == Call.WRITE else 0
        yield Recorded(Call(call), inode, offset, data, name, other)


class Node(msgspec.Struct, eq=False):
    """A file or a directory as it was before the trace: its bytes, or its entries by name."""

    is_directory: bool
    data: bytes = b""
    entries: dict[str, Node] = {}


class Change(msgspec.Struct, eq=False):
    """What one call does: bytes of `node`, or entries of directories, None where a name is taken away."""

    node: Node
    kind: Literal["write", "size", "names"]
    offset: int = 0
    data: bytes = b""
    names: list[tuple[Node, str, Node | None]] = []
    durable: dict[str, int] = {}


class Mark(msgspec.Struct, eq=False):
    """What the process said."""

    text: str


class Disk:
    """A trace, replayed on what stood there before it."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._nodes: dict[int, Node] = {}
        self.before = self._scan(root)
        self._live: dict[int, dict[str, Node]] = {}
        self.steps: list[Change | Mark] = []
        self._changes: list[Change] = []

    def _scan(self, path: Path) -> Node:
        if path.is_dir():
            entries = {entry.name: self._scan(entry) for entry in sorted(path.iterdir())}
            node = Node(True, entries=entries)
        else:
            node = Node(False, path.read_bytes())
        self._nodes[path.stat().st_ino] = node
        return node

    def _entries(self, node: Node) -> dict[str, Node]:
        return self._live.setdefault(id(node), dict(node.entries))

    def _find(self, path: str) -> tuple[Node, str]:
        """The directory in which a name stands at this point of the trace."""
        node = self.before
        *above, name = path.removeprefix(self.root).strip("/").split("/")
        for part in above:
            node = self._entries(node)[part]
        return node, name

    def replay(self, calls: Sequence[Recorded]) -> None:
        """Takes in a trace."""
        for number, call in enumerate(calls):
            if call.call is Call.MARK:
                self.steps.append(Mark(call.name))
            elif call.call in {Call.FSYNC, Call.SYNCFS}:
                self._sync(call, number)
            else:
                change = self._change(call)
                self.steps.append(change)
                self._changes.append(change)

    def _change(self, call: Recorded) -> Change:
        if call.call is Call.WRITE:
            return Change(self._nodes[call.inode], "write", call.offset, call.data)
        if call.call is Call.TRUNCATE:
            return Change(self._nodes[call.inode], "size", call.offset)
        directory, name = self._find(call.name)
        names: list[tuple[Node, str, Node | None]] = []
        if call.call in {Call.OPEN, Call.MKDIR}:
            node = self._nodes[call.inode] = Node(call.call is Call.MKDIR)
            names = [(directory, name, node)]
        elif call.call in {Call.UNLINK, Call.RMDIR}:
            names = [(directory, name, None)]
        else:
            target, other = self._find(call.other)
            moved = self._entries(directory)[name]
            names = [(target, other, moved)]
            if call.call is Call.RENAME:
                names.insert(0, (directory, name, None))
        for place, one, found in names:
            if found is None:
                self._entries(place).pop(one)
            else:
                self._entries(place)[one] = found
        return Change(names[-1][0], "names", names=names)

    def _sync(self, call: Recorded, number: int) -> None:
        """Notes from which step on earlier changes are durable, in each model."""
        at = len(self.steps)
        node = self._nodes.get(call.inode)
        for change in self._changes:
            mine = call.call is Call.SYNCFS or change.node is node
            if mine:
                change.durable.setdefault("free", at)
            if mine or change.kind == "names":
                change.durable.setdefault("ordered", at)

    def crash(self, step: int, model: Model, draw: random.Random, keep: float) -> Node:
        """What is on the disk when the power fails before `step`; unsynced changes are kept with this likelihood."""
        done = [change for change in self.steps[:step] if isinstance(change, Change)]
        names = [change for change in done if change.kind == "names"]
        last = max((index for index, change in enumerate(names) if _durable(change, model, step)), default=-1)
        until = last + 1
        while until < len(names) and draw.random() < keep:
            until += 1
        in_order = {id(change) for change in names[:until]}
        after = _Disk()
        for change in done:
            sure = _durable(change, model, step)
            if model == "ordered" and change.kind == "names":
                sure = id(change) in in_order
                chance = 0.0
            else:
                chance = keep
            if sure or draw.random() < chance:
                after.apply(change, len(change.data))
            elif change.kind == "write" and keep and draw.random() < 0.3:
                after.apply(change, draw.randrange(0, len(change.data) + 1, SECTOR))
        return after.tree(self.before)


def _durable(change: Change, model: Model, step: int) -> bool:
    return change.durable.get(model, step + 1) <= step


class _Disk:
    """What has reached the disk."""

    def __init__(self) -> None:
        self._data: dict[int, bytearray] = {}
        self._entries: dict[int, dict[str, Node]] = {}

    def apply(self, change: Change, size: int) -> None:
        if change.kind == "names":
            for place, name, node in change.names:
                entries = self._entries.setdefault(id(place), dict(place.entries))
                if node is None:
                    entries.pop(name, None)
                else:
                    entries[name] = node
            return
        data = self._data.setdefault(id(change.node), bytearray(change.node.data))
        end = change.offset + size
        if change.kind == "size":
            del data[change.offset :]
            end = change.offset
        if size or change.kind == "size":
            data.extend(bytes(max(0, end - len(data))))
        if change.kind == "write" and size:
            data[change.offset : end] = change.data[:size]

    def tree(self, node: Node) -> Node:
        """The tree as it is now, free of the trace."""
        if not node.is_directory:
            return Node(False, bytes(self._data.get(id(node), node.data)))
        entries = self._entries.get(id(node), node.entries)
        return Node(True, entries={name: self.tree(child) for name, child in entries.items()})


def write_tree(node: Node, path: Path) -> None:
    """Makes a tree in a real directory."""
    if node.is_directory:
        os.mkdir(path)
        for name, child in node.entries.items():
            write_tree(child, path / name)
    else:
        path.write_bytes(node.data)


def fingerprint(node: Node) -> int:
    """A number that equal trees share."""
    if not node.is_directory:
        return hash(node.data)
    return hash(tuple(sorted((name, fingerprint(child)) for name, child in node.entries.items())))
