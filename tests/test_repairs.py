"""Damage is named, and the command that a finding names mends it: damage, verify, repair, verify, sound.

Every kind of file of an archive is flipped, cut, exchanged, doubled, removed, or replaced by an older valid copy. After
the repair the digest and every byte of the folders are what they were.
"""

import asyncio
import json
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import refold
from refold_adapters.cli.app import run

from .crash.work import PARTS, THINGS

WRITES = 12
FROM_FOLDERS = "refold restore --in-place --from folders"


async def write(root: Path, numbers: range, replica: str | None = None) -> None:
    """Writes some records."""
    async with refold.open(root, replica=replica) as engine:
        if not engine.schemas:
            await engine.define(THINGS)
            await engine.define(PARTS)
        for n in numbers:
            await engine.put("things", {"id": f"t{n}", "place": f"p{n % 3}", "note": f"note {n}", "n": n})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two definitions and twelve writes; `older` beside it is a copy from before the last three."""
    root = tmp_path_factory.mktemp("whole") / "archive"
    asyncio.run(write(root, range(WRITES - 3), "office"))
    shutil.copytree(root, root.with_name("older"))
    asyncio.run(write(root, range(WRITES - 3, WRITES)))
    return root


def alter(path: Path, *statements: str) -> None:
    """Changes a database as any program could."""
    connection = sqlite3.connect(path)
    with connection:
        for sql in statements:
            connection.execute(sql)
    connection.close()


def flip(root: Path, position: int, text: bytes) -> None:
    connection = sqlite3.connect(root / "changelog.db")
    (body,) = connection.execute("SELECT body FROM events WHERE position = ?", (position,)).fetchone()
    at = body.index(text) + len(text) - 1
    with connection:
        spoilt = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        connection.execute("UPDATE events SET body = ? WHERE position = ?", (spoilt, position))
    connection.close()


def fork(root: Path) -> None:
    """The log of a copy that went on by itself from before the last three writes."""
    other = root.with_name("copy")
    shutil.copytree(root.with_name("older"), other)
    asyncio.run(write(other, range(50, 55)))
    shutil.copy(other / "changelog.db", root / "changelog.db")


def swap(root: Path, one: str, other: str) -> None:
    a, b = (root / one).read_bytes(), (root / other).read_bytes()
    (root / one).write_bytes(b)
    (root / other).write_bytes(a)


def change(root: Path, name: str, how: Callable[[bytes], bytes]) -> None:
    (root / name).write_bytes(how((root / name).read_bytes()))


def swap_events(root: Path) -> None:
    for one, other in ((7, -1), (8, 7), (-1, 8)):
        alter(root / "changelog.db", f"UPDATE events SET position = {other} WHERE position = {one}")


def noise(root: Path, name: str) -> None:
    """Spoils the middle of a database, and leaves its header."""
    change(root, name, lambda data: data[:4096] + b"\xa5" * (len(data) - 4096))


def older(root: Path, *names: str) -> None:
    for name in names:
        shutil.copy(root.with_name("older") / name, root / name)


def fork_with_tables(root: Path) -> None:
    fork(root)
    shutil.copy(root.with_name("copy") / "tables.db", root)


def older_folder(root: Path) -> None:
    shutil.rmtree(root / "p1")
    shutil.copytree(root.with_name("older") / "p1", root / "p1")


class Damage(NamedTuple):
    """What is done to an archive, and what has to be said of it: the verdict, and fields of some finding."""

    name: str
    do: Callable[[Path], Any]
    verdict: str
    finding: dict[str, Any]


LOG = [
    Damage("bit of an event", lambda r: flip(r, 7, b"note 4"), "rot", {"replica": "office", "seq": 7, "position": 7}),
    Damage("bit of a seq", lambda r: flip(r, 7, b"office\x07"), "rot", {"position": 7}),
    Damage("bit of the last event", lambda r: flip(r, 14, b"note 11"), "rot", {"replica": "office", "seq": 14}),
    Damage("bit of a frame", lambda r: flip(r, 7, b"\x9e"), "rot", {"replica": "office", "seq": 7, "position": 7}),
    Damage(
        "last event no event",
        lambda r: alter(r / "changelog.db", "UPDATE events SET body = x'00' WHERE position = 14"),
        "rot",
        {"replica": "office", "seq": 14, "position": 14},
    ),
    Damage("events swapped", swap_events, "rot", {"replica": "office", "seq": 8, "position": 7}),
    Damage(
        "event removed",
        lambda r: alter(r / "changelog.db", "DELETE FROM events WHERE position = 7"),
        "rot",
        {"position": 8, "seq": 8},
    ),
    Damage(
        "last events removed",
        lambda r: alter(r / "changelog.db", "DELETE FROM events WHERE position > 12"),
        "cut-tail",
        {"kind": "log-cut", "replica": "office", "seq": 13},
    ),
    Damage(
        "seq beside an event",
        lambda r: alter(r / "changelog.db", "UPDATE events SET seq = 99 WHERE position = 7"),
        "rot",
        {"kind": "log-chain", "replica": "office", "file": "changelog.db"},
    ),
    Damage("older log", lambda r: older(r, "changelog.db"), "cut-tail", {"replica": "office", "seq": 12}),
    Damage("log of a copy", fork, "fork", {"kind": "log-fork", "replica": "office"}),
    Damage("log is noise", lambda r: noise(r, "changelog.db"), "rot", {"file": "changelog.db"}),
    Damage("log removed", lambda r: (r / "changelog.db").unlink(), "cut-tail", {"file": "changelog.db"}),
    Damage("log cut", lambda r: change(r, "changelog.db", lambda d: d[:8192]), "rot", {"file": "changelog.db"}),
    Damage(
        "log and tables of a copy",
        fork_with_tables,
        "fork",
        {"kind": "log-fork", "replica": "office"},
    ),
    Damage(
        "log, tables and index older",
        lambda r: older(r, "changelog.db", "tables.db", "folders.db"),
        "cut-tail",
        {"kind": "log-cut", "replica": "office", "seq": 12},
    ),
]
DERIVED = [
    Damage(
        "row of a table changed",
        lambda r: alter(r / "tables.db", "UPDATE things SET n = 1000 WHERE id = 't4'"),
        "altered",
        {"kind": "table-altered", "file": "tables.db", "collection": "things", "key": "t4"},
    ),
    Damage(
        "row of a table removed",
        lambda r: alter(r / "tables.db", "DELETE FROM things WHERE id = 't4'"),
        "altered",
        {"kind": "table-missing", "collection": "things", "key": "t4"},
    ),
    Damage("older tables", lambda r: older(r, "tables.db"), "torn-tail", {"kind": "tables-behind"}),
    Damage("tables are noise", lambda r: noise(r, "tables.db"), "altered", {"file": "tables.db"}),
    Damage("tables removed", lambda r: (r / "tables.db").unlink(), "unverified", {"file": "tables.db"}),
    Damage("index removed", lambda r: (r / "folders.db").unlink(), "unverified", {"file": "folders.db"}),
    Damage("index is noise", lambda r: noise(r, "folders.db"), "unverified", {"file": "folders.db"}),
]
FILES = [
    Damage(f"{name} {word}", how, "altered", {"folder": "p1/here", "file": name, "kind": kind})
    for name in ("data.csv", "meta.json", "events.jsonl")
    for word, how, kind in (
        (
            "flipped",
            lambda r, n=name: change(r, f"p1/here/{n}", lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:]),
            "folder-altered",
        ),
        ("cut", lambda r, n=name: change(r, f"p1/here/{n}", lambda d: d[: len(d) // 2]), "folder-altered"),
        ("empty", lambda r, n=name: change(r, f"p1/here/{n}", lambda d: b""), "folder-altered"),
        ("exchanged", lambda r, n=name: swap(r, f"p1/here/{n}", f"p2/here/{n}"), "folder-altered"),
        ("older", lambda r, n=name: older(r, f"p1/here/{n}"), "folder-altered"),
        ("removed", lambda r, n=name: (r / "p1/here" / n).unlink(), "folder-missing"),
    )
]
FILES += [
    Damage("data.csv doubled", lambda r: change(r, "p1/here/data.csv", lambda d: d + d), "altered", {"row": 6}),
    Damage(
        "events doubled",
        lambda r: change(r, "p1/here/events.jsonl", lambda d: d + d),
        "torn-tail",
        {"folder": "p1/here"},
    ),
    Damage(
        "folder removed", lambda r: shutil.rmtree(r / "p1"), "altered", {"kind": "folder-missing", "folder": "p1/here"}
    ),
    Damage("folder copied", lambda r: shutil.copytree(r / "p1", r / "p9"), "altered", {"kind": "folder-stray"}),
    Damage(
        "folders older",
        older_folder,
        "altered",
        {"folder": "p1/here"},
    ),
]


def tree(root: Path) -> dict[str, bytes]:
    """The files of the folders, but what was put aside, and what the root says of definitions and restores."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent != root and ".edited-" not in path.name
    }


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(list(arguments))
    return code, capsys.readouterr().out


