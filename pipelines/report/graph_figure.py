"""The reasoning graph of a session as a drawing: judged, pruned and injected nodes told apart by word and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipelines.derive.acts import ACTOR_KINDS
from pipelines.derive.graphs import PRUNED
from pipelines.derive.replay import CONFLICT, CORRECT, DEFAULT_RULES, INCORRECT, PARTIAL, NodeState, Rules
from pipelines.report.elements import Element, element
from pipelines.report.graph_layout import Layout, first_nodes, layout

MAX_DRAWN: Final = 400
"""Nodes in one drawing, those nearest to the roots; the table below it names all."""

_CORNERS: Final = {CORRECT: 18, INCORRECT: 0, PARTIAL: 8, CONFLICT: 0}
"""Round for correct, square for incorrect: the shape says what the colour says."""

MARKS: Final = {CORRECT: "✓", INCORRECT: "✗", PARTIAL: "◐", CONFLICT: "≠"}
_WIDTH: Final = 208
_HEIGHT: Final = 84
_BESIDE: Final = 14
"""Free space between neighbours of one layer."""
_BETWEEN: Final = 40
"""Free space between two layers."""
_MARGIN: Final = 6
_TEXT_CHARS: Final = 220
_ANYONE: Final = Rules(verdict_kinds=frozenset(ACTOR_KINDS))

Place = tuple[float, float]


def node_anchor(number: int) -> str:
    """Id of the table row about the node, which the drawing links to."""
    return f"node-{number}"


def judgement(state: NodeState) -> tuple[str | None, str]:
    """The node's label; else what models or agents, who label nothing, said of it, and the word for who they are."""
    label = state.label()
    if label is not None:
        return label, ""
    said = state.label(rules=_ANYONE)
    kinds = sorted({verdict.kind for verdict in state.verdicts.values()} - DEFAULT_RULES.verdict_kinds)
    return said, f" by {' and '.join(kinds)}" if said else ""


def words_of(state: NodeState) -> list[str]:
    """What is to be said of a node in words: how it was judged, and whether it was pruned or injected."""
    label, whose = judgement(state)
    words = [f"{MARKS[label]} {label}{whose}"] if label in MARKS else []
    words += ["pruned"] if state.status() == PRUNED else []
    words += ["injected"] if state.inject is not None else []
    return words


def word_mark(word: str) -> Element:
    """One of these words, in its colour."""
    kind = word.removeprefix(word.partition(" ")[0]).strip().partition(" ")[0] if " " in word else word
    return element("span", {"class": f"word {kind}"}, word)


def graph_figure(states: Mapping[str, NodeState], anchors: Mapping[str, str]) -> Element:
    """The drawing: an SVG in which every node links to its row in the table.

    Layers run down the page; across it where the graph has more leaves than layers, so that it grows
    downwards, the way people scroll.
    """
    parents = {node_id: state.node.parents for node_id, state in states.items()}
    drawn = layout(parents if len(parents) <= MAX_DRAWN else first_nodes(parents, MAX_DRAWN))
    across = drawn.columns > drawn.rows
    at = {node: _position(place, across=across) for node, place in drawn.places.items()}
    width = max(x for x, _ in at.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in at.values()) + _HEIGHT + _MARGIN
    faded = _pruned_branches(drawn, states)
    edges = [_edge(at[a], at[b], "edge faded" if b in faded else "edge", across=across) for a, b in drawn.tree_edges]
    edges += [_edge(at[a], at[b], "edge extra", across=across) for a, b in drawn.extra_edges]
    nodes = [_node(node, states[node], at[node], anchors[node], faded=node in faded) for node in at]
    attributes = {
        "class": "graph", "width": f"{width:g}", "height": f"{height:g}", "viewBox": f"0 0 {width:g} {height:g}",
        "role": "group", "aria-label": f"Reasoning graph of {len(states)} nodes",
    }  # fmt: skip
    return element("svg", attributes, *edges, *nodes)


def _position(place: tuple[int, int], *, across: bool) -> Place:
    column, row = place
    if across:
        return _MARGIN + row * (_WIDTH + _BETWEEN), _MARGIN + column * (_HEIGHT + _BESIDE)
    return _MARGIN + column * (_WIDTH + _BESIDE), _MARGIN + row * (_HEIGHT + _BETWEEN)


def _pruned_branches(drawn: Layout, states: Mapping[str, NodeState]) -> set[str]:
    """Pruned nodes and everything that hangs under them."""
    above = {child: parent for parent, child in drawn.tree_edges}
    faded: set[str] = set()
    for node in drawn.places:  # parents come before their children
        if states[node].status() == PRUNED or above.get(node) in faded:
            faded.add(node)
    return faded


def _edge(parent: Place, child: Place, kind: str, *, across: bool) -> Element:
    """From the middle of the parent's far side to the child: straight, or by two right angles."""
    if across:
        x1, y1, x2, y2 = parent[0] + _WIDTH, parent[1] + _HEIGHT / 2, child[0], child[1] + _HEIGHT / 2
        way = f"H{x2 - _BETWEEN / 2:g}V{y2:g}H{x2:g}"
    else:
        x1, y1, x2, y2 = parent[0] + _WIDTH / 2, parent[1] + _HEIGHT, child[0] + _WIDTH / 2, child[1]
        way = f"V{y2 - _BETWEEN / 2:g}H{x2:g}V{y2:g}"
    return element("path", {"class": kind, "d": f"M{x1:g} {y1:g}{way}"})


def _node(node_id: str, state: NodeState, at: Place, anchor: str, *, faded: bool) -> Element:
    label, whose = judgement(state)
    injected = state.inject is not None
    marks = {label or "unjudged": True, "uncounted": bool(whose), "faded": faded, "injected": injected}
    words = words_of(state)
    attributes = {
        "href": f"#{anchor}", "class": " ".join(["node", *(mark for mark, holds in marks.items() if holds)]),
        "aria-label": f"Node {node_id}: {', '.join(words) or 'not judged'}",
    }  # fmt: skip
    corner = _CORNERS.get(label or "", 8)
    return element(
        "a",
        attributes,
        element("title", {}, _cut(state.node.content or "", 1_000)),
        _box("rect", at, 0, rx=str(corner)),
        _box("rect", at, 4, rx=str(max(0, corner - 4)), kind="inner") if injected else None,
        _box("foreignObject", at, 0, _face(node_id, state, words)),
    )


def _box(tag: str, at: Place, inset: int, *children: Element, rx: str = "", kind: str = "") -> Element:
    attributes = {
        "x": f"{at[0] + inset:g}", "y": f"{at[1] + inset:g}",
        "width": str(_WIDTH - 2 * inset), "height": str(_HEIGHT - 2 * inset), "rx": rx, "class": kind,
    }  # fmt: skip
    return element(tag, {name: value for name, value in attributes.items() if value}, *children)


def _face(node_id: str, state: NodeState, words: Sequence[str]) -> Element:
    name = element("bdi", {"class": "id"}, _cut(node_id, 24))
    return element(
        "div",
        {"class": "face"},
        element("div", {"class": "head"}, name, *(word_mark(word) for word in words)),
        element("div", {"class": "words", "dir": "auto"}, _cut(state.node.content or "(no text)", _TEXT_CHARS)),
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
