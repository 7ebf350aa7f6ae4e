"""What is sealed opens only with its secret and only whole; what a header asks for has its bounds."""

from __future__ import annotations

import builtins
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.errors import ExtraMissing, SettingsInvalid
from refold_adapters.backup import BackupRefused, PassphraseNeeded, PassphraseWrong, Secret, passphrase, read_secret
from refold_adapters.backup.encryption import MAGIC, PIECE, Opened, Sealing, read_header

SECRET = Secret("scrypt", b"correct horse", cost=16)
KEY = Secret("key-file", bytes(range(32)))
SEALED = PIECE + 16


class Memory:
    """Bytes as a `Source`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        """See `Source.read_at`."""
        return self._data[offset : offset + size]


def seal(plain: bytes, secret: Secret = SECRET, salt: bytes = bytes(16), step: int = 50_000) -> bytes:
    """The bytes as they are sealed, written so many at a time."""
    out = io.BytesIO()
    sealing = Sealing(out, secret, salt, "parent")
    for at in range(0, len(plain), step):
        sealing.write(plain[at : at + step])
    sealing.close()
    return out.getvalue()


def unseal(data: bytes, secret: Secret | None = SECRET) -> bytes:
    """What was sealed."""
    opened = Opened("some", Memory(data), lambda: secret)
    return b"".join(opened.read_at(at, 10_007) for at in range(0, opened.size, 10_007))


def text(size: int) -> bytes:
    return bytes(n * 31 % 251 for n in range(size))


SIZES = [0, 1, 100, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 7]


@pytest.mark.parametrize("secret", [SECRET, KEY], ids=["passphrase", "key"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_comes_back(size: int, secret: Secret) -> None:
    data = seal(text(size), secret)
    assert unseal(data, secret) == text(size)
    assert text(size)[:200] not in data or size < 50


@settings(max_examples=60)
@given(st.integers(0, 3 * PIECE), st.integers(1, 100_000), st.integers(0, 3 * PIECE), st.integers(0, 2 * PIECE))
def test_any_part_can_be_read_however_it_was_written(size: int, step: int, at: int, count: int) -> None:
    opened = Opened("some", Memory(seal(text(size), KEY, step=step)), lambda: KEY)
    assert opened.size == size
    assert opened.read_at(at, count) == text(size)[at : at + count]


def test_wrong_secrets_are_told_from_damage() -> None:
    data = seal(text(100))
    with pytest.raises(PassphraseWrong):
        unseal(data, Secret("scrypt", b"battery staple"))
    for none in (None, KEY):
        with pytest.raises(PassphraseNeeded):
            unseal(data, none)
    with pytest.raises(PassphraseWrong):
        unseal(seal(b"x", KEY), Secret("key-file", bytes(32)))


@pytest.mark.parametrize("size", SIZES[1:])
def test_a_change_anywhere_is_found(size: int) -> None:
    data = seal(text(size), KEY)
    for at in (
        0,
        5,
        len(MAGIC) + 2,
        len(MAGIC) + 20,
        len(data) - size - 20,
        len(data) // 2,
        len(data) - 17,
        len(data) - 1,
    ):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises((BackupRefused, PassphraseWrong)) as caught:
            unseal(bytes(changed), KEY)
        if at < len(MAGIC) + 30:
            assert caught.type is BackupRefused


def pieces(size: int, salt: bytes = bytes(16)) -> tuple[bytes, list[bytes]]:
    """The header with its tag, and the sealed pieces."""
    data = seal(text(size), KEY, salt)
    start = read_header("some", Memory(data))[2] + 32
    return data[:start], [data[at : at + SEALED] for at in range(start, len(data), SEALED)]


def test_pieces_cannot_be_cut_off_dropped_exchanged_doubled_or_taken_from_another_file() -> None:
    head, parts = pieces(3 * PIECE + 5)
    _, others = pieces(3 * PIECE + 5, bytes(15) + b"\1")
    assert unseal(head + b"".join(parts), KEY) == text(3 * PIECE + 5)
    wrong = {
        "cut": parts[:-1],
        "cut in a piece": [*parts[:2], parts[2][:-9]],
        "dropped": [parts[0], *parts[2:]],
        "exchanged": [parts[1], parts[0], *parts[2:]],
        "doubled": [parts[0], parts[0], *parts[1:]],
        "from another": [*parts[:2], others[2], parts[3]],
        "more": [*parts, parts[-1]],
        "all cut": [],
    }
    for what, found in wrong.items():
        with pytest.raises(BackupRefused):
            unseal(head + b"".join(found), KEY)
        assert what
    with pytest.raises(BackupRefused, match="cut short after piece 2"):
        unseal(head + b"".join(parts[:3]), KEY)


def headed(**changes: object) -> bytes:
    """A file whose header is sound in itself, and asks for this."""
    told = json.dumps({"kdf": "scrypt", "salt": "00" * 16, "n": 16, "r": 8, "p": 1, "parent": None, **changes}).encode()
    start = MAGIC + len(told).to_bytes(4, "big") + told
    return start + sha256(start).digest()[:8] + bytes(32) + bytes(100)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 1 << 30},
        {"n": 1 << 20, "r": 8},
        {"n": 17},
        {"n": 0},
        {"n": -2},
        {"r": 1 << 20},
        {"p": 1000},
        {"salt": ""},
        {"salt": "zz"},
        {"kdf": "none"},
        {"more": 1},
        {"n": "16"},
    ],
    ids=str,
)
def test_a_header_cannot_ask_for_more_than_it_may(changes: dict[str, object]) -> None:
    def never() -> Secret:
        raise AssertionError("the secret is not asked for")

    with pytest.raises(BackupRefused):
        Opened("some", Memory(headed(**changes)), never)


@pytest.mark.parametrize("data", [b"", MAGIC, MAGIC + b"\xff\xff\xff\xff", MAGIC + b"\0\0\0\5nulls", b"PK"])
def test_files_that_do_not_start_so(data: bytes) -> None:
    with pytest.raises(BackupRefused):
        unseal(data)


def test_where_secrets_come_from(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for content, kind, found in (
        (b"word\n", "scrypt", passphrase("word")),
        ("pässword".encode(), "scrypt", passphrase("pässword")),
        (bytes(32), "key-file", Secret("key-file", bytes(32))),
    ):
        path.write_bytes(content)
        assert read_secret(path, kind) == found  # type: ignore[arg-type]
    for content, kind in (
        (b"\n", "scrypt"),
        (b"\xff", "scrypt"),
        (bytes(31), "key-file"),
        (bytes(2 << 20), "key-file"),
    ):
        path.write_bytes(content)
        with pytest.raises(SettingsInvalid):
            read_secret(path, kind)  # type: ignore[arg-type]


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return plain(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraMissing) as caught:
        seal(b"x")
    assert caught.value.extra == "encryption"
