"""The one replay of a session's interactions over its graphs: what happened to every node, and who judged it how.

Interactions are replayed in (created_at, index) order. A node is alive; a prune prunes it, a
resurrect revives it; with several annotators the majority of their latest votes decides. Where a
graph was replaced, every act counts on the graph that was in force when it happened, and on the
others as far as its node is there with the same content.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, NamedTuple

from archiver.events import GRAPH_SNAPSHOT, VERDICTS
from pipelines.derive.acts import LEVELS, Act, Session, actor_of
from pipelines.derive.graphs import ACTIVE, PRUNED, Graph, Node, parse
from pipelines.derive.texts import norm_text

CORRECT: Final = "correct"
INCORRECT: Final = "incorrect"
PARTIAL: Final = "partial"
CONFLICT: Final = "conflict"
_by_position = attrgetter("position")
_by_time = attrgetter("created_at_us", "position")
_KIND_ORDER: Final = ("human", "auto", "model", "agent")


@dataclass(frozen=True, slots=True)
class Rules:
    """Whose acts count for training.

    Attributes:
        verdict_kinds: Actor kinds whose verdicts label.
        choice_kinds: Actor kinds whose prunes, ranks and injects count as preferences.
    """

    verdict_kinds: frozenset[str] = frozenset({"human", "auto"})
    choice_kinds: frozenset[str] = frozenset({"human"})


DEFAULT_RULES: Final = Rules()


class Vote(NamedTuple):
    """An annotator's latest word on whether a node is pruned."""

    prune: bool
    kind: str
    at_us: int
    over: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """An actor's latest verdict on a node at one level."""

    label: str
    kind: str


class Rank(NamedTuple):
    """An actor's latest rank of a node; the smallest is best."""

    value: float
    kind: str


class Inject(NamedTuple):
    """How the text of an injected node came into the graph."""

    kind: str
    at_us: int
    replaces: str | None


class FeedbackEvent(NamedTuple):
    """One verdict in long form."""

    act: Act
    actor: str
    actor_kind: str
    level: str
    epoch: int
    message: int | None
    target: tuple[Any, ...]


@dataclass(slots=True)
class NodeState:
    """A node and everything that happened to it."""

    node: Node
    votes: dict[str, Vote] = field(default_factory=dict)
    vote_log: list[Vote] = field(default_factory=list)
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    ranks: dict[str, Rank] = field(default_factory=dict)
    inject: Inject | None = None
    n_prune: int = 0
    n_resurrect: int = 0

    def label(self, levels: Sequence[str] = LEVELS, rules: Rules = DEFAULT_RULES) -> str | None:
        """The node's label at the first of the levels that anyone counted has judged, else None.

        Within a level a human's verdict overrides a program's; disagreement inside one kind is a conflict.
        """
        if not self.verdicts:
            return None
        return next((found[0] for level in levels if (found := self._judgement(level, rules))), None)

    def judges(self, levels: Sequence[str], rules: Rules) -> frozenset[str]:
        """The kind of actor that the label rests on; empty without a label."""
        found = next((found for level in levels if (found := self._judgement(level, rules))), None)
        return frozenset((found[1],) if found else ())

    def labels(self, rules: Rules) -> set[str]:
        """The labels of all levels."""
        return {found[0] for level in LEVELS if (found := self._judgement(level, rules))}

    def _judgement(self, level: str, rules: Rules) -> tuple[str, str] | None:
        """(label, kind of actor) at a level."""
        found: dict[str, set[str]] = {}
        for (_, at), verdict in self.verdicts.items():
            if at == level and verdict.kind in rules.verdict_kinds:
                found.setdefault(verdict.kind, set()).add(verdict.label)
        for kind in _KIND_ORDER if found else ():
            if kind in found:
                return (found[kind].pop() if len(found[kind]) == 1 else CONFLICT), kind
        return None

    def is_tied(self, rules: Rules) -> bool:
        """Whether the counted annotators are evenly split over pruning the node."""
        return self.agreement(rules) == 0.5

    def agreement(self, rules: Rules) -> float | None:
        """Share of the counted annotators whose latest vote is to prune; None without a counted vote."""
        counted = [vote.prune for vote in self.votes.values() if vote.kind in rules.choice_kinds]
        return sum(counted) / len(counted) if counted else None

    def status(self, rules: Rules = DEFAULT_RULES) -> str:
        """``active`` or ``pruned`` as the votes decide, else the graph's own word.

        Counted kinds decide alone where one voted; a tie is what the last of these votes says.
        """
        if not self.votes:
            return self.node.status
        counted = [vote for vote in self.votes.values() if vote.kind in rules.choice_kinds] or list(self.votes.values())
        share = sum(vote.prune for vote in counted) / len(counted)
        if share == 0.5:
            kinds = {vote.kind for vote in counted}
            return PRUNED if [v for v in self.vote_log if v.kind in kinds][-1].prune else ACTIVE
        return PRUNED if share > 0.5 else ACTIVE

    def was_pruned_at(self, at_us: int, rules: Rules) -> bool:
        """Whether the last counted vote up to a moment, that moment included, was a prune."""
        until = [vote for vote in self.vote_log if vote.at_us <= at_us and vote.kind in rules.choice_kinds]
        return bool(until) and until[-1].prune


