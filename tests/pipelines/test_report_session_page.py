"""One session's page: every text as text, every mark in words, whatever the session holds."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pages
import pytest

from archiver.errors import InputError
from archiver.events import Interaction, Message, SessionRecord
from archiver.legacy import parse_json, parse_record
from pipelines.report.graph_figure import MAX_DRAWN
from pipelines.report.session_page import session_page

T = 1_790_000_000_000_000
EDGE_CASES = Path(__file__).parents[3] / "shared" / "data" / "edge_cases.jsonl.gz"
HOSTILE = (
    "<script>window.pwned=1</script>", "</script><img src=x onerror=pwned()>", '"><svg onload=pwned()>', "&lt;b&gt;",
    "\u202eevil\u202d", "<!--", "]]>", "javascript:pwned()", "'\"`", "👩‍👩‍👧 عربى 中文", "\x01\x7f",
)  # fmt: skip


def act(action: str, node: str | None = None, **fields: Any) -> Interaction:
    metadata = json.dumps(fields.pop("metadata", {}))
    return Interaction(T + 5, action, node, fields.get("content"), fields.get("feedback"), metadata)


def record(**changes: Any) -> SessionRecord:
    parents = {"q": None, "a": "q", "b": "q", "c": "b"}
    graph = {"nodes": {node: {"content": f"text of {node}", "parent": parent} for node, parent in parents.items()}}
    fields: dict[str, Any] = {
        "session_id": "s-1", "created_at_us": T, "updated_at_us": None, "user_id": "ann", "language": "en",
        "tz_assumed": False, "messages": (Message("user", "2+2?", T), Message("assistant", "4", T + 1)),
        "interactions": (), "graph_state": json.dumps(graph),
    }  # fmt: skip
    return SessionRecord(**fields | changes)


def nodes_of(page: bytes) -> dict[str, tuple[set[str], str]]:
    """Classes and accessible name of every drawn node, by its id."""
    found = {}
    for tag, attributes in pages.elements(page).tags:
        if tag == "a" and "node" in attributes.get("class", "").split():
            name = attributes["aria-label"].removeprefix("Node ")
            found[name.partition(": ")[0]] = (set(attributes["class"].split()), name.partition(": ")[2])
    return found


def test_judged_pruned_and_injected_nodes_are_marked_in_words_and_classes() -> None:
    acts = (
        act("feedback", "a", feedback="correct"),
        act("feedback", "b", feedback="incorrect"),
        act("prune", "b"),
        act("inject", "d", content="four", metadata={"parent_id": "q"}),
    )
    nodes = nodes_of(session_page(record(interactions=acts)))
    assert nodes["q"] == ({"node", "unjudged"}, "not judged")
    assert nodes["a"] == ({"node", "correct"}, "✓ correct")
    assert nodes["b"] == ({"node", "incorrect", "faded"}, "✗ incorrect, pruned")
    assert nodes["c"] == ({"node", "unjudged", "faded"}, "not judged"), "what hangs under a pruned node fades with it"
    assert nodes["d"] == ({"node", "unjudged", "injected"}, "injected")


def test_a_resurrected_node_is_drawn_like_any_other() -> None:
    nodes = nodes_of(session_page(record(interactions=(act("prune", "b"), act("resurrect", "b")))))
    assert nodes["b"] == nodes["q"] == ({"node", "unjudged"}, "not judged")


def test_what_only_a_model_said_is_told_apart() -> None:
    acts = (act("feedback", "a", feedback="partial", metadata={"actor": "model:m"}),)
    assert nodes_of(session_page(record(interactions=acts)))["a"] == (
        {"node", "partial", "uncounted"},
        "◐ partial by model",
    )


def test_annotators_who_disagree_are_a_conflict() -> None:
    acts = [act("feedback", "a", feedback=v, metadata={"annotator": v}) for v in ("correct", "incorrect")]
    assert nodes_of(session_page(record(interactions=tuple(acts))))["a"][1] == "≠ conflict"


def test_a_judged_message_says_so_where_there_is_no_graph() -> None:
    page = session_page(record(graph_state=None, interactions=(act("feedback", "m1", feedback="incorrect"),)))
    assert "This session has no graph that could be read." in pages.elements(page).text
    turn = page.decode().partition('id="message-1"')[2].partition("</li>")[0]
    assert "✗ incorrect" in turn


def test_every_link_leads_somewhere() -> None:
    page = pages.elements(session_page(record(interactions=(act("prune", "b"), act("prune", "nowhere")))))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) == 4 + 3 + 1, "drawn nodes, parents in the table, acts on known nodes"
    assert {link.removeprefix("#") for link in links} <= ids


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_texts_everywhere(text: str) -> None:
    graph = json.dumps({"nodes": [{"id": text, "content": text}, {"id": "x", "content": text, "parent": text}]})
    acts = (act(text, text, content=text, feedback="correct", metadata={"actor": text, "annotator": text}),)
    page = session_page(
        record(session_id=text, user_id=text, language=text, graph_state=graph, interactions=acts,
               messages=(Message(text, text, T, text),), metadata=json.dumps({text: text}))
    )  # fmt: skip
    parsed = pages.elements(page)
    assert {tag for tag, _ in parsed.tags} == {
        tag for tag, _ in pages.elements(session_page(record(interactions=(act("x"),)))).tags
    }
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    assert parsed.texts.count(text) == 20 - (len(text) > 24), "whole in every place, but for a long id in the drawing"
    scripts = re.findall(r"<script>(.*?)</script>", page.decode(), re.DOTALL)
    assert pages.policy(page)["script-src"] == [pages.digest(script) for script in scripts]


def test_a_megabyte_of_text_is_shown_whole() -> None:
    text = "<b>" * 350_000
    page = session_page(record(messages=(Message("user", text, T),)))
    assert text in pages.elements(page).texts


def test_lone_surrogates_in_json_do_not_break_the_page() -> None:
    page = session_page(record(graph_state='{"nodes": [{"id": "q", "content": "\\ud83d cut"}]}'))
    assert "cut" in pages.elements(page).text


def test_a_graph_too_large_to_draw_is_told_and_listed_whole() -> None:
    count = MAX_DRAWN + 5
    nodes = [{"id": f"n{i}", "content": "x", "parent": f"n{i - 1}"} for i in range(count)]
    page = session_page(record(graph_state=json.dumps({"nodes": nodes})))
    assert len(nodes_of(page)) == MAX_DRAWN
    assert f"the {MAX_DRAWN} of {count} nodes" in pages.elements(page).text
    assert sum(attributes.get("id", "").startswith("node-") for _, attributes in pages.elements(page).tags) == count


def test_a_replaced_graph_is_told() -> None:
    old = act("graph_snapshot", content=json.dumps({"nodes": [{"id": "old"}]}))
    page = session_page(record(interactions=(old,)))
    assert "replaced the graph" in pages.elements(page).text
    assert "the graph as it was before" in pages.elements(page).text


@pytest.mark.parametrize(
    "graph_state", [None, "", "{", "[]", "7", '{"nodes": 3}', '{"nodes": [{"id": "a", "parent": "a"}]}']
)
def test_odd_graphs_give_a_page(graph_state: str | None) -> None:
    assert "Reasoning graph" in pages.elements(session_page(record(graph_state=graph_state))).text


def test_an_empty_session_gives_a_page() -> None:
    page = pages.elements(session_page(record(messages=(), graph_state=None, user_id=None, language=None)))
    assert "Nobody judged or changed anything." in page.text


@pytest.mark.realdata
def test_every_edge_case_that_can_be_archived_has_a_page() -> None:
    if not EDGE_CASES.exists():
        pytest.skip("needs ../shared/data/edge_cases.jsonl.gz")
    shown = 0
    for line in gzip.decompress(EDGE_CASES.read_bytes()).splitlines():
        try:
            known = parse_record(parse_json(line))
        except InputError:
            continue
        pages.elements(session_page(known))
        shown += 1
    assert shown > 20
