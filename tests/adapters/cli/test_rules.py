"""Definitions whose rules are about other records, at the command line."""

from pathlib import Path

import pytest

from .support import Refold

TABLES = """
[collections.people]
key = "id"
[collections.people.fields]
id = "str"
mail = { type = "str?", unique = true }
boss = { type = "str?", references = "people", missing = "refuse" }
team = { type = "str?", references = "teams" }
"""


@pytest.fixture
def people(refold: Refold, tmp_path: Path) -> Refold:
    (tmp_path / "people.toml").write_text(TABLES, encoding="utf-8")
    assert refold("init", "--replica", "a").code == 0
    assert refold("define", "people.toml").code == 0
    return refold


def test_define_tells_of_circles_and_of_what_nobody_defined(people: Refold) -> None:
    done = people("define", "people.toml")
    assert done.code == 0 and "people refers to itself" in done.err and "refers to teams, which is not" in done.err
    told = people("define", "people.toml", "--json").json
    undefined = [{"collection": "people", "field": "team", "references": "teams"}]
    assert told == {"events": [], "cycles": [["people"]], "undefined": undefined}


def test_writes_that_break_a_rule_are_refused(people: Refold) -> None:
    assert people("put", "people", "id=ann", "mail=a@x").code == 0
    taken = people("put", "people", "id=bob", "mail=a@x", "--json")
    assert taken.code == 1 and taken.error["code"] == "unique-taken" and taken.error["holder"] == "ann"
    missing = people("put", "people", "id=bob", "boss=eve", "--json").error
    assert (missing["code"], missing["target"], missing["target_key"]) == ("reference-missing", "people", "eve")
    assert people("put", "people", "id=bob", "boss=ann").code == 0
    assert people("delete", "people", "ann", "--json").error["referrers"] == ["people 'bob'"]


def test_an_import_takes_the_rows_that_keep_the_rules(people: Refold, tmp_path: Path) -> None:
    rows = "id,mail,boss\nc,c@x,b\nb,b@x,a\na,a@x,\nd,a@x,a\ne,e@x,nobody\nf,,e\n"
    (tmp_path / "people.csv").write_text(rows, encoding="utf-8")
    done = people("import", "people", "people.csv", "--json")
    assert done.code == 3 and done.json["created"] == 3
    failed = [(row["row"], row["field"], row["code"]) for row in done.json["failed"]]
    assert failed == [(5, "mail", "unique-taken"), (6, "boss", "reference-missing"), (7, "boss", "reference-missing")]
    (tmp_path / "people.csv").write_text("id,mail,boss\nb,b@x,a\n", encoding="utf-8")
    done = people("import", "people", "people.csv", "--delete-missing", "--json")
    assert (done.code, done.json["deleted"], done.json["failed"][0]["code"]) == (3, 1, "referred-to")


def test_a_value_that_both_took_is_settled_by_name(
    people: Refold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert people("init", "--replica", "b", root="b").code == 0
    assert people("sync", "b").code == 0
    assert people("put", "people", "id=ann", "mail=x").code == 0
    assert people("put", "people", "id=bob", "mail=x", root="b").code == 0
    people("sync", "b")
    (conflict,) = people("conflicts", "--kind", "unique-conflict", "--json").lines
    assert [side["value"] for side in conflict["sides"]["mail"]] == ["ann", "bob"]
    assert "until one of these records holds another" in people("conflicts", "show", conflict["id"]).out
    answers = iter(["b:1"])
    monkeypatch.setattr("click.prompt", lambda *arguments, **options: next(answers))
    assert people("resolve", "--interactive", root="b").code == 0
    assert people("get", "people", "ann", "--field", "mail", root="b").out.strip() in {"", "null"}
    assert people("resolve", conflict["id"], "--set", "id=bob", "--set", "mail=y").code == 0
    assert people("conflicts", "--json").lines == []
