"""One graph of a session as training rows see it: its user turn, its paths, and which of them are clean."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pipelines.derive.acts import Session, Turn
from pipelines.derive.graphs import PRUNED, Node, depths, path_to
from pipelines.derive.replay import CONFLICT, INCORRECT, Epoch, NodeState, Rules
from pipelines.derive.texts import norm_text

Chat = tuple[tuple[str, str], ...]
"""Messages as (role, content)."""

_QUOTE_CHARS: Final = 32


class Candidate(NamedTuple):
    """A row in the making: its prompt, the other columns of its set, and the kinds of actors it rests on."""

    prompt: Chat
    values: Mapping[str, Any]
    judges: frozenset[str] = frozenset()


class Row(NamedTuple):
    """One training row before redaction, see Candidate."""

    set_name: str
    row_id: str
    prompt: Chat
    values: Mapping[str, Any]
    judges: frozenset[str]


class Reject(NamedTuple):
    """A candidate that became no row: for which set, why, and which node or nodes it was about."""

    set_name: str
    reason: str
    node: str = ""


class RejectedCandidateError(Exception):
    """Ends the making of one candidate; the reason is its only argument."""


@dataclass(slots=True)
class Collector:
    """Rows and rejects of one session."""

    session_uid: str
    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def attempt(self, set_name: str, ids: Sequence[str], make: Callable[[], Candidate], *, epoch: int = 0) -> bool:
        """Add the row that ``make`` returns, or the reject it raises; the row's id hashes set, session and ids."""
        try:
            candidate = make()
        except RejectedCandidateError as error:
            self.rejects.append(Reject(set_name, str(error), " ".join(ids)))
            return False
        self.rows.append(Row(set_name, row_id(set_name, self.session_uid, ids, epoch), *candidate))
        return True


def row_id(set_name: str, session_uid: str, ids: Sequence[str], epoch: int = 0) -> str:
    """Stable id of a row; never depends on content. Later graphs of a session count, because they may reuse ids."""
    parts = [set_name, session_uid, *ids, *([f"graph {epoch}"] if epoch else [])]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def chat_of(turns: Sequence[Turn]) -> Chat:
    """Messages as a chat; rejects a chat that holds an empty one."""
    chat = tuple((turn.role, turn.content or "") for turn in turns)
    if not all(content.strip() for _, content in chat):
        raise RejectedCandidateError("empty_content")
    return chat


def answer(text: str) -> Chat:
    """One assistant message."""
    return (("assistant", text),)


def check_prompt(prompt: Chat, *answers: str) -> None:
    """Reject a prompt that does not end in a user turn, is empty somewhere, or holds one of the answers.

    Held means: equal to a message, or a stretch of 32 characters or more in an assistant's message;
    shorter answers may well be words of the question.
    """
    if not prompt or prompt[-1][0] != "user":
        raise RejectedCandidateError("prompt_not_user")
    texts = [(role, norm_text(content)) for role, content in prompt]
    if not all(text for _, text in texts):
        raise RejectedCandidateError("empty_content")
    for text in map(norm_text, answers):
        if any(text == held for _, held in texts):
            raise RejectedCandidateError("answer_in_prompt")
        if len(text) >= _QUOTE_CHARS and any(role == "assistant" and text in held for role, held in texts):
            raise RejectedCandidateError("answer_in_prompt")


