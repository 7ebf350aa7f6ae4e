"""System calls that fail: the n-th of each kind, in every operation, once or from then on, in whole or in part."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from .cases import Case
from .shim import Call, Mode
from .stage import Stage

ERRORS = {
    Call.OPEN: ("EIO", "EMFILE", "EROFS", "EACCES"),
    Call.READ: ("EIO",),
    Call.WRITE: ("EIO", "ENOSPC", "EDQUOT"),
    Call.TRUNCATE: ("EIO", "ENOSPC"),
    Call.FSYNC: ("EIO", "ENOSPC", "EDQUOT"),
    Call.SYNCFS: ("EIO", "ENOSPC"),
    Call.RENAME: ("EIO", "ENOSPC", "EROFS", "EXDEV"),
    Call.LINK: ("EIO", "EMLINK", "EPERM"),
    Call.UNLINK: ("EIO", "EROFS", "EPERM"),
    Call.MKDIR: ("EIO", "ENOSPC", "EROFS"),
    Call.RMDIR: ("EIO", "EBUSY"),
}
PATIENT = {Call.OPEN, Call.READ, Call.WRITE}
"""Calls that are made again when a signal interrupts them: nobody is told."""


class Fault(msgspec.Struct, frozen=True):
    """Which call of which case fails, how, and with what."""

    case: str
    call: str
    nth: int
    mode: str
    error: str

    def __str__(self) -> str:
        return f"{self.case}:{self.call}:{self.nth}:{self.mode}:{self.error}"


class Struck(msgspec.Struct):
    """A fault that was led: the call and file that it met, what the caller was told, and what was wrong."""

    fault: str
    met: str
    told: list[str]
    complaints: list[str]


def parse(text: str) -> Fault:
    """The fault that `str` spelled."""
    case, call, nth, mode, error = text.split(":")
    return Fault(case, call, int(nth), mode, error)


def count(stage: Stage, case: Case) -> dict[Call, int]:
    """How often a case that nothing disturbs makes each call. Raises `Failed` when it does not end well."""
    place = stage.place(case)
    seen = place.with_name(f"{place.name}-seen")

    def arm() -> None:
        stage.shim.count(place)

    def counted() -> None:
        seen.write_bytes(msgspec.json.encode([stage.shim.seen(call) for call in Call if call is not Call.MARK]))

    outcome = stage.lead(case, place, arm, counted)
    complaints = outcome.complaints + outcome.said.errors or stage.judged(case, place, outcome.said)
    if complaints:
        raise AssertionError(f"{case.name} without a fault: {complaints}")
    numbers = msgspec.json.decode(seen.read_bytes(), type=list[int])
    stage.clear(place)
    return {Call(index): number for index, number in enumerate(numbers) if number}


def kinds(call: Call) -> Iterator[tuple[Mode, str]]:
    """In which ways a call can fail."""
    for error in ERRORS[call]:
        yield Mode.ONCE, error
        yield Mode.ALWAYS, error
    if call is Call.WRITE:
        yield Mode.SHORT, "EIO"
        yield Mode.HALF, "ENOSPC"
    if call in PATIENT | {Call.FSYNC}:
        yield Mode.ONCE, "EINTR"


def plan(case: Case, counts: dict[Call, int], draw: random.Random, passages: int) -> list[Fault]:
    """Faults of a case: for each way in which a call can fail up to so many passages, spread over all there are."""
    faults = []
    for call, number in counts.items():
        for mode, error in kinds(call):
            step = max(1.0, number / passages)
            at = sorted({1 + int(step * (index + draw.random())) for index in range(min(number, passages))})
            faults += [Fault(case.name, call.name, min(nth, number), mode.name, error) for nth in at]
    return faults


def strike(stage: Stage, case: Case, fault: Fault) -> Struck:
    """Leads one fault, and judges."""
    place = stage.place(case)
    met = place.with_name(f"{place.name}-met")

    def arm() -> None:
        stage.shim.inject(place, Call[fault.call], fault.nth, Mode[fault.mode], fault.error)

    def after() -> None:
        met.write_text(stage.shim.struck)

    outcome = stage.lead(case, place, arm, after)
    complaints = outcome.complaints or stage.judged(case, place, outcome.said)
    where = met.read_text().replace(f"{place}/", "") if met.exists() else ""
    patient = fault.mode == "SHORT" or (fault.error == "EINTR" and Call[fault.call] in PATIENT)
    if patient and outcome.said.errors and not complaints:
        complaints = [f"nothing was wrong, and the caller was told {outcome.said.errors}"]
    matters = fault.call == "SYNCFS" or (fault.call == "FSYNC" and "changelog.db" in where)
    if matters and fault.mode == "ALWAYS" and not outcome.said.errors and not outcome.said.findings and not complaints:
        complaints = ["what could not be made durable was not told to the caller"]
    if not complaints:
        stage.clear(place)
    return Struck(str(fault), where, outcome.said.errors, complaints)