@pytest.mark.parametrize("damage", [*LOG, *DERIVED, *FILES], ids=lambda damage: damage.name.replace(" ", "-"))
def test_damage_is_named_and_the_named_command_mends_it(
    damage: Damage, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archive"
    shutil.copytree(whole, root)
    shutil.copytree(whole.with_name("older"), tmp_path / "older")
    monkeypatch.chdir(root)
    _, digest = call(capsys, "digest")
    damage.do(root)
    code, out = call(capsys, "verify", "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["verdict"]) == (4, False, damage.verdict), told
    assert any(damage.finding.items() <= finding.items() for finding in told["findings"]), told
    repairs = list(dict.fromkeys(finding["repair"] for finding in told["findings"] if "repair" in finding))
    assert repairs
    for repair in repairs:
        program, *arguments = shlex.split(repair)
        assert program == "refold"
        code, out = call(capsys, *arguments)
        assert code == 0, (repair, out)
    code, out = call(capsys, "verify", "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "sound"), out
    if FROM_FOLDERS not in repairs:  # which notes in the log that it was restored
        assert call(capsys, "digest") == (0, digest)
    assert tree(root) == tree(whole)


def test_what_may_be_of_a_newer_release_is_not_verified_and_not_touched(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archive"
    shutil.copytree(whole, root)
    monkeypatch.chdir(root)
    for name in ("changelog.db", "tables.db", "folders.db"):
        alter(root / name, "PRAGMA user_version = 99")
        before = (root / name).read_bytes()
        code, out = call(capsys, "verify", "--json")
        told = json.loads(out)
        assert (code, told["verdict"], told["findings"][0]["file"]) == (4, "unverified", name)
        assert "repair" not in told["findings"][0]
        assert (root / name).read_bytes() == before
        shutil.copy(whole / name, root)