class GraphContext:
    """One graph after its replay, with what every set asks of it.

    Attributes:
        turn: Index of the user turn the graph belongs to; None where it cannot be determined.
        clean: For every node, whether nothing on its path ended pruned, is incorrect or in conflict.
    """

    def __init__(self, session: Session, epoch: Epoch, rules: Rules) -> None:
        self.session, self.epoch, self.rules = session, epoch, rules
        self.states: Mapping[str, NodeState] = epoch.states
        self.nodes: Mapping[str, Node] = epoch.nodes
        self.is_message_tree = any(node.role for node in self.nodes.values())
        self.clean = _clean(self.nodes, epoch.states, rules)
        self.turn = _turn_of(session, epoch, self)
        parents = {parent for node in self.nodes.values() for parent in node.parents}
        self.leaves = [node_id for node_id in sorted(self.nodes) if node_id not in parents]

    def is_pruned(self, node_id: str) -> bool:
        """Whether the node ended pruned."""
        return self.states[node_id].status(self.rules) == PRUNED

    def path(self, node_id: str) -> list[str]:
        """Ids from the first step to the node: the question is left out, and in a message tree all but the node."""
        whole = path_to(self.nodes, node_id)
        if whole is None:
            raise RejectedCandidateError("cycle")
        if self.is_message_tree:
            return whole[-1:]
        return whole[1:] if len(whole) > 1 and self._is_question(whole[0]) else whole

    def text(self, node_id: str) -> str:
        """The whole answer that ends in the node: the texts of its path, one below the other, without blank steps."""
        contents = [self.nodes[step].content or "" for step in self.path(node_id)]
        if not contents[-1].strip():
            raise RejectedCandidateError("empty_content")
        return "\n".join(content.rstrip("\n") for content in contents if content.strip())

    def prompt(self, node_id: str) -> Chat:
        """The chat up to the graph's user turn; in a message tree also the turns between it and the node."""
        if self.turn is None:
            raise RejectedCandidateError("ambiguous_turn")
        chat = tuple((turn.role, turn.content or "") for turn in self.session.turns[: self.turn + 1])
        if not self.is_message_tree:
            return chat
        whole = path_to(self.nodes, node_id) or []
        start = 1 if whole and self._is_question(whole[0]) else 0
        return chat + tuple((self.nodes[step].role or "", self.nodes[step].content or "") for step in whole[start:-1])

    def _is_question(self, root: str) -> bool:
        node = self.nodes[root]
        text = norm_text(node.content)
        asked = None if self.turn is None else norm_text(self.session.turns[self.turn].content)
        return node.is_question or not text or text == asked


def _clean(nodes: Mapping[str, Node], states: Mapping[str, NodeState], rules: Rules) -> dict[str, bool]:
    depth = depths(nodes)
    clean: dict[str, bool] = {}
    for node_id in sorted(nodes, key=lambda node_id: depth[node_id] or 0):
        parents = nodes[node_id].parents
        sound = depth[node_id] is not None and (not parents or clean[parents[0]])
        clean[node_id] = sound and _is_clean(states[node_id], rules)
    return clean


def _is_clean(state: NodeState, rules: Rules) -> bool:
    if state.status(rules) == PRUNED or state.is_tied(rules):
        return False
    return state.labels(rules).isdisjoint((INCORRECT, CONFLICT))


def _turn_of(session: Session, epoch: Epoch, context: GraphContext) -> int | None:
    """The user turn a graph belongs to: by its root's text, else by time, else by the answer it holds."""
    users = [i for i, turn in enumerate(session.turns) if turn.role == "user"]
    since = epoch.appeared_us if epoch.appeared_us is not None else epoch.first_act_us
    roots = {norm_text(node.content) for node in context.nodes.values() if not node.parents} - {""}
    asked = [i for i in users if norm_text(session.turns[i].content) in roots]
    if len(asked) == 1:
        return asked[0]
    before = [i for i in asked or users if since is not None and session.turns[i].created_at <= since]
    if before or asked:
        return before[-1] if before else None
    answered = [i for i, turn in enumerate(session.turns) if turn.role == "assistant" and _holds(context, turn.content)]
    return max((i for i in users if answered and i < answered[0]), default=None)


def _holds(context: GraphContext, content: str | None) -> bool:
    text = norm_text(content)
    return bool(text) and any(matches(context.nodes, node_id, text) for node_id in context.nodes)


def matches(nodes: Mapping[str, Node], node_id: str, text: str) -> bool:
    """Whether a normalised text is that of the node, or of the path that ends in it, with or without its root."""
    own = norm_text(nodes[node_id].content)
    if not own or not text.endswith(own):
        return False
    if own == text:
        return True
    path = path_to(nodes, node_id) or [node_id]
    texts = [norm_text(nodes[step].content) for step in path]
    return text in (" ".join(texts), " ".join(texts[1:]))
