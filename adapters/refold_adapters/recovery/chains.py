"""Which events of one replica prove themselves, given all that was found of it. Pure.

From its first event on, each event names the hash of the one before it. What speaks for an event, its *support*, is
that it is sealed (it came with a hash or checksum that fits), that the event after it names its hash, or that a head
that somebody remembers is its hash. One without support where another hash is named is not *credible*: it rotted.
Since it takes the events after an event to tell, that is found from the last seq to the first (`doubt`).

Then from the first to the last (`walk`): a credible event counts when it follows the one that counts before it. Two
with support at one dot, or one and a supported successor that follows another, are a fork: nobody can tell which is
right, so it is left to a person. Where no event counts the chain has a gap. What stands behind it is judged in the same
way, to tell what is missing from what is only cut off; but it cannot go into a log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from refold.events import GENESIS


class Candidate(NamedTuple):
    """An event that was found at a dot. `sources` has a bit for each source that has it."""

    id: int
    hash: bytes
    prev: bytes
    sealed: bool
    sources: int


class Dot(msgspec.Struct):
    """All that was found of one seq: events, and hashes that somebody remembers, with the sources that do."""

    seq: int
    candidates: list[Candidate] = []
    heads: dict[bytes, int] = {}

    def hashes(self) -> set[bytes]:
        """The hashes that the events here name as those of the events before them."""
        return {candidate.prev for candidate in self.candidates}


class Fork(msgspec.Struct, frozen=True):
    """Different events that one replica wrote as the same seq: hashes, with the sources that vouch for each."""

    seq: int
    branches: dict[bytes, int]


class Chain(msgspec.Struct):
    """What became of one replica: `end` is the last seq of the chain from 1 that counts, `last` the greatest seq that
    anything was found of. `missing` are ranges of seqs without an event that counts.

    `unproved` are seqs whose events nothing but their place in the chain speaks for, `disagreed` those where somebody
    remembers another hash. At a fork that nobody settled the chain ends. `preferred` is whether one was settled.
    """

    end: int = 0
    last: int = 0
    missing: list[tuple[int, int]] = []
    unproved: list[int] = []
    disagreed: list[int] = []
    fork: Fork | None = None
    preferred: bool = False

    def miss(self, first: int, last: int) -> None:
        """Notes that seqs are missing, which come in order."""
        if self.missing and self.missing[-1][1] == first - 1:
            first, _ = self.missing.pop()
        self.missing.append((first, last))


class Verdict(NamedTuple):
    """What counts at a dot, if anything: or the branches of a fork there."""

    chosen: Candidate | None = None
    branches: dict[bytes, int] | None = None
    proved: bool = True


def doubt(dots: Iterable[Dot]) -> Iterator[int]:
    """The ids of the events that are not credible; the dots come from the last to the first."""
    after: list[Candidate] = []
    expected = 0
    for dot in dots:
        named = dot.heads.keys() | ({each.prev for each in after} if dot.seq == expected else set())
        after = [each for each in dot.candidates if each.sealed or not named or each.hash in named]
        expected = dot.seq - 1
        yield from (each.id for each in dot.candidates if each not in after)


def judge(dot: Dot, prev: bytes | None, one: Dot, two: Dot) -> Verdict:
    """What counts at a dot of credible events, where `prev` is the hash of the event before, None behind a gap; `one`
    and `two` are the dots after it."""
    named = one.hashes() | dot.heads.keys()
    vouched = two.hashes() | one.heads.keys()
    following = [each for each in dot.candidates if prev is None or each.prev == prev]
    supported = [each for each in following if each.sealed or each.hash in named]
    if not supported and len(following) == 1 and not named:
        return Verdict(following[0], proved=False)
    branches = {each.hash: each.sources for each in supported or following}
    for each in one.candidates if following else ():
        if each.prev not in branches and (each.sealed or each.hash in vouched):
            branches[each.prev] = each.sources
    if len(branches) == 1 and supported:
        return Verdict(supported[0])
    return Verdict(branches=branches) if len(branches) > 1 else Verdict()


def walk(dots: Iterable[Dot], reject: Callable[[int], None], prefer: int = 0) -> Chain:
    """Judges what is credible of one replica, in the order of seqs; `reject` is told the ids of what does not count.

    `prefer` is the bit of the source whose branch counts where there is a fork.
    """
    chain = Chain()
    prev: bytes | None = GENESIS
    whole = True
    for dot, one, two in _windows(dots):
        concerned = not chain.preferred or any(each.sources & prefer for each in dot.candidates)
        if dot.seq > chain.last + 1:
            prev, whole = None, False
            if concerned:
                chain.miss(chain.last + 1, dot.seq - 1)
        chain.last = dot.seq
        verdict = judge(dot, prev, one, two)
        chosen = verdict.chosen
        if verdict.branches is not None:
            chosen = _preferred(dot, verdict.branches, prefer)
            chain.preferred = chain.preferred or chosen is not None
            if chosen is None:
                chain.fork = Fork(dot.seq, verdict.branches)
                return chain
        for each in dot.candidates:
            if each is not chosen:
                reject(each.id)
        if chosen is None:
            prev, whole = None, False
            if concerned:
                chain.miss(dot.seq, dot.seq)
            continue
        chain.end = dot.seq if whole else chain.end
        if not verdict.proved:
            chain.unproved.append(dot.seq)
        if not chain.preferred and dot.heads.keys() - {chosen.hash}:
            chain.disagreed.append(dot.seq)
        prev = chosen.hash
    return chain


def _preferred(dot: Dot, branches: dict[bytes, int], prefer: int) -> Candidate | None:
    own = [each for each in dot.candidates if each.hash in branches and each.sources & prefer]
    return own[0] if len(own) == 1 else None


def _windows(dots: Iterable[Dot]) -> Iterator[tuple[Dot, Dot, Dot]]:
    """Each dot with the two that follow it, empty ones where nothing was found of those."""
    waiting: list[Dot] = []
    for dot in dots:
        waiting.append(dot)
        if len(waiting) == 3:
            yield _window(waiting)
            del waiting[0]
    while waiting:
        yield _window(waiting)
        del waiting[0]


def _window(waiting: list[Dot]) -> tuple[Dot, Dot, Dot]:
    first = waiting[0]
    by_seq = {dot.seq: dot for dot in waiting[1:]}
    return first, by_seq.get(first.seq + 1, Dot(first.seq + 1)), by_seq.get(first.seq + 2, Dot(first.seq + 2))
