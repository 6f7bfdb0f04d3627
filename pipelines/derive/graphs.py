"""One normal form for every shape of graph_state that applications store.

Accepted are networkx node-link (``edges`` or ``links``), a dict of nodes, Cytoscape, a flat list
with parent ids, nested children, React Flow and a bare ``{id: node}``. Anything else has no nodes.
Odd graphs (cycles, dangling edges, duplicate or integer ids) become notes, never exceptions, and
every walk is a loop: a graph may be deeper than Python's stack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

from pipelines.derive.texts import decode

ACTIVE: Final = "active"
PRUNED: Final = "pruned"
_PRUNED_WORDS: Final = frozenset({"pruned", "abandoned", "dead_end", "rejected", "discarded"})
_QUESTION_TYPES: Final = frozenset({"question", "prompt", "query", "problem", "input"})
_CONTAINERS: Final = (dict, list)  # tuples: a union is made anew wherever it is written
_NUMBERS: Final = (int, float)

_SOURCE_KEYS: Final = ("source", "source_id", "from", "src")
_TARGET_KEYS: Final = ("target", "target_id", "to", "dst")
_LIST_KEYS: Final = ("tree", "thoughts", "steps")


class _Names(NamedTuple):
    """What applications call the fields of a node, the best names first."""

    id: tuple[str, ...] = ("id", "node_id", "step_id", "key")
    content: tuple[str, ...] = ("content", "text", "thought", "statement", "label", "message", "value")
    parent: tuple[str, ...] = ("parent", "parent_id", "parentId")
    parents: tuple[str, ...] = ("parents", "parent_ids", "dependencies")
    children: tuple[str, ...] = ("children", "children_ids", "childrenIds", "replies")
    pruned: tuple[str, ...] = ("is_pruned", "pruned", "isPruned")
    status: tuple[str, ...] = ("status", "state")
    author: tuple[str, ...] = ("author", "created_by")
    role: tuple[str, ...] = ("role",)
    type: tuple[str, ...] = ("type",)
    inner: tuple[str, ...] = ("data",)


_NAMES: Final = _Names()
_NO_NAMES: Final = _Names(*((),) * len(_NAMES))
_KNOWN: Final = frozenset(chain.from_iterable(_NAMES))
_OF_NODES: Final = frozenset((*_NAMES.content, *_NAMES.parent, *_NAMES.parents, *_NAMES.children))


@dataclass(slots=True)
class Node:
    """One node: its own words, and its parents in the graph's order.

    Attributes:
        status: ``active``, ``pruned``, or the graph's own word.
        role: Set in message trees, where a node is a whole turn of a conversation.
        is_question: The graph itself calls this node the question.
    """

    content: str | None
    parents: list[str] = field(default_factory=list)
    status: str = ACTIVE
    author: str | None = None
    role: str | None = None
    is_question: bool = False


@dataclass(slots=True)
class Graph:
    """A graph in normal form.

    Attributes:
        format: Shape it came in: none, node_link, node_dict, cytoscape, react_flow, parent_list,
            nested or unknown.
        notes: What was odd about it, one sentence each.
    """

    format: str
    nodes: dict[str, Node] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def parse(text: str | None) -> Graph:
    """The graph of a graph_state's JSON text; never raises, whatever the text."""
    if text is None:
        return Graph("none")
    try:
        value = decode(text)
    except ValueError:
        return Graph("unknown", notes=["graph_state is not JSON"])
    except RecursionError:
        return Graph("unknown", notes=["graph_state is nested too deeply to be read"])
    return normalise(value)


def normalise(value: Any) -> Graph:
    """The graph of a decoded graph_state."""
    if not value:
        return Graph("none")
    builder = _Builder()
    format_ = _read_list(builder, value) if isinstance(value, list) else _read_object(builder, value)
    if not builder.graph.nodes and format_ == "unknown":
        builder.graph.notes.append("graph_state has no known shape")
    builder.graph.format = format_
    builder.link()
    return builder.graph


def path_to(nodes: Mapping[str, Node], node_id: str) -> list[str] | None:
    """Ids from the root to a node along first parents; None where the walk meets a cycle."""
    path, seen = [node_id], {node_id}
    while parents := nodes[path[-1]].parents:
        if parents[0] in seen:
            return None
        path.append(parents[0])
        seen.add(parents[0])
    path.reverse()
    return path


