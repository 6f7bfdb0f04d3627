"""HTML made of elements, so that no text can become markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias
from xml.etree import ElementTree as ET

Element = ET.Element
Content: TypeAlias = Element | str | None
"""A child: an element, a text, or nothing."""


def element(tag: str, attributes: Mapping[str, str] | None = None, *children: Content) -> Element:
    """An element with its children in order."""
    made = ET.Element(tag, dict(attributes or {}))
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            if last is None:
                made.text = (made.text or "") + child
            else:
                last.tail = (last.tail or "") + child
        elif child is not None:
            made.append(child)
            last = child
    return made


def foreign(text: str) -> Element:
    """Text from outside within a line: right-to-left characters in it cannot reorder its surroundings."""
    return element("bdi", {}, text)


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Content]], ids: Sequence[str] = ()) -> Element:
    """A table whose rows are headed by their first cell; ``ids`` name the rows."""
    head = element("tr", {}, *(element("th", {"scope": "col"}, name) for name in heads))
    body = element("tbody")
    for number, cells in enumerate(rows):
        attributes = {"id": ids[number], "tabindex": "-1"} if ids else {}
        first, *others = cells
        body.append(
            element("tr", attributes, element("th", {"scope": "row"}, first), *(element("td", {}, c) for c in others))
        )
    return element("table", {}, element("caption", {}, caption), element("thead", {}, head), body)


def markup(made: Element) -> str:
    """The element as HTML text; every character of its texts that could be markup is escaped."""
    return ET.tostring(made, encoding="unicode", method="html")
