"""The process that is killed: it opens an archive, lets some writers write, and reports what they attempt and are told.

A report line is appended by one unbuffered write before each attempt and after each acknowledgement, so it survives
the process. Every write carries the name of its operation (`round.writer.number`) into its event, and every operation
writes exactly one event per step: so the model can tell what must be there, what may be, and in which order.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import msgspec

import refold
import refold_adapters.archive
from refold.engine import Engine
from refold.schema import Collection, Field
from refold_adapters.folders import FolderReplicas

from .plants import PLANTS
from .points import Watch, WatchedConnection, watch_everything

THINGS = Collection(
    name="things",
    key="id",
    folder="{place}/here",
    fields={"id": Field("str"), "place": Field("str"), "note": Field("str", null=True), "n": Field("int")},
)
PARTS = Collection(
    name="parts",
    key="no",
    folder="{place}/here",
    fields={"no": Field("int"), "place": Field("str"), "n": Field("int")},
)
PLACES = ["north", "south/one", "south/two", "South/one", "west", "west/deep/er", "east"]


class Step(msgspec.Struct, array_like=True):
    """One write of an operation: `put`, `patch` or `delete`."""

    do: str
    collection: str
    key: str | int
    values: dict[str, str | int | None]


class Line(msgspec.Struct, omit_defaults=True):
    """One line of the report: an attempt with its steps, an acknowledgement with positions, or a complaint."""

    op: str
    steps: list[Step] = []
    positions: list[int] = []
    complaint: str = ""
    request: bool = False


class Plan(msgspec.Struct, kw_only=True):
    """What one process does, and where it dies. `retry` are operations whose outcome nobody was told."""

    root: str
    report: str
    counts: str
    seed: int
    round: int
    writers: int = 4
    operations: int = 6
    remove: list[str] = []
    rebuild: bool = False
    verify: bool = False
    retry: list[Line] = []
    point: str = ""
    nth: int = 0
    plant: str = ""


class Report:
    """The lines of one process; they are in the kernel's hands once written."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, line: Line) -> None:
        os.write(self._descriptor, msgspec.json.encode(line) + b"\n")


