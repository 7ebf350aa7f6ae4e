"""Encryption of a whole file, in pieces, so that memory is constant and a cut or an exchange is found.

    "refold encrypted 1\\n" length(4) header check(8) tag(32) piece piece ... last piece

The pieces are 64 KiB, sealed with AES-256-GCM in the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár,
"Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (2015): the nonce is a prefix of the file's own
(7 bytes), the number of the piece (4), and 1 for the last piece, so pieces can be neither dropped, exchanged, nor taken
from another file, and the last one proves that it is. Key, prefix and the key of the tag come by HKDF from the salt,
the whole header, and what the user has: a key file, or a passphrase stretched by scrypt (RFC 7914).

`check` is the start of the header's plain hash, so damage is told from a wrong passphrase; `tag` is its HMAC. A header
says what it costs to open: more than 256 MiB is refused before anything is computed.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from refold.errors import ExtraMissing, SettingsInvalid, StorageFailed

from .errors import BackupRefused, PassphraseNeeded, PassphraseWrong
from .zip_reading import Source

MAGIC = b"refold encrypted 1\n"
PIECE = 1 << 16
SCRYPT_N = 1 << 17
"""The cost of a passphrase: 128 MiB and about half a second."""

_TAG = 16
_HEADER_LIMIT = 4096
_MEMORY_LIMIT = 256 << 20
_KEY_FILE = 32, 1 << 20
_WORDS = {"scrypt": "passphrase", "key-file": "key file"}


class Secret(msgspec.Struct, frozen=True):
    """What opens encrypted backups: the bytes of a passphrase or of a key file. `cost` is scrypt's n when sealing."""

    kind: Literal["scrypt", "key-file"]
    data: bytes
    cost: int = SCRYPT_N


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the clear: how the key is made, and what keeping and listing backups needs to know."""

    kdf: Literal["scrypt", "key-file"]
    salt: str
    n: int
    r: int
    p: int
    parent: str | None


class Out(Protocol):
    """Where bytes go, in order."""

    def write(self, data: bytes, /) -> int:
        """Takes all of them."""

    def flush(self) -> None:
        """Holds nothing back that can be handed on."""


def passphrase(text: str) -> Secret:
    """A passphrase as a secret; line ends around it are no part of it. Raises `SettingsInvalid` for an empty one."""
    data = text.strip("\r\n").encode()
    if not data:
        raise SettingsInvalid("passphrase", "it is empty")
    return Secret("scrypt", data)


def read_secret(path: Path, kind: Literal["scrypt", "key-file"]) -> Secret:
    """The passphrase or key in a file. Raises `SettingsInvalid`, `StorageFailed`."""
    least, most = _KEY_FILE
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise StorageFailed(str(path), f"reading the {_WORDS[kind]}", str(error)) from error
    if len(data) > most:
        raise SettingsInvalid(str(path), f"more than {most} bytes are no {_WORDS[kind]}")
    if kind == "scrypt":
        try:
            return passphrase(data.decode())
        except UnicodeDecodeError:
            raise SettingsInvalid(str(path), "a passphrase is UTF-8 text; say --key-file for other bytes") from None
    if len(data) < least:
        raise SettingsInvalid(str(path), f"a key file holds at least {least} random bytes")
    return Secret(kind, data)


def _aead() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ExtraMissing("cryptography", "encryption") from None
    return AESGCM


def _keys(secret: Secret, header: Header, told: bytes) -> tuple[Any, bytes, bytes]:
    """The cipher, the prefix of its nonces, and the key of the header's tag. Raises `ExtraMissing`."""
    aead = _aead()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    salt, data = bytes.fromhex(header.salt), secret.data
    if secret.kind == "scrypt":
        data = Scrypt(salt=salt, length=32, n=header.n, r=header.r, p=header.p).derive(data)
    made = HKDF(algorithm=SHA256(), length=71, salt=salt, info=MAGIC + told).derive(data)
    return aead(made[:32]), made[32:39], made[39:]


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


