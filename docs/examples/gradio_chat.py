"""A callback app over a reasoning graph, written as for the single-file session manager: one import changed.

The callbacks are plain functions; ``build()`` wires them to Gradio (pip install gradio sessionlake).
Run it with ``python gradio_chat.py``.
"""

from __future__ import annotations

from typing import Any

from archiver import generate_session_id, get_session_manager

History = list[dict[str, Any]]


def on_load() -> str:
    """A new visitor: the id goes into the page's state."""
    return generate_session_id()


def on_message(session_id: str, text: str) -> History:
    """Think, show the steps as a graph, answer token by token."""
    manager = get_session_manager()
    session = manager.get_or_create(session_id)
    session.add_message("user", text)
    manager.update_graph_state(session_id, think(text))
    session.add_message("assistant", "")
    for token in ("Let ", "me ", "see."):
        session.chat_history[-1].content += token
        manager.save_session(session_id)
    return shown(session_id)


def think(text: str) -> dict[str, Any]:
    """Your reasoning goes here: any common graph shape will do."""
    return {
        "nodes": [
            {"id": "q", "content": text},
            {"id": "s1", "content": "look at the facts"},
            {"id": "s2", "content": "guess"},
        ],
        "edges": [{"source": "q", "target": "s1"}, {"source": "q", "target": "s2"}],
    }


def on_feedback(session_id: str, node_id: str, verdict: str) -> str:
    """One of the buttons under a step: correct, incorrect, partial."""
    get_session_manager().add_feedback(session_id, node_id, verdict)
    return f"{node_id}: {verdict}"


def on_prune(session_id: str, node_id: str, instead: str) -> None:
    """Cut a step and write a better one; the pair becomes training data."""
    manager = get_session_manager()
    manager.record_interaction(session_id, "prune", node_id=node_id)
    manager.record_interaction(
        session_id, "inject", node_id=f"{node_id}-fixed", content=instead, metadata={"replaces": node_id}
    )


def on_regenerate(session_id: str) -> History:
    """Throw the last answer away and make another one."""
    manager = get_session_manager()
    session = manager.get_or_create(session_id)
    if session.chat_history and session.chat_history[-1].role == "assistant":
        session.chat_history.pop()
        session.add_message("assistant", "On second thoughts: no.")
        manager.save_session(session_id)
    return shown(session_id)


def shown(session_id: str) -> History:
    """The conversation in Gradio's message form."""
    session = get_session_manager().get_or_create(session_id)
    return [{"role": message.role, "content": message.content} for message in session.chat_history]


def build() -> Any:
    """The page."""
    import gradio  # noqa: PLC0415  the callbacks work, and are tested, without it

    with gradio.Blocks() as page:
        session_id = gradio.State(on_load)
        chat = gradio.Chatbot(type="messages")
        text = gradio.Textbox(label="Question")
        node = gradio.Textbox("s1", label="Step")
        said = gradio.Markdown()
        text.submit(on_message, [session_id, text], chat)
        gradio.Button("Again").click(on_regenerate, session_id, chat)
        for verdict in ("correct", "incorrect", "partial"):
            gradio.Button(verdict).click(on_feedback, [session_id, node, gradio.State(verdict)], said)
    return page


if __name__ == "__main__":
    build().launch()
