"""Rows that are the chat itself: conversations to imitate, and prompts."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.derive.acts import Session
from pipelines.derive.context import (
    Candidate,
    Chat,
    Collector,
    GraphContext,
    RejectedCandidateError,
    chat_of,
    check_prompt,
    matches,
)
from pipelines.derive.replay import CONFLICT, INCORRECT, NodeState, Replay, Rules
from pipelines.derive.texts import norm_text

_BAD = frozenset({INCORRECT, CONFLICT})


def add_conversation(
    out: Collector, session: Session, replay: Replay, contexts: Sequence[GraphContext], rules: Rules
) -> None:
    """Add the chat up to the last assistant turn, unless one of its answers was judged incorrect."""
    out.attempt("sft", (), lambda: _conversation(session, replay, contexts, rules))


def add_prompt(out: Collector, session: Session) -> None:
    """Add the chat up to the last user turn."""
    out.attempt("prompts", (), lambda: _prompt(session))


def _conversation(session: Session, replay: Replay, contexts: Sequence[GraphContext], rules: Rules) -> Candidate:
    end = _last(session, "assistant", "no_assistant_turn")
    chat = chat_of(session.turns[: end + 1])
    asked = max((i for i, (role, _) in enumerate(chat) if role == "user"), default=None)
    if asked is None:
        raise RejectedCandidateError("no_user_turn")
    if any(not state.labels(rules).isdisjoint(_BAD) for state in replay.unattributed.values()):
        raise RejectedCandidateError("unattributed_incorrect")
    if _is_incorrect(chat, replay.messages, contexts, rules):
        raise RejectedCandidateError("answer_incorrect")
    return Candidate(chat[: asked + 1], {"messages": chat})


def _is_incorrect(chat: Chat, messages: dict[int, NodeState], contexts: Sequence[GraphContext], rules: Rules) -> bool:
    """Whether an assistant turn was judged incorrect itself, or is the text of an unclean path of a graph."""
    for index, (role, content) in enumerate(chat):
        if role != "assistant":
            continue
        if index in messages and not messages[index].labels(rules).isdisjoint(_BAD):
            return True
        text = norm_text(content)
        for context in contexts:
            unclean = (node_id for node_id, clean in context.clean.items() if not clean)
            if any(context.nodes[n].role != "user" and matches(context.nodes, n, text) for n in unclean):
                return True
    return False


def _prompt(session: Session) -> Candidate:
    prompt = chat_of(session.turns[: _last(session, "user", "no_user_turn") + 1])
    check_prompt(prompt)
    return Candidate(prompt, {})


def _last(session: Session, role: str, reason: str) -> int:
    found = max((i for i, turn in enumerate(session.turns) if turn.role == role), default=None)
    if found is None:
        raise RejectedCandidateError(reason)
    return found