class Sealing:
    """Seals what is written to it into `out`; it is whole once it was closed."""

    def __init__(self, out: Out, secret: Secret, salt: bytes, parent: str | None) -> None:
        header = Header(
            secret.kind, salt.hex(), *((secret.cost, 8, 1) if secret.kind == "scrypt" else (0, 0, 0)), parent
        )
        told = msgspec.json.encode(header)
        self._cipher, self._prefix, key = _keys(secret, header, told)
        self._out = out
        self._kept = bytearray()
        self._number = 0
        start = MAGIC + len(told).to_bytes(4, "big") + told
        out.write(start + sha256(start).digest()[:8] + hmac.digest(key, start, "sha256"))

    def write(self, data: bytes, /) -> int:
        """See `Out.write`."""
        self._kept += data
        whole = (len(self._kept) - 1) // PIECE
        for start in range(0, whole * PIECE, PIECE):
            self._seal(bytes(self._kept[start : start + PIECE]), last=False)
        if whole > 0:
            del self._kept[: whole * PIECE]
        return len(data)

    def flush(self) -> None:
        """See `Out.flush`: what is no whole piece yet waits."""
        self._out.flush()

    def _seal(self, piece: bytes, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._prefix, self._number, last=last), piece, None))
        self._number += 1

    def close(self) -> None:
        """Seals the last piece."""
        self._seal(bytes(self._kept), last=True)


def read_header(path: str, source: Source) -> tuple[Header, bytes, int]:
    """The header, its bytes, and where its tag starts. Raises `BackupRefused`."""
    lead = source.read_at(0, len(MAGIC) + 4)
    length = int.from_bytes(lead[len(MAGIC) :], "big")
    if not lead.startswith(MAGIC) or length > _HEADER_LIMIT:
        raise BackupRefused(path, "it does not start as an encrypted backup does")
    start = source.read_at(0, len(lead) + length)
    if source.read_at(len(start), 8) != sha256(start).digest()[:8]:
        raise BackupRefused(path, "its header is damaged")
    told = start[len(lead) :]
    try:
        header = msgspec.json.decode(told, type=Header)
        salt = bytes.fromhex(header.salt)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BackupRefused(path, f"its header cannot be read: {error}") from None
    n, r, p = header.n, header.r, header.p
    if len(salt) != 16:
        raise BackupRefused(path, "its header has no salt")
    if header.kdf == "scrypt" and not (
        2 <= n <= 1 << 20 and n & (n - 1) == 0 and 1 <= r <= 32 and 1 <= p <= 4 and 128 * n * r <= _MEMORY_LIMIT
    ):
        raise BackupRefused(path, f"its header asks for scrypt with n={n}, r={r}, p={p}, which is more than it may")
    return header, told, len(start) + 8


class Opened:
    """An encrypted file as the bytes that were sealed.

    Raises `PassphraseNeeded`, `PassphraseWrong`, `BackupRefused`.
    """

    def __init__(self, path: str, source: Source, secret: Callable[[], Secret | None]) -> None:
        self._path = path
        self._source = source
        header, told, at = read_header(path, source)
        found = secret()
        if found is None or found.kind != header.kdf:
            raise PassphraseNeeded(path, _WORDS[header.kdf])
        self._cipher, self._prefix, key = _keys(found, header, told)
        start = MAGIC + len(told).to_bytes(4, "big") + told
        if not hmac.compare_digest(hmac.digest(key, start, "sha256"), source.read_at(at, 32)):
            raise PassphraseWrong(path, _WORDS[header.kdf])
        self._start = at + 32
        sealed = source.size - self._start
        self._last = max(0, -(-sealed // (PIECE + _TAG)) - 1)
        self.size = sealed - (self._last + 1) * _TAG
        if self.size < 0 or self._last >= 1 << 32:
            raise BackupRefused(path, "it is cut short")
        self._held: tuple[int, bytes] = -1, b""
        self._piece(self._last)

    def _piece(self, number: int) -> bytes:
        if self._held[0] != number:
            sealed = self._source.read_at(self._start + number * (PIECE + _TAG), PIECE + _TAG)
            self._held = number, self._open(sealed, number)
        return self._held[1]

    def _open(self, sealed: bytes, number: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        last = number == self._last
        try:
            plain: bytes = self._cipher.decrypt(_nonce(self._prefix, number, last=last), sealed, None)
            return plain
        except InvalidTag:
            pass
        if not last:
            raise BackupRefused(self._path, f"piece {number} of what is encrypted is damaged or was exchanged")
        try:
            self._cipher.decrypt(_nonce(self._prefix, number, last=False), sealed, None)
        except InvalidTag:
            raise BackupRefused(self._path, "its end is damaged, or it is cut short") from None
        raise BackupRefused(self._path, f"it is cut short after piece {number}")

    def read_at(self, offset: int, size: int) -> bytes:
        """See `Source.read_at`."""
        parts = []
        end = min(offset + size, self.size)
        while offset < end:
            number, within = divmod(offset, PIECE)
            part = self._piece(number)[within : within + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)
