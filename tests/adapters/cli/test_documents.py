"""The commands about documents, as people and crontabs use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .support import Refold

ORDERS = """\
[collections.orders]
key = "no"
folder = "{no}"
[collections.orders.fields]
no = "str"
path = "str?"
sha256 = "str?"
[collections.orders.documents]
path = "sha256"
"""


@pytest.fixture
def orders(refold: Refold, tmp_path: Path) -> Refold:
    (tmp_path / "orders.toml").write_text(ORDERS)
    assert refold("init", "--collections", "orders.toml").code == 0
    for key in "abc":
        (tmp_path / "a" / key).mkdir()
        (tmp_path / "a" / key / "order.pdf").write_bytes(key.encode())
        assert refold("put", "orders", f"no={key}", f"path={key}/order.pdf").code == 0
    return refold


def test_documents_from_the_first_look_to_the_last(orders: Refold, tmp_path: Path) -> None:
    first = orders("scan")
    assert first.code == 3
    assert first.out.splitlines()[0] == "document-new: a/order.pdf: the record says no hash of it yet (orders a)"
    done = orders("scan", "--record", "--actor", "ann", "--json")
    assert (done.code, json.loads(done.out)["recorded"], json.loads(done.out)["ok"]) == (0, 3, True)
    assert orders("log", "-r", "-n", "1").out.split("\t")[-2:] == ["ann", "scan\n"]
    assert orders("scan", "orders", "--full").code == 0
    assert orders("verify", "--documents").code == 0
    (tmp_path / "a/a/order.pdf").unlink()
    (tmp_path / "a/b/order.pdf").rename(tmp_path / "a/b/moved.pdf")
    found = json.loads(orders("scan", "--json").out)
    assert found["counts"] == {"document-missing": 1, "document-moved": 1}
    assert [one.get("places") for one in found["findings"]] == [None, ["b/moved.pdf"]]
    bad = orders("verify", "--documents", "--json")
    assert (bad.code, json.loads(bad.out)["verdict"]) == (4, "documents")
    assert orders("verify").code == 0
    assert orders("scan", "--record").code == 3
    dry = orders("prune", "orders", "--missing")
    assert dry.code == 0
    assert dry.out.startswith("would clear: document-missing: a/order.pdf")
    assert "--write" in dry.err
    done = orders("prune", "orders", "--missing", "--write", "--json")
    assert (done.code, json.loads(done.out)["cleared"]) == (0, 1)
    assert orders("scan").code == 0
    assert orders("get", "orders", "b", "--field", "path").out == "b/moved.pdf\n"


def test_what_makes_no_sense_is_refused(orders: Refold, tmp_path: Path) -> None:
    assert orders("prune", "orders").code == 2
    assert orders("prune", "--missing").code == 2
    assert orders("scan", "nothing").code == 1
    (tmp_path / "other.toml").write_text('[collections.plain]\nkey = "no"\nfields = { no = "str" }\n')
    assert orders("define", "other.toml").code == 0
    refused = orders("scan", "plain", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["code"]) == (1, "documents-undeclared")
    for key in "abc":
        (tmp_path / "a" / key / "order.pdf").unlink()
    away = orders("prune", "orders", "--missing", "--write", "--json")
    assert (away.code, json.loads(away.err)["error"]["code"]) == (1, "documents-away")
    assert orders("prune", "orders", "--missing", "--write", "--force").code == 0


def test_records_are_validated(orders: Refold, tmp_path: Path) -> None:
    assert orders("validate", "orders").code == 0
    (tmp_path / "file.csv").write_text("no,path\n1,gone.pdf\n2,\n2,\n")
    bad = orders("validate", "file.csv", "--json")
    lines = [json.loads(line) for line in bad.out.splitlines()]
    assert bad.code == 4
    assert [line.get("row") for line in lines] == [2, 4, None]
    assert lines[0]["errors"][0]["code"] == "document-missing"
    assert lines[-1] == {"ok": False, "collection": "orders", "checked": 3, "invalid": 2}
    told = orders("validate", "file.csv", "--collection", "orders")
    assert told.out.splitlines()[1] == "row 4: duplicate-key: no: key '2' stands in row 3 already"
    assert orders("validate", "nothing.csv").code == 1
