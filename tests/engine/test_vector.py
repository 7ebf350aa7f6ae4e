"""The lattice laws of version vectors, and their theorem: vectors compare as the sets of events they stand for."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.errors import RefoldError
from refold.vector import (
    Order,
    VectorError,
    compare,
    covers,
    format_vector,
    includes,
    join,
    missing,
    parse_vector,
)

REPLICAS = ["a", "b", "c"]
vectors = st.dictionaries(st.sampled_from(REPLICAS), st.integers(0, 4))
names = st.text(min_size=1, max_size=12).filter(lambda s: s == s.strip() and "," not in s and s.isprintable())
named_vectors = st.dictionaries(names, st.integers(1, 2**63 - 1), max_size=5)


def dots(vector: dict[str, int]) -> set[tuple[str, int]]:
    return {(replica, seq) for replica, last in vector.items() for seq in range(1, last + 1)}


@given(vectors, st.sampled_from(REPLICAS), st.integers(1, 5))
def test_a_dot_is_covered_exactly_if_it_is_in_the_set(v: dict[str, int], replica: str, seq: int) -> None:
    assert covers(v, replica, seq) == ((replica, seq) in dots(v))


@given(vectors, vectors)
def test_order_of_vectors_is_order_of_sets(a: dict[str, int], b: dict[str, int]) -> None:
    left, right = dots(a), dots(b)
    assert includes(a, b) == (left >= right)
    expected = {
        (True, True): Order.EQUAL,
        (True, False): Order.BEFORE,
        (False, True): Order.AFTER,
        (False, False): Order.CONCURRENT,
    }[left <= right, left >= right]
    assert compare(a, b) is expected


@given(vectors, vectors)
def test_compare_seen_from_the_other_side_is_its_mirror(a: dict[str, int], b: dict[str, int]) -> None:
    mirror = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}
    forward = compare(a, b)
    assert compare(b, a) is mirror.get(forward, forward)


@given(vectors, vectors)
def test_join_is_the_union_in_canonical_form(a: dict[str, int], b: dict[str, int]) -> None:
    joined = join(a, b)
    assert dots(joined) == dots(a) | dots(b)
    assert list(joined) == sorted(joined)
    assert all(joined.values())


@given(vectors, vectors, vectors)
def test_join_is_associative_commutative_and_idempotent(
    a: dict[str, int], b: dict[str, int], c: dict[str, int]
) -> None:
    assert join(a, join(b, c)) == join(join(a, b), c)
    assert join(a, b) == join(b, a)
    assert join(join(a, a), {}) == join(a, {})


@given(vectors, vectors, vectors)
def test_join_is_the_least_upper_bound(a: dict[str, int], b: dict[str, int], c: dict[str, int]) -> None:
    assert includes(join(a, b), a)
    assert includes(join(a, b), b)
    assert includes(c, join(a, b)) == (includes(c, a) and includes(c, b))


@given(vectors, vectors)
def test_order_and_join_say_the_same(a: dict[str, int], b: dict[str, int]) -> None:
    assert includes(a, b) == (join(a, b) == join(a, {}))


@given(vectors, vectors, vectors)
def test_includes_is_a_partial_order(a: dict[str, int], b: dict[str, int], c: dict[str, int]) -> None:
    assert includes(a, a)
    if includes(a, b) and includes(b, a):
        assert join(a, {}) == join(b, {})
    if includes(a, b) and includes(b, c):
        assert includes(a, c)


@given(vectors, vectors)
def test_missing_is_the_difference_of_the_sets(have: dict[str, int], want: dict[str, int]) -> None:
    ranges = missing(have, want)
    listed = [(replica, seq) for replica, first, last in ranges for seq in range(first, last + 1)]
    assert listed == sorted(dots(want) - dots(have))
    assert all(first <= last for _, first, last in ranges)
    assert len({replica for replica, _, _ in ranges}) == len(ranges)


@given(vectors, vectors)
def test_arguments_are_left_alone(a: dict[str, int], b: dict[str, int]) -> None:
    before = dict(a), dict(b)
    join(a, b), missing(a, b), compare(a, b), format_vector(a)
    assert (a, b) == before


@given(named_vectors)
def test_text_round_trips(v: dict[str, int]) -> None:
    text = format_vector(v)
    assert parse_vector(text) == v
    assert format_vector(parse_vector(text)) == text
    assert list(parse_vector(text)) == sorted(v)


def test_text_is_sorted_and_leaves_out_zeros() -> None:
    assert format_vector({"office": 12, "laptop": 3, "phone": 0}) == "laptop:3,office:12"
    assert format_vector({}) == ""
    assert parse_vector(" office:12 , laptop:3 ") == {"laptop": 3, "office": 12}
    assert parse_vector("") == parse_vector("  ") == {}
    assert parse_vector("host:8080:3") == {"host:8080": 3}


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("laptop", "laptop"),
        ("laptop:", "laptop:"),
        (":3", ":3"),
        ("laptop:0", "laptop:0"),
        ("laptop:-1", "laptop:-1"),
        ("laptop:+1", "laptop:+1"),
        ("laptop:03", "laptop:03"),
        ("laptop:1.5", "laptop:1.5"),
        ("laptop:٣", "laptop:٣"),
        ("laptop:9223372036854775808", "laptop:9223372036854775808"),
        ("laptop:1,", ""),
        (",", ""),
        ("a:1,b:x", "b:x"),
        ("a:1,a:2", "a:2"),
        ("a :1", "a :1"),
        ("a\nb:1", "a\nb:1"),
    ],
)
def test_nonsense_is_refused_with_its_entry(text: str, entry: str) -> None:
    with pytest.raises(VectorError) as caught:
        parse_vector(text)
    error = caught.value
    assert isinstance(error, RefoldError)
    assert (error.code, error.text, error.entry) == ("bad-vector", text, entry)
    assert repr(entry) in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("v", [{"a,b": 1}, {"": 1}, {" a": 1}, {"a\n": 1}, {"a": -1}, {"a": 2**63}])
def test_what_could_not_be_read_back_is_not_written(v: dict[str, int]) -> None:
    with pytest.raises(VectorError):
        format_vector(v)


def test_the_greatest_seq_round_trips() -> None:
    assert parse_vector(format_vector({"a": 2**63 - 1})) == {"a": 2**63 - 1}
