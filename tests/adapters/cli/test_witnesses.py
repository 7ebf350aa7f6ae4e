"""Witnesses from outside: other archives, shares, backups of the log, and documents that remember heads."""

import json
import shutil
from pathlib import Path

import pytest

from .support import Refold


@pytest.fixture
def kept(airports: Refold, tmp_path: Path) -> Refold:
    """The archive `a`, a copy `old` of it, and then one write more in `a`, whose heads `receipt.json` remembers."""
    shutil.copytree(tmp_path / "a", tmp_path / "old")
    (tmp_path / "share").mkdir()
    assert airports("put", "airports", "icao=LOWW", "country=AT", "subd=Vienna").code == 0
    (tmp_path / "receipt.json").write_text(airports("digest", "--json").out)
    return airports


def verdict(refold: Refold, root: str, *witnesses: str) -> tuple[int, str, list[dict[str, object]]]:
    options = [option for witness in witnesses for option in ("--witness", witness)]
    done = refold("verify", "--json", *options, root=root)
    return done.code, done.json["verdict"], done.json["findings"]


def test_witnesses_that_know_the_same_or_less_say_nothing(kept: Refold, tmp_path: Path) -> None:
    assert kept("sync", f"dir://{tmp_path}/share").code == 0
    names = (
        "old",
        "old/changelog.db",
        "receipt.json",
        "a/DE/Bavaria/meta.json",
        "share",
        f"dir://{tmp_path}/share",
        "a",
    )
    assert verdict(kept, "a", *names) == (0, "sound", [])


@pytest.mark.parametrize("witness", ["a", "a/changelog.db", "receipt.json", "share", "seqs.json"])
def test_a_log_that_was_cut_with_all_that_is_derived(kept: Refold, tmp_path: Path, witness: str) -> None:
    assert kept("sync", f"dir://{tmp_path}/share").code == 0
    told = json.loads((tmp_path / "receipt.json").read_text())
    (tmp_path / "seqs.json").write_text(json.dumps({"vector": told["vector"]}))
    assert verdict(kept, "old") == (0, "sound", [])
    code, word, findings = verdict(kept, "old", witness)
    assert (code, word) == (4, "cut-tail")
    assert (findings[0]["kind"], findings[0]["replica"], findings[0]["seq"]) == ("log-cut", "office", 5)
    assert (findings[0]["witness"], findings[0]["repair"]) == (witness, f"refold sync {witness}")


@pytest.mark.parametrize("witness", ["a", "receipt.json"])
@pytest.mark.parametrize("more", [1, 2])
def test_a_copy_that_went_on_by_itself_is_a_fork(kept: Refold, witness: str, more: int) -> None:
    for number in range(more):
        assert kept("put", "airports", f"icao=X{number}", "country=CH", "subd=Bern", root="old").code == 0
    code, word, findings = verdict(kept, "old", witness)
    assert (code, word, findings[0]["kind"], findings[0]["witness"]) == (4, "fork", "log-fork", witness)
    assert (findings[0]["replica"], findings[0]["seq"]) == ("office", 5)


def test_a_cut_log_comes_back_by_the_command_that_is_named(kept: Refold, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in ("changelog.db", "tables.db", "folders.db"):
        shutil.copy(tmp_path / "old" / name, tmp_path / "b" / name)
    code, word, findings = verdict(kept, "b")
    assert (code, word, findings[0]["repair"]) == (4, "cut-tail", "refold restore --in-place --from folders")
    assert kept("restore", "--in-place", "--from", "folders", root="b").code == 0
    assert verdict(kept, "b", "receipt.json") == (0, "sound", [])


BAD = ["", "{}", "[1]", '{"heads": {"a": {"seq": "x"}}}', '{"vector": {"a": {"seq": 1, "hash": "zz"}}}']


@pytest.mark.parametrize("text", BAD)
def test_a_witness_that_cannot_be_heard_is_not_taken_for_consent(kept: Refold, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    (tmp_path / "empty").mkdir()
    for witness in ("bad.json", "not-there", "empty", "https://example.org/x"):
        code, word, findings = verdict(kept, "a", witness)
        assert (code, word, findings[0]["kind"], findings[0]["witness"]) == (4, "unverified", "unreadable", witness)