def read_report(path: Path) -> list[Line]:
    """The lines of a report, without the one that the process died in."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [msgspec.json.decode(line, type=Line) for line in lines]


class Writer:
    """One of the concurrent writers: it waits for each answer before it goes on, and knows its own records."""

    def __init__(self, engine: Engine, report: Report, plan: Plan, number: int) -> None:
        self.engine = engine
        self.report = report
        self.random = random.Random(f"{plan.seed}/{number}")
        self.round = plan.round
        self.number = number
        self.serial = 0
        self.mine: dict[tuple[str, str | int], bool] = {}

    def _unique(self) -> int:
        self.serial += 1
        return (self.round * 100 + self.number) * 10_000 + self.serial

    def _key(self) -> tuple[str, str | int]:
        draw = self.random
        if draw.random() < 0.3:
            return "parts", self.number * 1000 + draw.randrange(4) + self.round * 10
        return "things", f"{self.round}-{self.number}-{draw.randrange(5)}"

    def _place(self) -> str:
        """One of the places, or one that the next move leaves empty."""
        if self.random.random() < 0.3:
            return f"passing/{self.round}-{self.number}-{self.random.randrange(4)}"
        return self.random.choice(PLACES)

    def _put(self, collection: str, key: str | int) -> Step:
        values: dict[str, str | int | None] = {"place": self._place(), "n": self._unique()}
        if collection == "parts":
            return Step("put", collection, key, {"no": key, **values})
        note = self.random.choice([None, 'Müller, "Söhne"\n=1+1', "x" * 50])
        return Step("put", collection, key, {"id": key, "note": note, **values})

    def step(self) -> Step:
        draw = self.random
        chance = draw.random()
        if chance < 0.15:
            return self._put("things", f"shared-{draw.randrange(3)}")
        if chance < 0.25 and self.round:
            return self._put("things", f"{draw.randrange(self.round)}-{self.number}-{draw.randrange(5)}")
        collection, key = self._key()
        if not self.mine.get((collection, key)) or chance < 0.5:
            self.mine[collection, key] = True
            return self._put(collection, key)
        if chance < 0.7:
            self.mine[collection, key] = False
            return Step("delete", collection, key, {})
        values: dict[str, str | int | None] = {"n": self._unique()}
        if chance < 0.9:
            values["place"] = self._place()
        return Step("patch", collection, key, values)

    async def run(self, operations: int) -> None:
        for number in range(operations):
            steps = [self.step() for _ in range(self.random.choice([1, 1, 2, 4, 60]))]
            line = Line(f"{self.round}.{self.number}.{number}", steps, request=self.random.random() < 0.5)
            await perform(self.engine, self.report, line)


async def perform(engine: Engine, report: Report, line: Line) -> None:
    """Attempts one operation and reports both ends of it."""
    meta = {"op": line.op}
    wording = {"meta": meta, "request_id": line.op} if line.request else {"meta": meta}
    report.write(line)
    if len(line.steps) == 1:
        step = line.steps[0]
        if step.do == "put":
            event = await engine.put(step.collection, step.values, **wording)
        elif step.do == "patch":
            event = await engine.patch(step.collection, step.key, step.values, **wording)
        else:
            event = await engine.delete(step.collection, step.key, **wording)
        events = [event]
        record = await engine.get(step.collection, step.key)
        if "shared" not in str(step.key) and (record is None or record.deleted != (step.do == "delete")):
            report.write(Line(line.op, complaint=f"not visible after it was acknowledged: {step}"))
    else:
        async with engine.batch(meta=meta) as batch:
            for index, step in enumerate(line.steps):
                request = {"request_id": f"{line.op}/{index}"} if line.request else {}
                if step.do == "put":
                    batch.put(step.collection, step.values, **request)
                elif step.do == "patch":
                    batch.patch(step.collection, step.key, step.values, **request)
                else:
                    batch.delete(step.collection, step.key, **request)
        events = batch.events
    report.write(Line(line.op, positions=[0 if event is None else event.position for event in events]))


async def work(plan: Plan) -> None:
    """Everything that the process does between its birth and its death."""
    draw = random.Random(plan.seed)
    defaults = FolderReplicas.__init__.__kwdefaults__
    assert defaults is not None and "batch" in defaults
    defaults["batch"] = draw.choice([3, 8, 500])
    setattr(refold_adapters.archive, "REPLAY_BATCH", draw.choice([7, 50, 1000]))  # noqa: B010
    report = Report(plan.report)
    for name in plan.remove:
        refold_adapters.archive.remove_database(Path(plan.root) / name)
    quiet, bound = draw.choice([0.0, 0.01]), draw.choice([5, 50, 50_000])
    async with refold.open(plan.root, replica="office", quiet=quiet, lag_bound=bound) as engine:
        await engine.define(THINGS)
        await engine.define(PARTS)
        for line in plan.retry:
            await perform(engine, report, line)
        await asyncio.gather(
            *(Writer(engine, report, plan, number).run(plan.operations) for number in range(plan.writers))
        )
        if plan.rebuild:
            await engine.rebuild()
        await engine.settled()
        await Writer(engine, report, plan, plan.writers).run(2)
        if plan.verify:
            found = await engine.verify()
            if not found.ok:
                report.write(Line("", complaint=f"verify: {found.findings[:5]}"))


def live(plan: Plan) -> None:
    """Runs a plan in this process, which ends by its own hand unless the plan ends it sooner."""
    watch = Watch(plan.point, plan.nth)
    connection, plant = PLANTS[plan.plant] if plan.plant else (WatchedConnection, None)
    watch_everything(watch, connection)
    if plant is not None:
        plant()
    asyncio.run(work(plan))
    Path(plan.counts).write_bytes(msgspec.json.encode(watch.counts))


if __name__ == "__main__":
    live(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
