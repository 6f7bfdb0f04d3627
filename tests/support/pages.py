"""Reading pages as a browser would, without one: the data they carry, their elements, their policy."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = frozenset({"meta", "link", "input", "br", "img"})


def data_of(page: bytes) -> dict[str, Any]:
    """The JSON that a page carries."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.decode(), re.DOTALL)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


@dataclass
class Elements(HTMLParser):
    """Every start tag with its attributes, and all text outside scripts and styles, piece by piece."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "markup is not well formed"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def elements(page: bytes) -> Elements:
    parsed = Elements()
    parsed.feed(page.decode())
    parsed.close()
    return parsed


def policy(page: bytes) -> dict[str, list[str]]:
    """The directives of the page's Content-Security-Policy."""
    content = next(
        attributes["content"]
        for tag, attributes in elements(page).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    directives = [directive.split() for directive in content.split(";")]
    return {name: values for name, *values in directives}


def digest(text: str) -> str:
    """A text's digest as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
