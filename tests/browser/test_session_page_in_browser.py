"""One session's page in a browser: no request, no script from a text, links that lead to rows, usable by all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import showcase

from archiver.events import Message, SessionRecord
from pipelines.report.session_page import session_page

Open = Callable[..., Any]
HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\u202e"


@pytest.fixture(scope="session")
def busy() -> SessionRecord:
    """The made-up session with the most kinds of acts."""
    return max(showcase.records(60), key=lambda s: len({i.action_type for i in s.interactions}))


def test_it_loads_without_errors_or_requests(open_page: Open, busy: SessionRecord) -> None:
    opened = open_page(session_page(busy))
    assert opened.page.locator("svg a.node").count() == 7
    assert opened.troubles == []


def test_a_node_leads_to_its_row(open_page: Open, busy: SessionRecord) -> None:
    page = open_page(session_page(busy)).page
    page.locator("svg a.node", has_text="s1x").focus()
    page.keyboard.press("Enter")
    assert page.locator("tr:target th").inner_text() == "s1x"


def test_pruned_branches_are_drawn_in_another_way(open_page: Open, busy: SessionRecord) -> None:
    page = open_page(session_page(busy)).page
    dash = "(node) => getComputedStyle(node.querySelector('rect')).strokeDasharray"
    drawn = {node.get_attribute("aria-label"): node.evaluate(dash) for node in page.locator("svg a.node").all()}
    assert {("pruned" in label) for label, dashes in drawn.items() if dashes != "none"} == {True}
    assert {("pruned" in label) for label, dashes in drawn.items() if dashes == "none"} == {False}


def test_hostile_texts_stay_texts(open_page: Open, busy: SessionRecord) -> None:
    graph = json.dumps({"nodes": [{"id": HOSTILE, "content": HOSTILE}]})
    messages = (Message("user", HOSTILE, showcase.START_US), Message(HOSTILE, "x" * 1_000_000, showcase.START_US))
    opened = open_page(
        session_page(replace(busy, messages=messages, graph_state=graph, session_id="<b>", language=HOSTILE))
    )
    assert opened.page.evaluate("() => [typeof window.pwned, document.images.length]") == ["undefined", 0]
    assert opened.page.locator("#message-0 .text").text_content() == HOSTILE
    assert opened.page.title() == "Session <b>"
    assert opened.troubles == []


def test_right_to_left_texts_run_from_the_right(open_page: Open) -> None:
    arabic = next(s for s in showcase.records(60) if s.language == "ar")
    page = open_page(session_page(arabic)).page
    assert page.locator("#message-0 .text").evaluate("(e) => getComputedStyle(e).direction") == "rtl"
    assert page.locator("main").evaluate("(e) => getComputedStyle(e).direction") == "ltr"


def _wide_and_long(busy: SessionRecord) -> Iterator[SessionRecord]:
    yield busy
    nodes = [{"id": f"n{i}", "parent": f"n{i // 9 - 1}" if i > 8 else None, "content": "w" * 300} for i in range(90)]
    yield replace(busy, graph_state=json.dumps({"nodes": nodes}), messages=(Message("user", "w" * 5_000, 0),))


@pytest.mark.parametrize("width", [320, 390, 1024, 1920])
def test_nothing_is_wider_than_the_screen(open_page: Open, busy: SessionRecord, width: int) -> None:
    for record in _wide_and_long(busy):
        page = open_page(session_page(record), width=width).page
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1024, "dark")])
def test_no_violations_of_the_accessibility_rules(open_page: Open, busy: SessionRecord, width: int, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = open_page(session_page(busy), theme=theme, width=width, bypass_csp=True).page
    found = axe.run(page).response["violations"]
    assert [(v["id"], [node["target"] for node in v["nodes"]][:3]) for v in found] == []