def depths(nodes: Mapping[str, Node]) -> dict[str, int | None]:
    """Steps of every node from its root along first parents; None on or behind a cycle. Linear."""
    known: dict[str, int | None] = {}
    for node_id, node in nodes.items():
        parents = node.parents
        if not parents:
            known[node_id] = 0
        elif parents[0] in known:  # nearly always: graphs are written from the root on
            depth = known[parents[0]]
            known[node_id] = None if depth is None else depth + 1
        elif node_id not in known:
            _walk_up(nodes, node_id, known)
    return known


def _walk_up(nodes: Mapping[str, Node], start: str, known: dict[str, int | None]) -> None:
    """Add the depths of a node and of all before it that are not known."""
    trail: list[str] = []
    on_trail: set[str] = set()
    current: str | None = start
    while current is not None and current not in known and current not in on_trail:
        trail.append(current)
        on_trail.add(current)
        parents = nodes[current].parents
        current = parents[0] if parents else None
    depth = -1 if current is None else known.get(current)
    for node_id in reversed(trail):
        depth = None if depth is None else depth + 1
        known[node_id] = depth


class _Builder:
    """Collects nodes and edges in the order they are met; edges are linked once all nodes are known."""

    def __init__(self) -> None:
        self.graph = Graph("unknown")
        self._edges: list[tuple[str, str]] = []

    def add(self, node_id: Any, body: Any) -> None:
        """Add a node and, without recursion, all nodes nested in it."""
        if nested := self._add_one(node_id, body, None):
            pending = deque(nested)
            while pending:
                pending.extend(self._add_one(*pending.popleft()))

    def add_all(self, bodies: Iterable[Any]) -> None:
        """Add nodes that carry their own ids."""
        for body in bodies:
            if isinstance(body, dict):
                self.add(_first(body, _NAMES.id), body)
            else:
                self.graph.notes.append("a node is not an object")

    def add_edges(self, edges: Any) -> None:
        """Add edges given as objects or as pairs of ids."""
        for edge in _list(edges):
            if isinstance(edge, dict):
                source, target = _first(edge, _SOURCE_KEYS), _first(edge, _TARGET_KEYS)
            elif isinstance(edge, list) and len(edge) >= 2:
                source, target = edge[0], edge[1]
            else:
                source = target = None
            if source is None or target is None:
                self.graph.notes.append("an edge lacks its ends")
            else:
                self._edges.append((str(source), str(target)))

    def link(self) -> None:
        """Turn the edges into parents."""
        nodes, notes = self.graph.nodes, self.graph.notes
        for source, target in dict.fromkeys(self._edges):
            node = nodes.get(target)
            if node is None or source not in nodes:
                notes.append(f"edge {source!r:.60} to {target!r:.60} names an unknown node")
            elif source == target:
                notes.append(f"node {source!r:.60} is its own parent")
            elif source not in node.parents:
                node.parents.append(source)

    def _add_one(self, raw_id: Any, raw: Any, parent: str | None) -> Sequence[tuple[Any, Any, str | None]]:
        """Add a node; what is nested in it comes back as (id, body, parent id)."""
        node_id = self._own_id(raw_id)
        names = _names_in(raw) if isinstance(raw, dict) else _NO_NAMES
        if node_id is not None:
            self.graph.nodes[node_id] = _node(raw, names)
            if parent is not None:
                self._edges.append((parent, node_id))
            own = _first(raw, names.parent)
            if own is not None and not isinstance(own, _CONTAINERS):
                self._edges.append((str(own), node_id))
            if names.parents:
                self._edges += [(str(p), node_id) for p in _list(_first(raw, names.parents))]
        return self._children(raw, names, node_id) if names.children else ()

    def _own_id(self, raw_id: Any) -> str | None:
        if raw_id is None or isinstance(raw_id, _CONTAINERS):
            self.graph.notes.append("a node has no id")
            return None
        node_id = str(raw_id)
        if node_id in self.graph.nodes:
            self.graph.notes.append(f"node id {node_id!r:.60} occurs twice")
            return None
        return node_id

    def _children(self, raw: dict[str, Any], names: _Names, node_id: str | None) -> list[tuple[Any, Any, str | None]]:
        nested = []
        for child in _list(_first(raw, names.children)):
            if isinstance(child, dict):
                nested.append((_first(child, _NAMES.id), child, node_id))
            elif node_id is not None:
                self._edges.append((node_id, str(child)))
        return nested


