"""Names are reversible, apart from each other, and safe on every file system, for any text and for the nasty ones."""

import itertools
import re
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refold.names import LIMIT, decode_name, encode_name, twin_key, twin_name

NASTY = [
    "",
    " ",
    ".",
    "..",
    "...",
    "a.",
    "a ",
    " a",
    ".a",
    "a. .",
    "a/b",
    "/",
    "//",
    "../../etc/passwd",
    "a\\b",
    "C:",
    "a:b",
    "CON",
    "con",
    "Con.txt",
    "CON .x",
    "NUL.tar.gz",
    "COM1",
    "com0",
    "LPT9",
    "COM\xb9",
    "lpt\xb2.x",
    "CONIN$",
    "conout$",
    "CONSOLE",
    "aux",
    "prn.",
    "%",
    "%%",
    "%-",
    "%+",
    "%+/",
    "%41",
    "%~0badcafe",
    "a%~0badcafe",
    "\x00",
    "a\x00b",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "a\u200bb",
    "\u202e",
    "e\u0301",
    "\u00e9",
    "\u212b",
    "\u00c5",
    "\u1e9b\u0323",
    ":\u0301",
    "j\u0304.db",
    "x\u0330.db",
    "data.csv",
    "DATA.CSV",
    "data.c\u017fv",
    "meta.json",
    "events.jsonl",
    "refold.toml",
    "refold.x",
    ".refold",
    "changelog.db",
    "x.DB-wal",
    "x.lock",
    "\x1f.DB",
    "\x80.lock",
    "%.db",
    "/~1",
    "/abc~1",
    "EVENTS~1.JSO",
    "a~1",
    "\uac01",
    "\u1100\u1161",
    "\U0001f600",
    "\u2764\ufe0f",
    "\ue000",
    "\uffff",
    "\U0010ffff",
    "\u0897",
    "CON" * 100,
    "." * 700,
    " " * 700,
    "/" * 300,
    "\x00" * 300,
    "\u00e9" * 300,
    "e\u0301" * 300,
    "\U0001f600" * 200,
    "a" * 189 + "." * 9,
    "%+/" * 100,
    ("a" * 188 + ".") * 3,
    "NUL." + "x" * 300,
    "refold." + "x" * 300,
    "\u4e00" * 1000,
]
PLAIN = [
    "US",
    "Alaska",
    "076329",
    "São Paulo",
    "Autohaus Süd",
    "Groß GmbH",
    "GROẞ",
    "Москва",
    "東京",
    "한국",
    "v1.2",
    "2024-07-29",
]

DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    device + digit for device in ("COM", "LPT") for digit in "0123456789\xb9\xb2\xb3"
}
OWN = {"data.csv", "meta.json", "events.jsonl", "refold.toml"}
OWN_ENDS = (".db", ".db-wal", ".db-shm", ".db-journal", ".lock")

stored = st.characters(exclude_categories=["Cs"])
texts = (
    st.text(stored, max_size=12)
    | st.lists(
        st.sampled_from([*NASTY[:60], *"./\\%:+~- aA1", "\u0301", "\u0338", "con", ".db", "data.csv", "\u00e9"]),
        max_size=8,
    ).map("".join)
    | st.tuples(st.text(stored, min_size=1, max_size=6), st.integers(1, 400)).map(lambda pair: pair[0] * pair[1])
    | st.sampled_from(NASTY + PLAIN)
)


def assert_safe(component: str) -> None:
    assert component not in {"", ".", ".."}
    assert len(component.encode()) <= LIMIT
    assert not re.search(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]', component)
    assert component[0] not in ". "
    assert component[-1] not in ". "
    assert component.partition(".")[0].rstrip(" ").upper() not in DEVICES
    assert unicodedata.is_normalized("NFC", component)
    folded = component.casefold()
    assert folded not in OWN
    assert not folded.startswith(("refold.", ".refold"))
    assert folded.startswith("%") or not folded.endswith(OWN_ENDS)
    assert not re.fullmatch(r"[^.]{1,6}~\d+(\..{0,3})?", component)


