"""Inputs that nobody writes: valid ones are changed by chance, and every decoder takes or refuses them as it says.

A decoder may not raise anything but its own errors, take more memory than `MEMORY` beyond what the process had, or more
time than `SECONDS` for one input. Inputs are functions of the seed, the decoder's name and their number.
"""

from __future__ import annotations

import random
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType

import msgspec

from .decoders import Decoder, Wrong

MEMORY = 320 << 20
SECONDS = 1.0
LONGEST = 1 << 16
BLOCK = 500
"""Inputs of one seed: what has to be made again to see one of them again."""

_NUMBERS = [bytes([0xFF] * n) for n in (1, 2, 4, 8)] + [b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x0f\xff\xff\xf0"]
_PIECES = [
    *(b"[" * 3000, b'{"a":' * 2000, b"\x91" * 5000, b"\x81\xa1a" * 2000, b"[[[[[[", b'{"seq":' * 3, b"a.b." * 300),
    *(b"\xdd\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xd6\xff\xff\xff\xff\xff"),
    *(b'"', b"'" * 40, b",", b"\r", b"\n", b"\r\n", b"\0", b'"""', b"-", b"../", b"{", b"}", b"%", b"1=" * 5),
    *(b"\xed\xa0\x80", b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\xe2\x80\xae"),
    *(b"1e999", b"9" * 5000, b"NaN", b"=" * 30, b"a" * 3000),
]


class Tally(msgspec.Struct):
    """What came of the inputs of one decoder."""

    name: str
    inputs: int = 0
    taken: int = 0
    refused: int = 0
    slowest: float = 0.0
    complaints: list[str] = []


def mutate(draw: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds, changed in up to a few places."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3, 5, 9))):
        at = draw.randrange(len(data) + 1)
        way = draw.randrange(9)
        if way == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif way == 1 and at < len(data):
            data[at] = draw.randrange(256)
        elif way == 2:
            del data[at : at + draw.choice((1, 1, 2, 4, 8, 64))]
        elif way == 3:
            data[at:at] = draw.randbytes(draw.choice((1, 1, 2, 4, 8)))
        elif way == 4:
            number = draw.choice(_NUMBERS)
            data[at : at + len(number)] = number
        elif way == 5:
            data[at:at] = draw.choice(_PIECES)
        elif way == 6:
            other = draw.choice(seeds)
            start = draw.randrange(len(other) + 1)
            data[at:] = other[start:]
        elif way == 7:
            piece = data[at : at + draw.choice((1, 4, 16, 200))]
            data[at:at] = piece * draw.choice((1, 2, 20))
        else:
            del data[at:]
    return bytes(data[:LONGEST])


def inputs(seed: str, name: str, decoder: Decoder, block: int) -> Iterator[bytes]:
    """The inputs of one block."""
    draw = random.Random(f"{seed}/{name}/{block}")
    for _ in range(BLOCK):
        data = mutate(draw, decoder.seeds)
        yield decoder.mend(data) if decoder.mend is not None and draw.random() < 0.6 else data


def confine() -> None:
    """Bounds this process: more memory than it may take is refused to it, and an input that takes too long ends."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def feed(decoder: Decoder, tally: Tally, data: bytes) -> None:
    """Gives one input to a decoder, and counts what comes of it."""
    tally.inputs += 1
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    begun = time.perf_counter()
    try:
        decoder.decode(data)
        tally.taken += 1
    except decoder.refusals as refusal:
        tally.refused += 1
        if not str(refusal):
            tally.complaints.append(f"a refusal without words: {refusal!r}: {data[:200]!r}")
    except Wrong as wrong:
        tally.complaints.append(f"{wrong}: {data[:200]!r}")
    except Exception as error:  # noqa: BLE001 - any error but the decoder's own is what is looked for
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{at.filename.rpartition('/')[2]}:{at.lineno}"
        tally.complaints.append(f"{type(error).__name__} at {where}: {str(error)[:200]}: {data[:200]!r}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    tally.slowest = max(tally.slowest, time.perf_counter() - begun)


def run(seed: str, name: str, decoder: Decoder, blocks: range) -> Tally:
    """Feeds some blocks of inputs to a decoder, until something is wrong."""
    tally = Tally(name)
    for data in decoder.seeds:
        feed(decoder, tally, data)
    if tally.refused:
        tally.complaints.append("inputs to begin with are refused")
    for block in blocks:
        for data in inputs(seed, name, decoder, block):
            feed(decoder, tally, data)
            if len(tally.complaints) > 2:
                return tally
    return tally


def shares(table: dict[str, Decoder], count: int) -> dict[str, int]:
    """How many blocks each decoder gets when there are to be so many inputs."""
    weights = sum(decoder.weight for decoder in table.values())
    return {name: max(1, round(count * decoder.weight / weights / BLOCK)) for name, decoder in table.items()}
