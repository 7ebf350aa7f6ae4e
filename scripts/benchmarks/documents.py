"""Documents: a look at many that nobody changed, beside a bare walk of the same folders; checking many records."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import refold
from refold import Collection, Field
from refold_adapters.documents import scan
from refold_adapters.validating.validating import Plan, Validation

from .measure import ROWS, Figures, Place, Row, measurement, preparation

ORDERS = Collection(
    name="orders",
    key="no",
    folder="{path:parent}",
    fields={
        "no": Field("str", required=True, pattern=r"^\d{6}$"),
        "date": Field("date"),
        "customer": Field("str", required=True, pattern=r"^[\w .]+$"),
        "path": Field("str", required=True),
        "sha256": Field("str", null=True, pattern="^[0-9a-f]{64}$"),
    },
    documents={"path": "sha256"},
)
_BATCH = 2000


def _order(root: Path, number: int) -> dict[str, str]:
    """An order, and its document on the disk."""
    path = f"{2000 + number // 5000}/{number:06d}/{number:06d}_Auftrag.pdf"
    data = f"%PDF-1.4 {number}\n".encode() * 40
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
    os.utime(root / path, (1_600_000_000, 1_600_000_000))
    hashed = sha256(data).hexdigest()
    return {"no": f"{number:06d}", "date": "2024-07-29", "customer": "Autohaus Lenz", "path": path, "sha256": hashed}


@preparation("documents")
def _prepare(place: Place) -> Figures:
    """An archive with a document in every folder, and its records as a CSV file."""
    root = place.prepared / "documents"

    async def fill() -> None:
        async with refold.open(root) as engine:
            await engine.define(ORDERS)
            for start in range(0, place.sizes.documents, _BATCH):
                async with engine.batch() as batch:
                    for number in range(start, min(start + _BATCH, place.sizes.documents)):
                        batch.put("orders", _order(root, number))
            await engine.settled()
        await _look(root)

    asyncio.run(fill())
    with (place.prepared / "orders.csv").open("w") as file:
        file.write("no,date,customer,path,sha256\n")
        for number in range(place.sizes.documents):
            file.write(f"{number:06d},2024-07-29,Autohaus Lenz,{number:06d}.pdf,{'0' * 64}\n")
    return {}


async def _look(root: Path) -> int:
    async with refold.open(root, readonly=True) as engine:
        report = await scan(engine, root)
    assert report.ok, report.counts
    return report.read


def _bare(place: Place) -> Figures:
    """What a walk costs that only looks at every file, and keeps nothing."""
    start = time.perf_counter()
    places, count = [str(place.prepared / "documents")], 0
    while places:
        with os.scandir(places.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    places.append(entry.path)
                elif entry.name.endswith(".pdf"):
                    entry.stat(follow_symlinks=False)
                    count += 1
    assert count == place.sizes.documents, count
    return {"s": time.perf_counter() - start}


def _scan(place: Place, *, first: bool) -> Figures:
    root = place.prepared / "documents"
    if first:
        for path in root.glob("documents.db*"):
            path.unlink()
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    read = asyncio.run(_look(root))
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    assert read == (place.sizes.documents if first else 0), read
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"s": elapsed, "cpu_s": cpu, "rate": place.sizes.documents / elapsed}


def _validate(place: Place, *, jobs: int) -> Figures:
    root = place.work / "archive"

    async def look() -> int:
        async with refold.open(root) as engine:
            await engine.define(Collection(name="orders", key="no", fields=ORDERS.fields))
            plan = Plan(collection="orders", path=place.prepared / "orders.csv", jobs=jobs)
            checking = Validation(engine, root, plan, lambda what, done: None)
            async for invalid in checking.run():
                raise AssertionError(invalid)
            return checking.checked

    start = time.perf_counter()
    checked = asyncio.run(look())
    elapsed = time.perf_counter() - start
    shutil.rmtree(root)
    assert checked == place.sizes.documents
    return {"rate": checked / elapsed}


measurement("documents-bare", needs=("documents",))(_bare)
measurement("documents-unchanged", needs=("documents",))(partial(_scan, first=False))
measurement("documents-first", needs=("documents",), rounds=2)(partial(_scan, first=True))
for _jobs in (1, 2):
    measurement(f"validate-{_jobs}", needs=("documents",), rounds=3)(partial(_validate, jobs=_jobs))

_unchanged = partial(Row, group="documents", measurement="documents-unchanged", least=False)
ROWS += [
    _unchanged(
        name="scan of unchanged documents, beside a bare walk",
        raw="documents-bare",
        figure="s",
        raw_figure="s",
        unit="s",
        target=5,
        of="figure",
    ),
    _unchanged(name="processor time of that scan", figure="cpu_s", unit="s"),
    _unchanged(name="peak memory of that scan", figure="peak_mb", unit="MB", target=150, of="figure"),
    Row(group="documents", name="first scan of documents", measurement="documents-first", unit="documents/s"),
    Row(
        group="documents",
        name="validate a file by two processes, beside one",
        measurement="validate-2",
        raw="validate-1",
        unit="records/s",
    ),
]
