"""Two people at the command line who edit apart and meet again."""

from pathlib import Path

import pytest

from .support import Refold, Result, bytes_of

TABLE = """
[collections.orders]
key = "no"
folder = "{customer}"
strategy = "manual"
[collections.orders.fields]
no = "str"
customer = "str"
note = "str?"
"""


@pytest.fixture
def met(refold: Refold, tmp_path: Path) -> Refold:
    """Archives `a` and `b` that met over a share, wrote the same field of the same record apart, and met again."""
    (tmp_path / "share").mkdir()
    (tmp_path / "orders.toml").write_text(TABLE, encoding="utf-8")
    assert refold("init", "--replica", "a", "--collections", "orders.toml").code == 0
    assert refold("init", "--replica", "b", root="b").code == 0
    assert refold("put", "orders", "no=1", "customer=Süd", "note=base").code == 0
    assert sync(refold).code == 0
    assert sync(refold, root="b").json["received"] == 2
    assert refold("patch", "orders", "1", "note=ours", "--actor", "ann").code == 0
    assert refold("patch", "orders", "1", "note=theirs", "--actor", "bob", root="b").code == 0
    assert sync(refold).code == 0
    done = sync(refold, root="b")
    assert done.code == 5 and done.json == {
        "peer": "share",
        "sent": 1,
        "received": 1,
        "merged": 1,
        "conflicts": 1,
        "related": True,
    }
    assert sync(refold).code == 5
    return refold


def sync(refold: Refold, root: str = "a") -> Result:
    return refold("sync", "dir://" + str(Path.cwd() / "share"), "--json", root=root)


def test_both_end_with_the_same_bytes(met: Refold, tmp_path: Path) -> None:
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert met("digest").out == met("digest", root="b").out
    assert met("verify").code == 0 and met("verify", root="b").code == 0


def test_a_conflict_is_listed_shown_and_settled(met: Refold) -> None:
    (conflict,) = met("conflicts", "--json").lines
    assert (conflict["kind"], conflict["status"], conflict["key"]) == ("concurrent-modification", "open", "1")
    assert conflict["base"] == {"note": "base"}
    sides = {side["actor"]: side for side in conflict["sides"]["note"]}
    assert {actor: side["value"] for actor, side in sides.items()} == {"ann": "ours", "bob": "theirs"}
    assert met("conflicts", "show", conflict["id"], "--json").json == conflict
    shown = met("conflicts", "show", conflict["id"]).out
    assert all(text in shown for text in ("base", "ours a:3", "theirs b:1", "ann", "bob", "manual"))
    for arguments in (("--kind", "deletion-conflict"), ("--collection", "x"), ("-n", "0"), ("--status", "settled")):
        assert met("conflicts", "--json", *arguments).lines == []
    done = met("resolve", conflict["id"], "--take", "b:1", "--actor", "chief", "--reason", "asked", "--json")
    assert done.json["events"][0]["kind"] == "resolve" and done.json["events"][0]["data"] == {"note": "theirs"}
    assert met("conflicts", "--json").lines == []
    (settled,) = met("conflicts", "--status", "resolved", "--json").lines
    assert settled["settled_by"]["actor"] == "chief" and settled["outcome"] == {"note": "theirs"}
    assert "resolved by a:" in met("conflicts", "show", conflict["id"]).out
    assert sync(met).code == 0 and sync(met, root="b").code == 0
    assert met("get", "orders", "1", "--field", "note", root="b").out == "theirs\n"


def test_other_ways_to_settle(met: Refold) -> None:
    (conflict,) = met("conflicts", "--json").lines
    assert met("resolve", conflict["id"], "--take", "x:9", "--json").error["code"] == "resolution-refused"
    assert met("resolve", "0000", "--take", "a:3", "--json").error["code"] == "conflict-unknown"
    assert met("resolve", conflict["id"]).code == 1 and met("resolve").code == 2
    assert met("resolve", conflict["id"], "--keep-both").code == 0
    assert {line["values"]["note"] for line in met("ls", "orders", "--json").lines} == {"ours", "theirs"}
    (other,) = met("conflicts", "--json", root="b").lines
    assert met("resolve", other["id"], "--set", "note=agreed", root="b").code == 0
    assert met("get", "orders", "1", "--field", "note", root="b").out == "agreed\n"


def test_what_if_changes_nothing(met: Refold) -> None:
    before = met("digest").out
    (line,) = met("conflicts", "--what-if", "strategy=first-write-wins", "--json").lines
    assert line["outcome"] == {"note": "ours"} and line["status"] == "settled"
    assert met("conflicts", "--what-if", "strategy=nonsense").code == 2
    assert met("digest").out == before


def test_archives_on_one_machine_meet_by_path(met: Refold) -> None:
    met("put", "orders", "no=2", "customer=Nord")
    done = met("sync", "b")
    assert (done.code, done.out) == (0, "1 sent, 0 received, 0 merged, 0 conflicts\n")
    assert met("sync", "nowhere", "--json").error["code"] == "no-archive"
    assert met("sync", "nowhere").code == 10
    assert met("sync", "gopher://x", "--json").error["code"] == "scheme-unknown"


def test_interactive_walks_through_what_is_open(met: Refold, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["skip", "b:1"])
    monkeypatch.setattr("click.prompt", lambda *arguments, **options: next(answers))
    assert met("resolve", "--interactive").code == 5
    assert met("resolve", "--interactive").code == 0
    assert met("get", "orders", "1", "--field", "note").out == "theirs\n"
