"""A hash of a file that grows at its end, without reading again what stands there.

    hash = H(u_n + b_n),  u_1 = "",  u_(i+1) = H(u_i + b_i)

where H is SHA-256 and b_1 ... b_n are the blocks of 1 MiB that the file consists of, the last one being shorter, or
whole. So the hash of a file of up to 1 MiB is its plain SHA-256, and to append takes no more than the last block and
`u_n`. It binds every byte as SHA-256 itself does: this is the Merkle-Damgård construction once more, with blocks of a
MiB, and the length that it must fix stands beside the hash in meta.json.
"""

from __future__ import annotations

from hashlib import sha256

BLOCK = 1 << 20


class BlockHash:
    """The hash of the bytes so far; `upper` and `tail` resume where an earlier one stood."""

    def __init__(self, upper: bytes = b"", tail: bytes = b"", size: int = 0) -> None:
        self.upper = upper
        self.size = size
        self._room = BLOCK - len(tail)
        self._hash = sha256(upper + tail)

    def update(self, data: bytes) -> None:
        """Takes in more bytes."""
        self.size += len(data)
        if len(data) <= self._room:
            self._room -= len(data)
            self._hash.update(data)
            return
        view = memoryview(data)
        while view:
            if not self._room:
                self.upper = self._hash.digest()
                self._hash = sha256(self.upper)
                self._room = BLOCK
            part = view[: self._room]
            self._hash.update(part)
            self._room -= len(part)
            view = view[len(part) :]

    def digest(self) -> bytes:
        """The hash of all bytes so far."""
        return self._hash.digest()


def tail_start(size: int) -> int:
    """Where the last block of a file of this size starts."""
    return (size - 1) // BLOCK * BLOCK if size else 0
