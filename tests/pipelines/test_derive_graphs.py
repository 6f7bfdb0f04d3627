from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.derive.graphs import depths, normalise, parse, path_to

EXPECTED = {"q": [], "a": ["q"], "b": ["q"], "c": ["a"]}

SHAPES: dict[str, tuple[str, Any]] = {
    "node-link, edges": (
        "node_link",
        {"nodes": [{"id": n} for n in "qabc"], "edges": [{"source": s, "target": t} for s, t in ("qa", "qb", "ac")]},
    ),
    "node-link, links": (
        "node_link",
        {"nodes": [{"id": n} for n in "qabc"], "links": [{"source": s, "target": t} for s, t in ("qa", "qb", "ac")]},
    ),
    "dict of nodes, parent": (
        "node_dict",
        {"nodes": {"q": {}, "a": {"parent": "q"}, "b": {"parent_id": "q"}, "c": {"parents": ["a"]}}},
    ),
    "dict of nodes, children": (
        "node_dict",
        {"nodes": {"q": {"children": ["a", "b"]}, "a": {"children_ids": ["c"]}, "b": {}, "c": {}}},
    ),
    "bare dict": (
        "node_dict",
        {"q": {"content": ""}, "a": {"parent": "q"}, "b": {"parent": "q"}, "c": {"parent": "a"}},
    ),
    "Cytoscape": (
        "cytoscape",
        {
            "elements": {
                "nodes": [{"data": {"id": n}} for n in "qabc"],
                "edges": [{"data": {"source": s, "target": t}} for s, t in ("qa", "qb", "ac")],
            }
        },
    ),
    "Cytoscape, flat": (
        "cytoscape",
        {
            "elements": [
                *({"data": {"id": n}} for n in "qabc"),
                *({"data": {"id": s + t, "source": s, "target": t}} for s, t in ("qa", "qb", "ac")),
            ]
        },
    ),
    "React Flow": (
        "react_flow",
        {
            "nodes": [{"id": n, "position": {"x": 0, "y": 0}, "data": {"label": n}} for n in "qabc"],
            "edges": [{"id": s + t, "source": s, "target": t} for s, t in ("qa", "qb", "ac")],
        },
    ),
    "flat list": (
        "parent_list",
        {"tree": [{"node_id": n, "parent_id": p} for n, p in (("q", None), ("a", "q"), ("b", "q"), ("c", "a"))]},
    ),
    "bare list": (
        "parent_list",
        [{"id": n, "parent": p} for n, p in (("q", None), ("a", "q"), ("b", "q"), ("c", "a"))],
    ),
    "nested": (
        "nested",
        {"id": "q", "children": [{"id": "a", "children": [{"id": "c", "children": []}]}, {"id": "b"}]},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_same_graph(name: str) -> None:
    format_, value = SHAPES[name]
    graph = normalise(value)
    assert graph.format == format_
    assert {node_id: node.parents for node_id, node in graph.nodes.items()} == EXPECTED
    assert graph.notes == []


@pytest.mark.parametrize("edges", ["edges", "links"])
def test_networkx_writes_what_is_read(edges: str) -> None:
    nx = pytest.importorskip("networkx")
    original = nx.DiGraph([("q", "a"), ("q", "b"), ("a", "c")])
    graph = parse(json.dumps(nx.node_link_data(original, edges=edges)))
    assert {node_id: node.parents for node_id, node in graph.nodes.items()} == EXPECTED
    cytoscape = parse(json.dumps(nx.cytoscape_data(original)))
    assert {node_id: node.parents for node_id, node in cytoscape.nodes.items()} == EXPECTED


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        (None, "none"),
        ("{}", "none"),
        ("[]", "none"),
        ("null", "none"),
        ('"text"', "unknown"),
        ("[1, 2]", "unknown"),
        ('{"values": {"messages": []}, "next": []}', "unknown"),
        ('{"foo": {"bar": 1}}', "unknown"),
        ("not json", "unknown"),
        ("[" * 100_000, "unknown"),
    ],
)
def test_what_is_no_graph_has_no_nodes(text: str | None, format_: str) -> None:
    graph = parse(text)
    assert (graph.format, graph.nodes) == (format_, {})


def test_odd_graphs_are_notes() -> None:
    graph = normalise(
        {
            "nodes": [{"id": 1, "content": "one"}, {"id": "1", "content": "again"}, {"content": "no id"}, 7],
            "edges": [{"source": "lost", "target": 1}, {"source": 1, "target": 1}, {"source": 1}, [1, "gone"]],
        }
    )
    assert {node_id: node.content for node_id, node in graph.nodes.items()} == {"1": "one"}
    assert len(graph.notes) == 7


def test_a_node_may_have_two_parents() -> None:
    graph = normalise({"nodes": [{"id": n} for n in "qabm"], "links": [[*e] for e in ("qa", "qb", "am", "bm")]})
    assert graph.nodes["m"].parents == ["a", "b"]
    assert path_to(graph.nodes, "m") == ["q", "a", "m"]


def test_a_cycle_has_no_path_and_no_depth() -> None:
    graph = normalise({"nodes": [{"id": n} for n in "abcd"], "edges": [["a", "b"], ["b", "c"], ["c", "a"], ["c", "d"]]})
    assert path_to(graph.nodes, "d") is None
    assert depths(graph.nodes) == dict.fromkeys("abcd")


def test_depth_costs_no_stack() -> None:
    n = 20_000
    graph = normalise([{"id": i, "parent": i - 1 if i else None} for i in range(n)])
    assert depths(graph.nodes)[str(n - 1)] == n - 1
    path = path_to(graph.nodes, str(n - 1))
    assert path is not None
    assert len(path) == n


def test_deep_nesting_costs_no_stack() -> None:
    value: dict[str, Any] = {"id": 5000}
    for i in reversed(range(5000)):
        value = {"id": i, "children": [value]}
    assert depths(normalise(value).nodes)["5000"] == 5000


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ({"content": "x"}, "x"),
        ({"thought": "x"}, "x"),
        ({"data": {"label": "x"}}, "x"),
        ({"text": 42}, "42"),
        ({"value": 0.7}, None),
        ({"value": "x"}, "x"),
        ({"content": None, "text": "x"}, "x"),
        ({"content": {"a": 1}}, None),
        ("x", "x"),
    ],
)
def test_content_of_a_node(body: Any, content: str | None) -> None:
    assert normalise({"nodes": {"n": body}}).nodes["n"].content == content


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, "active"), ({"is_pruned": True}, "pruned"), ({"state": "Abandoned"}, "pruned"), ({"status": "done"}, "done")],
)
def test_status_of_a_node(body: dict[str, Any], status: str) -> None:
    assert normalise({"nodes": {"n": body}}).nodes["n"].status == status