@given(texts)
def test_any_text_comes_back_from_safe_components(text: str) -> None:
    path = encode_name(text)
    components = path.split("/")
    for component in components:
        assert_safe(component)
    assert all(component.endswith("%+") for component in components[:-1])
    assert not components[-1].endswith("%+")
    assert decode_name(path) == text


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_comes_back(text: str) -> None:
    for component in encode_name(text).split("/"):
        assert_safe(component)
    assert decode_name(encode_name(text)) == text


@given(texts)
@example("e\u0301")
@example(":\u0301")
def test_a_file_system_that_normalises_lists_names_that_decode(text: str) -> None:
    assert decode_name(unicodedata.normalize("NFD", encode_name(text))) == text


def test_every_character_is_safe_alone_and_within() -> None:
    for code in itertools.chain(range(0x3100), range(0xA000, 0xD800), range(0xE000, 0x20000, 3), [sys.maxunicode]):
        for text in (chr(code), f"x{chr(code)}y"):
            path = encode_name(text)
            assert decode_name(path) == text
            assert_safe(path)


@given(texts, texts)
def test_two_texts_have_two_paths_also_where_the_file_system_normalises(one: str, other: str) -> None:
    same = unicodedata.normalize("NFD", encode_name(one)) == unicodedata.normalize("NFD", encode_name(other))
    assert same == (one == other)


def test_nasty_texts_are_all_apart() -> None:
    paths = {encode_name(text) for text in [*NASTY, *PLAIN, None]}
    assert len(paths) == len({*NASTY, *PLAIN}) + 1


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert encode_name(text) == text


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Zanzibar-Urban/West", "Zanzibar-Urban%2FWest"),
        ("", "%"),
        (None, "%-"),
        ("%", "%25"),
        ("..", "%2E%2E"),
        ("CON", "%43ON"),
        ("nul.txt", "%6Eul.txt"),
        ("data.csv", "%64ata.csv"),
        ("e\u0301", "e%CC%81"),
        ("caf\u00e9 e\u0301", "caf%C3%A9 e%CC%81"),
        ("a" * 250, "a" * 190 + "%+/" + "a" * 60),
        ("\u00fc" * 120, "\u00fc" * 95 + "%+/" + "\u00fc" * 25),
    ],
)
def test_examples(text: str | None, path: str) -> None:
    assert encode_name(text) == path
    assert decode_name(path) == text


@given(texts)
def test_a_long_name_is_cut_between_characters(text: str) -> None:
    for chunk in encode_name(text).split("/"):
        if chunk not in ("%", "%-"):
            decode_name(chunk.removesuffix("%+"))


def test_names_do_not_depend_on_characters_younger_than_the_oldest_python_supported() -> None:
    for code in itertools.chain(range(0x80, 0x20000), range(0x20000, 0x110000, 97)):
        if unicodedata.category(char := chr(code)) in ("Cn", "Co"):
            assert encode_name(char).isascii()


def test_null_is_not_a_text() -> None:
    assert decode_name("%-") is None
    assert encode_name("%-") == "%25-"


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83d" * 300])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        encode_name(text)


@pytest.mark.parametrize("path", ["", "a/b", "%zz", "a%", "%2f", "%+", "%C3", "%FF", "a%+", "%~12345678"])
def test_what_is_no_encoded_name_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"not an encoded name|decode"):
        decode_name(path)


def test_twins_share_a_key() -> None:
    assert twin_key("US/Alaska") == twin_key("us/ALASKA")
    assert twin_key("Stra\u00dfe") == twin_key("STRASSE")
    assert twin_key("\u00e9") == twin_key("E\u0301")
    assert twin_key("US/Alaska") != twin_key("US/Alabama")


@given(texts)
def test_a_twin_key_is_a_fixed_point_that_ignores_normalisation(text: str) -> None:
    key = twin_key(encode_name(text))
    assert twin_key(key) == key
    assert twin_key(unicodedata.normalize("NFD", encode_name(text))) == key


@given(texts, texts)
def test_a_twin_name_is_safe_and_means_the_same_text(text: str, original: str) -> None:
    path = twin_name(encode_name(text), original)
    assert decode_name(path) == text
    assert all(len(component.encode()) <= 255 for component in path.split("/"))
    assert twin_key(path) != twin_key(encode_name(text))


def test_twins_are_told_apart_by_their_own_paths() -> None:
    assert twin_name("x", "us/alaska") != twin_name("x", "US/Alaska")