@dataclass
class Epoch:
    """One graph of a session and what happened to its nodes.

    Attributes:
        appeared_us: When this graph replaced another one; None for the first.
        nodes: The graph's nodes, then those that injects added.
        touched: The nodes that acts named. Nothing happened to the others, and most nodes are others.
        first_act_us: The first act on one of its nodes while it was in force.
    """

    number: int
    graph: Graph
    appeared_us: int | None
    nodes: dict[str, Node]
    touched: dict[str, NodeState] = field(default_factory=dict)
    first_act_us: int | None = None

    def touch(self, node_id: str | None) -> NodeState | None:
        """What happened to a node so far, to be added to; None where there is no such node."""
        if node_id is None:
            return None
        state = self.touched.get(node_id)
        if state is None and node_id in self.nodes:
            state = self.touched[node_id] = NodeState(self.nodes[node_id])
        return state

    @cached_property
    def states(self) -> Mapping[str, NodeState]:
        """All nodes, in the graph's order, after the replay."""
        return {node_id: self.touched.get(node_id) or NodeState(node) for node_id, node in self.nodes.items()}


@dataclass(slots=True)
class Replay:
    """All graphs of a session in order, and every verdict.

    Attributes:
        messages: Verdicts on messages, where a session has no graph: message index to state.
        unattributed: Verdicts that no node or message could be found for, by the node id they named, if any.
        rejects: (reason, node id) of acts that mean nothing.
    """

    epochs: list[Epoch]
    events: list[FeedbackEvent] = field(default_factory=list)
    messages: dict[int, NodeState] = field(default_factory=dict)
    unattributed: dict[str | None, NodeState] = field(default_factory=dict)
    rejects: list[tuple[str, str]] = field(default_factory=list)

    @property
    def last(self) -> Epoch:
        """The graph in force at the end."""
        return self.epochs[-1]

    def latest(self) -> set[int]:
        """Indexes of the verdicts that no later one by the same actor on the same node and level replaced."""
        return set({(e.target, e.actor, e.level): e.act.position for e in self.events}.values())


def replay(session: Session) -> Replay:
    """Replay a session; never raises on odd data."""
    snapshots = sorted((act for act in session.acts if act.action_type == GRAPH_SNAPSHOT), key=_by_position)
    ends = [act.position for act in snapshots]
    graphs = [parse(act.content) for act in snapshots] + [parse(session.graph_state)]
    appeared = [None, *(act.created_at_us for act in snapshots)]
    result = Replay([Epoch(i, graph, appeared[i], dict(graph.nodes)) for i, graph in enumerate(graphs)])
    for act in sorted(session.acts, key=_by_time):
        if act.action_type != GRAPH_SNAPSHOT:
            _apply(session, result, bisect_left(ends, act.position), act)
    return result


def _apply(session: Session, result: Replay, number: int, act: Act) -> None:
    home = result.epochs[number]
    actor, kind = actor_of(act.metadata, session.user_id)
    node_id = _inject(home, act, kind, result) if act.action_type == "inject" else act.node_id
    state = home.touch(node_id)
    if state is not None and home.first_act_us is None:
        home.first_act_us = act.created_at_us
    if act.feedback in VERDICTS:
        _record_verdict(session, result, home, act, (actor, kind, node_id))
    if state is None:
        return
    for same in _everywhere(result, home, node_id, state):
        _record_choice(same, act, actor, kind)
        if act.action_type == "inject":
            same.inject = state.inject


