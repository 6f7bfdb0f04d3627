"""The example programs of docs/examples, run against the real store."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import archiver
from archiver import SessionManager

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks the module of a model up
    spec.loader.exec_module(module)
    return module


def test_the_fastapi_chat_streams_retries_and_takes_feedback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    monkeypatch.setenv("CHAT_SESSIONS", str(tmp_path / "sessions"))
    with testclient.TestClient(load("fastapi_chat").app) as client:
        session_id = client.post("/sessions").json()["session_id"]
        url = f"/sessions/{session_id}"
        for _ in range(2):
            answer = client.post(f"{url}/messages", json={"text": "why?", "client_id": "c1"})
            assert answer.text.strip() == "You asked: why?"
        assert client.post(f"{url}/feedback", json={"node_id": "s1", "feedback": "partial"}).status_code == 204
        assert client.post(f"{url}/feedback", json={"feedback": "good"}).status_code == 422
        assert client.post("/sessions/nobody/feedback", json={"feedback": "correct"}).status_code == 404
        cut = client.post(
            f"{url}/messages", content=rb'{"text": "cut \ud83d"}', headers={"content-type": "application/json"}
        )
        assert cut.status_code == 422
        roles = [message["role"] for message in client.get(f"{url}/messages", params={"last": 3}).json()]
        assert roles == ["user", "assistant", "assistant"]
    with SessionManager(tmp_path / "sessions") as manager:
        session = manager.get_session(session_id)
        assert session is not None
        assert [(i.node_id, i.feedback, i.metadata["actor"]) for i in session.interactions] == [
            ("s1", "partial", "human:web")
        ]


@pytest.fixture
def shared_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionManager]:
    monkeypatch.setenv("SESSIONLAKE_HOT__PATH", str(tmp_path / "sessions"))
    manager = archiver.get_session_manager()
    yield manager
    archiver.sessions.singleton._shared.clear()
    manager.close()


def test_the_callback_app_keeps_chat_graph_and_verdicts(shared_manager: SessionManager) -> None:
    app = load("gradio_chat")
    session_id = app.on_load()
    assert [m["content"] for m in app.on_message(session_id, "is it?")] == ["is it?", "Let me see."]
    assert app.on_feedback(session_id, "s1", "correct") == "s1: correct"
    app.on_prune(session_id, "s2", "count them")
    assert app.on_regenerate(session_id)[-1]["content"] == "On second thoughts: no."
    with SessionManager(shared_manager.sessions_dir) as other:
        session = other.get_session(session_id)
        assert session is not None
        assert [m.content for m in session.chat_history] == ["is it?", "On second thoughts: no."]
        assert [i.action_type for i in session.interactions] == ["feedback", "prune", "inject"]
        assert [node["id"] for node in session.graph_state["nodes"]] == ["q", "s1", "s2"]  # type: ignore[index]
