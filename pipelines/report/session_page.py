"""One session to look at: what was said, the reasoning graph with everybody's marks on it, and who did what.

The page needs no script but the one that switches its theme. All markup is made of elements, never
of text, so whatever stands in a session is shown as the text it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from archiver.events import GRAPH_SNAPSHOT, Interaction, Message, SessionRecord, format_time
from pipelines.derive.acts import Act, Session, actor_of, decode_object
from pipelines.derive.replay import NodeState, Replay, replay
from pipelines.report import document
from pipelines.report.elements import Content, Element, element, foreign, markup, table
from pipelines.report.graph_figure import MARKS, MAX_DRAWN, graph_figure, node_anchor, word_mark, words_of

_STYLES: Final = ("base.css", "session.css")
_SCRIPTS: Final = ("theme.js", "session.js")
_TITLE_CHARS: Final = 100
_LONG_CHARS: Final = 2_000
"""Texts above this scroll within a frame of their own."""

Anchors = Mapping[str, str]


def session_page(record: SessionRecord) -> bytes:
    """One self-contained HTML page about a session, as UTF-8; its graph is replayed as for the tables."""
    acts = [_act(index, interaction) for index, interaction in enumerate(record.interactions)]
    result = replay(
        Session(
            record.session_uid, record.session_id, record.user_id, record.language, record.graph_state,
            len(record.messages), acts=acts, extra=record.extra,
        )
    )  # fmt: skip
    states = result.last.states
    anchors = {node_id: node_anchor(number) for number, node_id in enumerate(states)}
    main = element(
        "main",
        {"id": "main", "tabindex": "-1"},
        element("div", {"class": "columns"}, _conversation(record, result), _graph(result, anchors)),
        _acts(acts, record.user_id, anchors),
        _nodes(states, anchors) if states else None,
        _metadata(record),
    )
    return document.page(
        title=f"Session {record.session_id}",
        body=f"{markup(_header(record))}\n{markup(main)}",
        styles=[document.asset(name) for name in _STYLES],
        scripts=[document.asset(name) for name in _SCRIPTS],
    )


def _act(index: int, i: Interaction) -> Act:
    return Act(index, i.created_at_us, i.action_type, i.node_id, i.content, i.feedback, decode_object(i.metadata))


def _header(record: SessionRecord) -> Element:
    asked = next((m.content for m in record.messages if m.role == "user" and m.content), None)
    title = " ".join((asked or record.session_id).split())
    facts: list[Content] = ["session ", element("code", {}, foreign(record.session_id))]
    facts += [" · user ", foreign(record.user_id)] if record.user_id else []
    facts += [" · language ", foreign(record.language)] if record.language else []
    facts += [f" · started {_time(record.created_at_us)} UTC{' (zone assumed)' if record.tz_assumed else ''}"]
    facts += [f" · revision {record.revision}"]
    heading = title if len(title) <= _TITLE_CHARS else f"{title[:_TITLE_CHARS]}…"
    return element(
        "header",
        {"class": "top"},
        element(
            "div", {},
            element("p", {"class": "brand"}, "sessionlake · one session"),
            element("h1", {"dir": "auto"}, heading),
            element("p", {"class": "facts"}, *facts),
        ),
        element("button", {"type": "button", "class": "theme", "id": "theme"}),
    )  # fmt: skip


def _section(title: str, lead: str, *children: Content, name: str) -> Element:
    heading = element("h2", {"id": f"h-{name}"}, title)
    attributes = {"class": name, "aria-labelledby": f"h-{name}"}
    return element("section", attributes, heading, element("p", {"class": "lead"}, lead), *children)


def _conversation(record: SessionRecord, result: Replay) -> Element:
    turns = [_turn(index, m, result.messages.get(index)) for index, m in enumerate(record.messages)]
    lead = f"{len(turns)} {'message' if len(turns) == 1 else 'messages'} in the order they were added."
    return _section("Conversation", lead, element("ol", {"class": "turns"}, *turns), name="conversation")


def _turn(index: int, message: Message, judged: NodeState | None) -> Element:
    head: list[Content] = [element("b", {}, foreign(message.role)), element("time", {}, _time(message.created_at_us))]
    head += [word_mark(word) for word in words_of(judged)] if judged else []
    kind = message.role if message.role in ("user", "assistant", "system") else "other"
    return element(
        "li", {"class": f"turn {kind}", "id": f"message-{index}"}, element("div", {"class": "head"}, *head),
        _text(message.content, f"Message {index}"),
    )  # fmt: skip


def _text(text: str | None, name: str) -> Element:
    if text is None or text == "":
        return element("p", {"class": "empty"}, "(no text)")
    attributes = {"class": "text", "dir": "auto"}
    if len(text) > _LONG_CHARS:
        attributes |= {"class": "text long", "tabindex": "0", "role": "region", "aria-label": name}
    return element("div", attributes, text)


def _graph(result: Replay, anchors: Anchors) -> Element:
    states, graph = result.last.states, result.last.graph
    notes = list(graph.notes)
    if len(result.epochs) > 1:
        times = "once" if len(result.epochs) == 2 else f"{len(result.epochs) - 1} times"
        notes.append(f"The application replaced the graph {times}; the last one is drawn.")
    if len(states) > MAX_DRAWN:
        notes.append(f"The drawing shows the {MAX_DRAWN} of {len(states)} nodes that are nearest to a root.")
    notes += [f"Act on {foreign_id!r} was left out: {reason}." for reason, foreign_id in result.rejects]
    if not states:
        return _section(
            "Reasoning graph", "This session has no graph that could be read.", _notes(notes), name="graph-part"
        )
    lead = "From the question down. Follow a node to its row in the table below."
    frame = {"class": "scroll frame", "role": "region", "aria-label": "Drawing of the graph", "tabindex": "0"}
    return _section(
        "Reasoning graph", lead, _legend(), element("div", frame, graph_figure(states, anchors)), _notes(notes),
        name="graph-part",
    )  # fmt: skip


def _legend() -> Element:
    words = [*(f"{mark} {label}" for label, mark in MARKS.items()), "pruned", "injected"]
    return element(
        "ul", {"class": "legend", "aria-label": "Legend"}, *(element("li", {}, word_mark(word)) for word in words)
    )


def _notes(notes: Sequence[str]) -> Element | None:
    return element("ul", {"class": "notes"}, *(element("li", {}, foreign(note)) for note in notes)) if notes else None


def _acts(acts: Sequence[Act], user_id: str | None, anchors: Anchors) -> Element:
    rows = [_act_row(act, user_id, anchors) for act in acts]
    heads = ("#", "Time (UTC)", "Action", "Who", "Node", "Verdict", "Text")
    found = table("", heads, rows) if rows else element("p", {"class": "empty"}, "Nobody judged or changed anything.")
    frame = element("div", {"class": "scroll", "role": "region", "aria-label": "Table of acts", "tabindex": "0"}, found)
    return _section(
        "Acts", "Everything that people and programs did, in the order it was recorded.", frame, name="acts"
    )


def _act_row(act: Act, user_id: str | None, anchors: Anchors) -> list[Content]:
    actor, kind = actor_of(act.metadata, user_id)
    verdict = f"{MARKS[act.feedback]} {act.feedback}" if act.feedback in MARKS else act.feedback
    content = "the graph as it was before" if act.action_type == GRAPH_SNAPSHOT else act.content
    return [
        str(act.position),
        _time(act.created_at_us),
        foreign(act.action_type),
        element("span", {}, foreign(actor), "" if actor.startswith(kind) else f" ({kind})"),
        _node_link(act.node_id, anchors),
        word_mark(verdict) if verdict else "",
        _text(content, f"Text of act {act.position}") if content else "",
    ]


def _node_link(node_id: str | None, anchors: Anchors) -> Content:
    if node_id is None:
        return ""
    if node_id not in anchors:
        return foreign(node_id)
    return element("a", {"href": f"#{anchors[node_id]}"}, foreign(node_id))


def _nodes(states: Mapping[str, NodeState], anchors: Anchors) -> Element:
    rows = [_node_row(node_id, state, anchors) for node_id, state in states.items()]
    heads = ("Node", "Marks", "Verdicts", "Parents", "Text")
    found = table("", heads, rows, ids=[anchors[node_id] for node_id in states])
    frame = element(
        "div", {"class": "scroll", "role": "region", "aria-label": "Table of nodes", "tabindex": "0"}, found
    )
    lead = "The same graph as a table, after all acts. Labels rest on verdicts of people and automatic checks."
    return _section("Nodes", lead, frame, name="nodes")


def _node_row(node_id: str, state: NodeState, anchors: Anchors) -> list[Content]:
    marks = [element("div", {}, word_mark(word)) for word in words_of(state)]
    verdicts = [
        element("li", {}, f"{verdict.label} at {level} level by ", foreign(actor))
        for (actor, level), verdict in state.verdicts.items()
    ]
    parents: list[Content] = []
    for parent in state.node.parents:
        parents += [_node_link(parent, anchors), " "]
    return [
        foreign(node_id),
        element("div", {}, *marks),
        element("ul", {"class": "plain"}, *verdicts),
        element("div", {}, *parents),
        _text(state.node.content, f"Text of node {node_id}"),
    ]


def _metadata(record: SessionRecord) -> Element:
    lead = "What the application stored with the session, as JSON."
    text = json.dumps(decode_object(record.metadata), ensure_ascii=False, indent=2)
    return _section("Metadata", lead, _text(text, "Metadata"), name="metadata")


def _time(us: int) -> str:
    return format_time(us)[:19].replace("T", " ")
