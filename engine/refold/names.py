"""Any text as a safe path component, and back.

A folder is named after a value, and values are arbitrary: they hold slashes, they are empty, they are
called "CON". The mapping is percent-encoding (RFC 3986, section 2.1) of the characters that some file
system refuses, drops or folds away. It is reversible because "%" itself is always encoded: every "%"
in a path is ours, and what follows it tells what it means.

    %XX   one byte of UTF-8        %     (alone) the empty text
    %+    goes on in the child     %-    (alone) null
    %~hhhhhhhh   this folder has a twin on file systems that ignore case

The same text has the same name on every machine. Normalisation and case folding are stable only for
characters that are assigned (https://www.unicode.org/policies/stability_policy.html), so a character that
was not yet assigned in Unicode 3.2 (the version of HFS+, and of Python's `ucd_3_2_0`) is encoded, save
for a short list in daily use whose properties are settled. Characters that HFS+ and the casefolding ext4
ignore in comparisons (Default_Ignorable_Code_Point) are encoded as well. What remains is NFC, so a file
system that normalises cannot merge two names; text that is not NFC has all its non-ASCII encoded.

Reserved on Windows: https://learn.microsoft.com/windows/win32/fileio/naming-a-file, 8.3 aliases included.
"""

import functools
import hashlib
import re
import unicodedata

LIMIT = 200
_CHUNK = 190

_LETTERS = (
    r"A-Za-z0-9_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0410-\u044f\u05d0-\u05ea"
    r"\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
_PLAIN = re.compile(
    rf"(?!(?i:CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])\Z)[{_LETTERS}(-][{_LETTERS}()&',;+=@ -]{{0,59}}(?<! )"
).fullmatch

_FORBIDDEN = r'\x00-\x1f"%*/:<>?\\|\x7f-\x9f'
_CANDIDATE = re.compile(rf"[{_FORBIDDEN}]|[^\x00-\x7f]")
_NEVER = re.compile(
    r"[\x80-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U000e0000-\U0010ffff]"
).match
_SETTLED = re.compile(
    r"[\u09ce\u0d7a-\u0d7f\u1028\u102b\u1033-\u1035\u103a-\u103f\u1e9e\u20b2-\u20bf"
    r"\U0001f300-\U0001f6d7\U0001f90c-\U0001f9ff]"
).match

_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CLOCK\$|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\xb9\xb2\xb3]) *(?:\.|\Z)", re.IGNORECASE
).match
_SHORT = re.compile(r"[^.]{1,6}~[0-9]{1,6}(?:\..{0,3})?", re.DOTALL).fullmatch
_OWN = re.compile(
    r"data\..*|(?:meta\.json|events\.jsonl)(?:\..*)?|refold\..*|.*\.(?:db|db-wal|db-shm|db-journal|lock)", re.DOTALL
).fullmatch

_TOKEN = re.compile(r"%[0-7][0-9A-F]|%[C-F][0-9A-F](?:%[89AB][0-9A-F])+|.", re.DOTALL)
_ESCAPES = re.compile(r"(?:%[0-9A-F]{2})+")
_MALFORMED = re.compile(r"%(?![0-9A-F]{2})|/")
_TWIN = re.compile(r"%~[0-9a-f]{8}\Z")


def encode_name(text: str | None) -> str:
    """The path of a value: one component, or several joined by "/" when it is longer than `LIMIT` bytes.

    A lone surrogate raises UnicodeEncodeError, a ValueError.
    """
    if text is None:
        return "%-"
    if _PLAIN(text):
        return text
    return _remembered(text) if len(text) <= LIMIT else _encode(text)


def decode_name(path: str) -> str | None:
    """The value whose path this is, as listed by any file system: NFD is put right, a twin's suffix dropped."""
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    path = _TWIN.sub("", path)
    if path in ("%", "%-"):
        return "" if path == "%" else None
    joined = path.replace("%+/", "")
    if not joined or _MALFORMED.search(joined):
        raise ValueError(f"not an encoded name: {path!r}")
    return _ESCAPES.sub(lambda run: bytes.fromhex(run[0].replace("%", "")).decode(), joined)


def twin_key(path: str) -> str:
    """Paths with one key are one folder where case and normalisation are ignored (Unicode, D145)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def twin_name(path: str, original: str) -> str:
    """The path for a folder whose own path is taken by a twin; `original` is what tells it from others."""
    return f"{path}%~{hashlib.sha256(original.encode()).hexdigest()[:8]}"


def _encode(text: str) -> str:
    text.encode()
    if not text:
        return "%"
    if unicodedata.is_normalized("NFC", text):
        path = _split(_CANDIDATE.sub(_escape_unsettled, text))
        # An escape can end in a letter that composes with a mark behind it: ":" + U+0301 is "%3A" + U+0301.
        if unicodedata.is_normalized("NFC", path):
            return path
    return _split(_CANDIDATE.sub(_escape, text))


_remembered = functools.lru_cache(maxsize=2048)(_encode)


def _escape(match: re.Match[str]) -> str:
    return _percent(match[0])


def _escape_unsettled(match: re.Match[str]) -> str:
    char = match[0]
    if char < "\x80" or _NEVER(char):
        return _percent(char)
    if _SETTLED(char) or unicodedata.ucd_3_2_0.category(char) != "Cn":
        return char
    return _percent(char)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def _split(escaped: str) -> str:
    whole = _guard(escaped, last=True)
    if len(whole.encode()) <= LIMIT:
        return whole
    chunks: list[str] = []
    tokens: list[str] = []
    size = 0
    for token in _TOKEN.findall(escaped):
        width = len(token.encode())
        if size + width > _CHUNK:
            chunks.append(_guard("".join(tokens), last=False))
            tokens, size = [], 0
        tokens.append(token)
        size += width
    return "/".join([*chunks, _guard("".join(tokens), last=True)])


def _guard(name: str, *, last: bool) -> str:
    if not last:
        name += "%+"
    elif name[-1] in ". ":
        name = name[:-1] + _percent(name[-1])
    if _SHORT(name):
        name = name.replace("~", _percent("~"))
    if name[0] in ". " or (name[0] != "%" and (_DEVICE(name) or _OWN(name.casefold()))):
        name = _percent(name[0]) + name[1:]
    return name
