"""Where the nodes of a reasoning graph stand: layers from the roots on, the first child in line with its parent.

The root therefore always stands in the first corner, where people start to read. A node hangs under
its first known parent; further parents become extra edges. Cycles are cut at the first node met, so
every graph can be drawn. No recursion: a graph may be deeper than Python's stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing in units of columns and rows.

    Attributes:
        places: (column, row) of every node, parents before their children; a row is a layer.
        tree_edges: (parent, child) along which the nodes are arranged.
        extra_edges: The other (parent, child) edges.
    """

    places: Mapping[str, tuple[int, int]]
    tree_edges: Sequence[tuple[str, str]]
    extra_edges: Sequence[tuple[str, str]]
    columns: int
    rows: int


def layout(parents: Mapping[str, Sequence[str]]) -> Layout:
    """Arrange the nodes, given every node's parents; parents that are no nodes are left out.

    In a graph with more leaves than layers small branches come first, so that siblings stay together;
    else children keep the order of the graph.
    """
    known, children = _linked(parents)
    forest = _forest(known, children)
    places = _places(forest)
    if _extent(places)[0] > _extent(places)[1]:
        sizes = _sizes(forest)
        forest = _forest(known, {node: sorted(below, key=sizes.__getitem__) for node, below in children.items()})
        places = _places(forest)
    columns, rows = _extent(places)
    tree = [(parent, node) for node, (parent, _) in forest.items() if parent is not None]
    drawn = set(tree)
    extra = [(p, node) for node, names in known.items() for p in dict.fromkeys(names) if (p, node) not in drawn]
    return Layout(places, tree, extra, columns, rows)


def _forest(
    parents: Mapping[str, Sequence[str]], children: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str | None, int]]:
    """Parent and depth of every node in depth-first order; what only a cycle reaches starts a tree of its own."""
    found: dict[str, tuple[str | None, int]] = {}
    roots = [node for node, names in parents.items() if not names]
    for root in [*roots, *parents]:
        stack: list[tuple[str, str | None, int]] = [(root, None, 0)]
        while stack:
            node, parent, depth = stack.pop()
            if node not in found:
                found[node] = (parent, depth)
                stack.extend((child, node, depth + 1) for child in reversed(children[node]))
    return found


def _places(forest: Mapping[str, tuple[str | None, int]]) -> dict[str, tuple[int, int]]:
    """A first child stays in its parent's column; a later one goes to the first that its whole branch has free."""
    heights = _heights(forest)
    free = [0] * (max((depth for _, depth in forest.values()), default=-1) + 1)
    places: dict[str, tuple[int, int]] = {}
    met: set[str] = set()
    for node, (parent, depth) in forest.items():
        if parent is not None and parent not in met:
            column = places[parent][0]
            met.add(parent)
        else:
            column = max(free[depth : depth + heights[node]])
        free[depth] = column + 1
        places[node] = (column, depth)
    return places


def _heights(forest: Mapping[str, tuple[str | None, int]]) -> dict[str, int]:
    """Layers of the branch that starts at each node."""
    heights = dict.fromkeys(forest, 1)
    for node, (parent, _) in reversed(list(forest.items())):
        if parent is not None:
            heights[parent] = max(heights[parent], heights[node] + 1)
    return heights


def _extent(places: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    columns, rows = zip(*places.values(), strict=True) if places else ((-1,), (-1,))
    return max(columns) + 1, max(rows) + 1


def _sizes(forest: Mapping[str, tuple[str | None, int]]) -> dict[str, int]:
    """How many nodes hang under each node, itself included."""
    sizes = dict.fromkeys(forest, 1)
    for node, (parent, _) in reversed(list(forest.items())):
        if parent is not None:
            sizes[parent] += sizes[node]
    return sizes


def first_nodes(parents: Mapping[str, Sequence[str]], limit: int) -> dict[str, Sequence[str]]:
    """At most ``limit`` nodes, those nearest to a root."""
    depths = {node: depth for node, (_, depth) in _forest(*_linked(parents)).items()}
    return {node: parents[node] for node in sorted(parents, key=depths.__getitem__)[:limit]}


def _linked(parents: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Every node's parents that are nodes, and the children that hang under it."""
    known = {node: [p for p in names if p in parents and p != node] for node, names in parents.items()}
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, names in known.items():
        if names:
            children[names[0]].append(node)
    return known, children
