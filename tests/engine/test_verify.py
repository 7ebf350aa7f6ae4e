"""A log proves itself: whatever is changed in a stored log is found, and named by where it stands."""

from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.events import Event, Head, canonical, decode
from refold.testing import Scribe
from refold.verify import ChainCheck, Finding

from .histories import histories, reordered

Stored = list[tuple[int, bytes]]


def heads_of(events: Sequence[Event]) -> dict[str, Head]:
    return {event.replica: Head(event.seq, event.hash) for event in sorted(events, key=lambda event: event.seq)}


def check(stored: Stored, heads: dict[str, Head]) -> list[Finding]:
    slow, chain = ChainCheck(), ChainCheck()
    findings = [finding for position, body in stored for finding in slow.feed(position, body)]
    assert chain.feed_all(stored) == findings
    assert (chain.heads, chain.events) == (slow.heads, slow.events)
    return [*findings, *chain.finish(heads), *chain.close(heads, "a witness")]


def numbered(bodies: Sequence[bytes]) -> Stored:
    return list(enumerate(bodies, 1))


def small_log() -> list[Event]:
    one, other = Scribe("a"), Scribe("b")
    events = [one.write("c", "1", {"n": 1})]
    other.see(events)
    events += [other.write("c", "1", {"n": 2}), one.write("c", "2", {"n": 3})]
    one.see(events)
    return [*events, one.write("c", "1", {"n": 4})]


EVENTS = small_log()
BODIES = [canonical(event) for event in EVENTS]
HEADS = heads_of(EVENTS)


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=settings().max_examples // 2)
def test_a_log_in_any_causal_order_is_in_order(events: list[Event], random: Random) -> None:
    order = reordered(events, random)
    assert check(numbered([canonical(event) for event in order]), heads_of(events)) == []


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_any_flipped_bit_is_found(index: int) -> None:
    body = BODIES[index]
    for bit in range(len(body) * 8):
        spoilt = bytearray(body)
        spoilt[bit // 8] ^= 1 << bit % 8
        findings = check(numbered([*BODIES[:index], bytes(spoilt), *BODIES[index + 1 :]]), HEADS)
        assert findings, bit
        first = findings[0]
        assert first.kind in {"log-rot", "log-chain", "log-order", "log-cut"}, bit
        # A replica's newest event whose name or seq was altered is another's, and missing where it belongs.
        if first.kind == "log-rot" and first.seq is not None:
            assert (first.replica, first.seq) == EVENTS[index].dot or first.position == index + 1, bit


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_a_lost_event_is_found(index: int) -> None:
    rest = [*BODIES[:index], *BODIES[index + 1 :]]
    event = EVENTS[index]
    findings = check(numbered(rest), HEADS)
    assert findings
    last_of_replica = HEADS[event.replica].seq == event.seq
    if last_of_replica and index == len(BODIES) - 1:
        assert [(f.kind, f.replica, f.seq) for f in findings] == [("log-cut", event.replica, event.seq)]
    holes = [(position, body) for position, body in numbered(BODIES) if position != index + 1]
    if index < len(BODIES) - 1:
        assert check(holes, HEADS)[0].kind == "log-position"
        assert check(holes, HEADS)[0].position == index + 2


@pytest.mark.parametrize("index", range(len(BODIES) - 1))
def test_swapped_events_are_found_unless_nobody_could_tell(index: int) -> None:
    swapped = [*BODIES]
    swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
    findings = check(numbered(swapped), HEADS)
    later, earlier = EVENTS[index + 1], EVENTS[index]
    causal = later.replica == earlier.replica or later.context.get(earlier.replica, 0) >= earlier.seq
    assert bool(findings) == causal
    positions = [finding.position for finding in findings]
    assert not causal or positions[0] == index + 1


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_an_event_told_twice_is_found(index: int) -> None:
    findings = check(numbered([*BODIES[: index + 1], *BODIES[index:]]), HEADS)
    assert (findings[0].kind, findings[0].position) == ("log-chain", index + 2)
    assert (findings[0].replica, findings[0].seq) == (EVENTS[index].replica, EVENTS[index].seq)


def test_a_cut_tail_is_told_apart_from_rot() -> None:
    for end in range(len(BODIES)):
        kinds = {finding.kind for finding in check(numbered(BODIES[:end]), HEADS)}
        assert kinds == {"log-cut"}


def test_a_rewritten_history_is_known_by_a_witness() -> None:
    other = Scribe("a"), Scribe("b")
    forged = [canonical(other[0].write("c", "1", {"n": 99}))]
    findings = check(numbered(forged), {"a": Head(1, EVENTS[0].hash)})
    assert [(finding.kind, finding.replica, finding.seq) for finding in findings] == [("log-rot", "a", 1)]
    assert check(numbered(forged), heads_of([decode(forged[0])])) == []


def test_bytes_that_are_not_canonical_are_found() -> None:
    longer = BODIES[0].replace(b"\xa1a\x01", b"\xd9\x01a\x01", 1)
    assert longer != BODIES[0] and decode(longer) == EVENTS[0]
    findings = check(numbered([longer]), {})
    assert {(finding.kind, finding.position) for finding in findings} == {("log-rot", 1)}
    extra = bytes([BODIES[0][0] + 1]) + BODIES[0][1:] + b"\x00"
    assert [finding.kind for finding in check(numbered([extra]), {})] == ["log-rot"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"\x91" * 100_000,
        BODIES[0][:-1],
        BODIES[0] + b"\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xff" * 99,
    ],
    ids=range(8),
)
def test_whatever_is_stored_is_judged(body: bytes) -> None:
    findings = check(numbered([body]), {})
    assert (findings[0].kind, findings[0].position) == ("log-rot", 1)


def test_an_event_that_nests_without_end_is_judged() -> None:
    nested = BODIES[0].replace(b"\xa1n\x01", b"\xa1n" + b"\x91" * 100_000 + b"\x01", 1)
    assert check(numbered([nested]), {})[0].kind == "log-rot"


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: BODIES[0][:20] + tail))
def test_random_bytes_are_judged(body: bytes) -> None:
    check(numbered([body]), {})


def test_findings_leave_out_what_they_do_not_know() -> None:
    assert msgspec.to_builtins(Finding("log-cut", replica="a", seq=2)) == {"kind": "log-cut", "replica": "a", "seq": 2}