def _everywhere(result: Replay, home: Epoch, node_id: str | None, state: NodeState) -> Iterator[NodeState]:
    """A node of one graph, and of the others as far as it is there with the same content."""
    yield state
    for epoch in result.epochs if len(result.epochs) > 1 else ():
        other = None if epoch is home else epoch.touch(node_id)
        if other is not None and norm_text(other.node.content) == norm_text(state.node.content):
            yield other


def _record_choice(state: NodeState, act: Act, actor: str, kind: str) -> None:
    if act.action_type in ("prune", "resurrect"):
        prune = act.action_type == "prune"
        vote = Vote(prune, kind, act.created_at_us, _names(act.metadata.get("over")) if prune else ())
        state.votes.pop(actor, None)
        state.votes[actor] = vote
        state.vote_log.append(vote)
        state.n_prune += prune
        state.n_resurrect += not prune
    elif act.action_type == "rank":
        value = act.metadata.get("rank")
        if isinstance(value, int | float) and not isinstance(value, bool):
            state.ranks[actor] = Rank(value, kind)


def _record_verdict(session: Session, result: Replay, home: Epoch, act: Act, who: tuple[str, str, str | None]) -> None:
    actor, kind, node_id = who
    state = home.touch(node_id)
    message = session.message_index(node_id) if node_id is not None and not home.graph.nodes and state is None else None
    named = act.metadata.get("level")
    level = str(named) if named is not None else "answer" if node_id is None or message is not None else "step"
    verdict = Verdict(str(act.feedback), kind)
    target: tuple[Any, ...]
    if state is not None:
        target = ("node", node_id, norm_text(state.node.content) if len(result.epochs) > 1 else "")
        for same in _everywhere(result, home, node_id, state):
            same.verdicts[actor, level] = verdict
    elif message is not None:
        target = ("message", message)
        if not _outdated(session, message, act):
            result.messages.setdefault(message, NodeState(Node(None))).verdicts[actor, level] = verdict
    else:
        target = ("nothing", node_id)
        result.unattributed.setdefault(node_id, NodeState(Node(None))).verdicts[actor, level] = verdict
    result.events.append(FeedbackEvent(act, actor, kind, level, home.number, message, target))


def _outdated(session: Session, message: int, act: Act) -> bool:
    """Whether the message is newer than the verdict: it replaced the one that was judged (a regenerated answer)."""
    return bool(session.turns) and session.turns[message].created_at > act.created_at_us


def _inject(home: Epoch, act: Act, kind: str, result: Replay) -> str | None:
    """Apply an inject to its graph; the id of the injected node, None where the inject means nothing."""
    nodes, text = home.nodes, act.content
    parent, replaced = act.metadata.get("parent_id"), act.metadata.get("replaces")
    inject = Inject(kind, act.created_at_us, None if replaced is None else str(replaced))
    node_id = act.node_id
    if parent is None and replaced is None and node_id in nodes and not _says(nodes[node_id], text):
        parent, node_id = node_id, None
    node_id = node_id if node_id is not None else f"inject-{act.position}"
    known = nodes.get(node_id)
    if not norm_text(text) or (known is not None and known.content is not None and not _says(known, text)):
        result.rejects.append(("inject_conflict", node_id))
        return None
    if known is None:
        known = nodes[node_id] = Node(text, author=str(act.metadata.get("actor") or "human"))
    known.content = known.content if known.content is not None else text
    known.parents = known.parents or _inject_parents(nodes, node_id, parent, inject.replaces)
    home.touched.setdefault(node_id, NodeState(known)).inject = inject
    return node_id


def _inject_parents(nodes: Mapping[str, Node], node_id: str, parent: object, replaces: str | None) -> list[str]:
    if parent is not None:
        return [str(parent)] if str(parent) in nodes and str(parent) != node_id else []
    if replaces is not None and replaces in nodes:
        return [p for p in nodes[replaces].parents if p != node_id]
    return []


def _says(node: Node, text: str | None) -> bool:
    return norm_text(node.content) == norm_text(text)


def _names(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(name) for name in value) if isinstance(value, list) else (str(value),)
