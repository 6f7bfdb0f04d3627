"""Judged answers and judged chains of steps, from graphs and, without one, from judged messages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pipelines.derive.acts import LEVELS, Session
from pipelines.derive.context import (
    Candidate,
    Collector,
    GraphContext,
    Reject,
    RejectedCandidateError,
    answer,
    chat_of,
    check_prompt,
)
from pipelines.derive.graphs import path_to
from pipelines.derive.replay import CONFLICT, CORRECT, INCORRECT, PARTIAL, NodeState, Rules
from pipelines.derive.texts import norm_text

_NO_LABEL = {PARTIAL: "partial_verdict", CONFLICT: "conflicting_verdicts"}


def add_answers(out: Collector, context: GraphContext) -> None:
    """Add whole answers that were judged, and incorrect steps with the path that led to them."""
    leaves = set(context.leaves)
    for node_id in sorted(context.nodes):
        state = context.states[node_id]
        label = state.label(LEVELS, context.rules)
        if label is None or context.nodes[node_id].role == "user":
            continue
        is_whole = node_id in leaves or state.label(("answer", "outcome"), context.rules) is not None
        if label != CORRECT or is_whole:
            make = partial(_answer, context, node_id, label)
            out.attempt("unpaired", (node_id,), make, epoch=context.epoch.number)


def _answer(context: GraphContext, node_id: str, label: str) -> Candidate:
    if label in _NO_LABEL:
        raise RejectedCandidateError(_NO_LABEL[label])
    if label == CORRECT and not context.clean[node_id]:
        raise RejectedCandidateError("not_clean")
    if label == CORRECT and _quotes_parent(context, node_id):
        raise RejectedCandidateError("correct_fragment")
    text, prompt = context.text(node_id), context.prompt(node_id)
    check_prompt(prompt, text)
    values = {"completion": answer(text), "label": label == CORRECT, "node_id": node_id}
    return Candidate(prompt, values, context.states[node_id].judges(LEVELS, context.rules))


def _quotes_parent(context: GraphContext, node_id: str) -> bool:
    """Whether the node is a piece of the step before it (a claim in an answer), not its continuation."""
    path = context.path(node_id)
    nodes = context.nodes
    return len(path) > 1 and norm_text(nodes[path[-1]].content) in norm_text(nodes[path[-2]].content)


def add_judged_messages(out: Collector, session: Session, messages: Mapping[int, NodeState], rules: Rules) -> None:
    """Add the assistant's messages that were judged in a session without a graph."""
    for index, state in sorted(messages.items()):
        if state.label(LEVELS, rules) and session.turns[index].role == "assistant":
            out.attempt("unpaired", (f"message-{index}",), partial(_message, session, index, state, rules))


def _message(session: Session, index: int, state: NodeState, rules: Rules) -> Candidate:
    label = state.label(LEVELS, rules) or ""
    if label in _NO_LABEL:
        raise RejectedCandidateError(_NO_LABEL[label])
    text = chat_of(session.turns[index : index + 1])[0][1]
    prompt = chat_of(session.turns[:index])
    check_prompt(prompt, text)
    values = {"completion": answer(text), "label": label == CORRECT, "node_id": f"message-{index}"}
    return Candidate(prompt, values, state.judges(LEVELS, rules))


def add_steps(out: Collector, context: GraphContext) -> None:
    """Add, for every leaf, the judged steps from the first one on, up to and including the first error."""
    if context.is_message_tree:
        return
    seen: set[tuple[str, ...]] = set()
    for leaf in context.leaves:
        if path_to(context.nodes, leaf) is None:
            out.rejects.append(Reject("stepwise", "cycle", leaf))
            continue
        labels = _judged_steps(context, context.path(leaf))
        steps = tuple(labels)
        if steps and steps not in seen:
            seen.add(steps)
            out.attempt("stepwise", steps, partial(_steps, context, labels), epoch=context.epoch.number)


def _judged_steps(context: GraphContext, path: list[str]) -> dict[str, bool]:
    """The steps that can be labelled, from the first on; an outcome's verdict labels no step, a blank step is none."""
    labels: dict[str, bool] = {}
    for step in path:
        state = context.states[step]
        label = state.label(("step", "answer") if step == path[-1] else ("step",), context.rules)
        is_pruned = context.is_pruned(step)
        if label is None and not is_pruned and state.inject and state.inject.kind in context.rules.choice_kinds:
            label = CORRECT
        if label not in (CORRECT, INCORRECT) or (is_pruned and label == CORRECT) or state.is_tied(context.rules):
            break
        is_blank = not norm_text(context.nodes[step].content)
        if not is_blank:
            labels[step] = label == CORRECT
        if label == INCORRECT:
            break
    return labels


def _steps(context: GraphContext, labels: dict[str, bool]) -> Candidate:
    steps = [context.nodes[step].content or "" for step in labels]
    prompt = context.prompt(next(iter(labels)))
    check_prompt(prompt, "\n".join(steps))
    states = [context.states[step] for step in labels]
    judges = [state.judges(("step", "answer"), context.rules) or _injector(state) for state in states]
    values = {"completions": steps, "labels": list(labels.values()), "node_refs": list(labels)}
    return Candidate(prompt, values, frozenset().union(*judges))


def _injector(state: NodeState) -> frozenset[str]:
    return frozenset((state.inject.kind,) if state.inject else ())
