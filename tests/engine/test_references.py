"""Which collection refers to which: parents first, circles told."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st

from refold import Collection, Field
from refold.references import dependency_order, undefined_targets
from refold.schema import Schema

NAMES = "abcdefg"


def schemas(refers: Mapping[str, set[str]]) -> dict[str, Schema]:
    """Collections that refer to others, in the order of the mapping."""
    return {
        name: Schema(
            Collection(
                name=name,
                key="id",
                fields={
                    "id": Field("str"),
                    **{f"to_{other}": Field("str", null=True, references=other) for other in sorted(targets)},
                },
            )
        )
        for name, targets in refers.items()
    }


graphs = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES), max_size=3))


def reaches(refers: Mapping[str, set[str]], start: str, end: str) -> bool:
    """Whether records of one collection may refer to the other, by walking at most as many steps as there are names."""
    front = {start}
    for _ in NAMES:
        front = {target for name in front for target in refers.get(name, ()) if target in refers}
        if end in front:
            return True
    return False


@given(graphs)
def test_parents_come_first_and_circles_are_told(refers: dict[str, set[str]]) -> None:
    order, circles = dependency_order(schemas(refers))
    assert sorted(order) == sorted(refers)
    circle_of = {name: circle for circle in circles for name in circle}
    for child in refers:
        assert (child in circle_of) == reaches(refers, child, child)
        for parent in refers:
            both = reaches(refers, child, parent) and reaches(refers, parent, child)
            if both:
                assert circle_of[child] is circle_of[parent]
            elif reaches(refers, child, parent):
                assert order.index(parent) < order.index(child)
    for circle in circles:
        assert circle == sorted(circle) == order[order.index(circle[0]) :][: len(circle)]
    assert circles == sorted(circles)
    backwards = dict(reversed(refers.items()))
    assert dependency_order(schemas(backwards)) == (order, circles)


def test_without_circles_it_is_a_topological_order() -> None:
    refers = {"lines": {"orders", "parts"}, "orders": {"people"}, "parts": set[str](), "people": set[str]()}
    order, circles = dependency_order(schemas(refers))
    assert (order, circles) == (["parts", "people", "orders", "lines"], [])
    assert set(TopologicalSorter(refers).static_order()) == set(order)


def test_a_tree_refers_to_itself_and_unknown_collections_are_named() -> None:
    known = schemas({"tags": {"tags"}, "trips": {"tags", "boats"}})
    assert dependency_order(known) == (["tags", "trips"], [["tags"]])
    assert undefined_targets(known) == [("trips", "to_boats", "boats")]
    assert dependency_order({}) == ([], [])
