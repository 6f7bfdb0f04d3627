"""Which nodes of a reasoning graph a new state drops or rewrites: decides whether the old state is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

_TEXT_KEYS: Final = ("content", "text", "label", "value", "thought", "step", "answer", "message", "title", "name")
_INNER_KEYS: Final = ("data", "attributes", "attrs", "properties")


def lost_nodes(old: str, new: str) -> set[str]:
    """Ids of nodes that ``old`` holds and ``new`` lacks or gives other content (both JSON texts).

    Knows nodes by shape, not by format: an object with an ``id``, or an object or text under a key
    of a mapping. What is no node at worst keeps one snapshot more than needed.
    """
    before = _contents(json.loads(old))
    after = _contents(json.loads(new))
    return {node for node, content in before.items() if after.get(node, _ABSENT) != content}


_ABSENT: Final = ("absent",)
_Content = tuple[str, ...]


def _contents(state: Any) -> dict[str, _Content]:
    found: dict[str, _Content] = {}
    stack = [state]
    while stack:  # no recursion: depth is the user's
        value = stack.pop()
        if isinstance(value, dict):
            for node, content in _nodes_in(value):
                found.setdefault(node, content)
            stack.extend(child for child in value.values() if isinstance(child, (dict, list)))
        elif isinstance(value, list):
            stack.extend(child for child in value if isinstance(child, (dict, list)))
    return found


def _nodes_in(value: dict[str, Any]) -> Iterator[tuple[str, _Content]]:
    own = value.get("id")
    if isinstance(own, (str, int)):
        yield str(own), _text_of(value)
    for key, child in value.items():
        if isinstance(child, dict) and "id" not in child and key not in _INNER_KEYS:
            yield key, _text_of(child)


def _text_of(node: dict[str, Any]) -> _Content:
    holders = [node, *(inner for key in _INNER_KEYS if isinstance(inner := node.get(key), dict))]
    return tuple(text for holder in holders for key in _TEXT_KEYS if isinstance(text := holder.get(key), str))
