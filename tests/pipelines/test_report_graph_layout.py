"""Every graph can be drawn: each node once, in its own place, one layer after its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.graph_layout import first_nodes, layout

NAMES = st.sampled_from([f"n{i}" for i in range(9)])
GRAPHS = st.dictionaries(NAMES, st.lists(st.one_of(NAMES, st.just("nowhere")), max_size=3), max_size=9)


@given(GRAPHS)
def test_any_graph_has_a_place_for_every_node_and_every_edge_once(parents: Mapping[str, Sequence[str]]) -> None:
    drawn = layout(parents)
    assert set(drawn.places) == set(parents)
    assert len(set(drawn.places.values())) == len(parents)
    edges = {(p, node) for node, names in parents.items() for p in names if p in parents and p != node}
    assert sorted([*drawn.tree_edges, *drawn.extra_edges]) == sorted(edges)
    for parent, child in drawn.tree_edges:
        assert drawn.places[child][1] == drawn.places[parent][1] + 1
        assert drawn.places[child][0] >= drawn.places[parent][0]
    assert drawn.columns == max((c for c, _ in drawn.places.values()), default=-1) + 1
    assert drawn.rows == max((r for _, r in drawn.places.values()), default=-1) + 1


def test_a_chain_stands_in_one_column_and_a_later_branch_beside_it() -> None:
    drawn = layout({"q": [], "a": ["q"], "b": ["a"], "c": ["b"], "x": ["a"]})
    assert drawn.places == {"q": (0, 0), "a": (0, 1), "b": (0, 2), "c": (0, 3), "x": (1, 2)}


def test_branches_that_do_not_meet_share_columns() -> None:
    drawn = layout({"q": [], "a": ["q"], "b": ["a"], "c": ["a"], "d": ["a"], "pruned": ["q"], "e": ["d"], "f": ["e"]})
    assert drawn.places["d"] == (2, 2)
    assert drawn.places["pruned"] == (1, 1)


def test_in_a_broad_graph_small_branches_come_first() -> None:
    parents = {"q": [], "big": ["q"], **{f"b{i}": ["big"] for i in range(4)}, "small": ["q"]}
    drawn = layout(parents)
    assert drawn.places["small"] == (0, 1)
    assert drawn.places["big"] == (1, 1)


def test_a_second_parent_is_an_extra_edge() -> None:
    drawn = layout({"q": [], "a": ["q"], "b": ["q"], "c": ["a", "b"]})
    assert drawn.extra_edges == [("b", "c")]
    assert ("a", "c") in drawn.tree_edges


def test_a_cycle_is_cut_where_it_is_met() -> None:
    drawn = layout({"a": ["b"], "b": ["a"]})
    assert drawn.places == {"a": (0, 0), "b": (0, 1)}
    assert drawn.extra_edges == [("b", "a")]


def test_a_graph_deeper_than_pythons_stack() -> None:
    depth = 20_000
    drawn = layout({"0": [], **{str(i): [str(i - 1)] for i in range(1, depth)}})
    assert (drawn.columns, drawn.rows) == (1, depth)


@pytest.mark.parametrize("limit", [0, 1, 3, 10])
def test_the_nodes_nearest_to_a_root_are_kept(limit: int) -> None:
    parents = {"deep": ["b"], "b": ["a"], "a": ["q"], "q": []}
    assert list(first_nodes(parents, limit)) == ["q", "a", "b", "deep"][:limit]