def _read_object(builder: _Builder, value: Any) -> str:
    if not isinstance(value, dict):
        return "unknown"
    elements, nodes = value.get("elements"), value.get("nodes")
    if isinstance(elements, _CONTAINERS):
        return _read_cytoscape(builder, elements)
    if isinstance(nodes, dict):
        for node_id, body in nodes.items():
            builder.add(node_id, body)
        builder.add_edges(value.get("edges") or value.get("links"))
        return "node_dict"
    if isinstance(nodes, list):
        return _read_node_list(builder, nodes, value)
    for key in _LIST_KEYS:
        if isinstance(value.get(key), list):
            return _read_list(builder, value[key])
    if _first(value, _NAMES.id) is not None and isinstance(_first(value, _NAMES.children), list):
        builder.add(_first(value, _NAMES.id), value)
        return "nested"
    if all(_looks_like_node(body) for body in value.values()):
        for node_id, body in value.items():
            builder.add(node_id, body)
        return "node_dict"
    return "unknown"


def _read_cytoscape(builder: _Builder, elements: Any) -> str:
    if isinstance(elements, list):  # the flat form: a node has an id, an edge a source
        data = list(_data(elements))
        builder.add_all(d for d in data if "source" not in d)
        builder.add_edges([d for d in data if "source" in d])
    else:
        builder.add_all(_data(_list(elements.get("nodes"))))
        builder.add_edges(list(_data(_list(elements.get("edges")))))
    return "cytoscape"


def _read_node_list(builder: _Builder, nodes: list[Any], value: dict[str, Any]) -> str:
    builder.add_all(nodes)
    edges = value.get("edges") or value.get("links")
    builder.add_edges(edges)
    objects = [n for n in nodes if isinstance(n, dict)]
    if any("position" in n for n in objects):
        return "react_flow"
    has_parents = any(_first(n, _NAMES.parent + _NAMES.parents) is not None for n in objects)
    return "parent_list" if has_parents and not edges else "node_link"


def _read_list(builder: _Builder, items: list[Any]) -> str:
    objects = [item for item in items if isinstance(item, dict)]
    if not any(_first(item, _NAMES.id) is not None for item in objects):
        return "unknown"
    builder.add_all(items)
    nested = any(isinstance(child, dict) for item in objects for child in _list(_first(item, _NAMES.children)))
    return "nested" if nested else "parent_list"


def _looks_like_node(body: Any) -> bool:
    return isinstance(body, dict) and not _OF_NODES.isdisjoint(body)


def _data(elements: list[Any]) -> Iterator[dict[str, Any]]:
    for element in elements:
        data = element.get("data") if isinstance(element, dict) else None
        yield data if isinstance(data, dict) else {}


@lru_cache(maxsize=1024)
def _names_among(known: frozenset[str]) -> _Names:
    return _Names(*(tuple(name for name in names if name in known) for names in _NAMES))


def _names_in(body: Iterable[str]) -> _Names:
    """The names that a body uses. An application's nodes use the same few: a search once, then a look-up."""
    return _names_among(_KNOWN.intersection(body))


def _node(raw: Any, names: _Names) -> Node:
    if not isinstance(raw, dict):
        return Node(raw if isinstance(raw, str) else None)
    sources: tuple[dict[str, Any], ...] = (raw,)
    inner = raw["data"] if names.inner else None
    if isinstance(inner, dict):
        sources, names = (raw, inner), _names_in((*raw, *inner))
    status = _status(sources, names) if names.pruned or names.status else ACTIVE
    author = _word(sources, names.author) if names.author else None
    role = _word(sources, names.role) if names.role else None
    type_ = _word(sources, names.type) if names.type else None
    is_question = type_ is not None and type_.lower() in _QUESTION_TYPES
    return Node(_content(sources, names.content), [], status, author, role, is_question)


def _content(sources: tuple[dict[str, Any], ...], keys: tuple[str, ...]) -> str | None:
    for source in sources:
        for key in keys:
            value = source.get(key)
            if isinstance(value, str):
                return value
            if isinstance(value, _NUMBERS) and not isinstance(value, bool) and key != "value":
                return str(value)  # a number as "value" is a score, under any other key a short answer
    return None


def _status(sources: tuple[dict[str, Any], ...], names: _Names) -> str:
    for source in sources:
        for key in names.pruned:
            if source.get(key) is True:
                return PRUNED
    word = (_word(sources, names.status) or ACTIVE).lower()
    return PRUNED if word in _PRUNED_WORDS else word


def _word(sources: tuple[dict[str, Any], ...], keys: tuple[str, ...]) -> str | None:
    for source in sources:
        for key in keys:
            value = source.get(key)
            if value and isinstance(value, str):
                return value
    return None


def _first(body: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = body.get(key)
        if value is not None:
            return value
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
