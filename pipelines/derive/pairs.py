"""Preference pairs: siblings of one parent, one preferred by a prune, an inject, verdicts or ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Final, NamedTuple

from pipelines.derive.acts import LEVELS
from pipelines.derive.context import (
    Candidate,
    Collector,
    GraphContext,
    Reject,
    RejectedCandidateError,
    answer,
    check_prompt,
)
from pipelines.derive.replay import CORRECT, INCORRECT, PARTIAL, NodeState
from pipelines.derive.texts import norm_text

INJECT_OVER_PRUNED: Final = "inject_over_pruned"
SURVIVOR_OVER_PRUNED: Final = "survivor_over_pruned"
VERDICT_ORDER: Final = "verdict_order"
RANK: Final = "rank"
PAIR_KINDS: Final = (INJECT_OVER_PRUNED, SURVIVOR_OVER_PRUNED, VERDICT_ORDER, RANK)
MAX_PAIRS_PER_PARENT: Final = 1000
_ORDER: Final = {CORRECT: 2, PARTIAL: 1, INCORRECT: 0}


class _Pair(NamedTuple):
    chosen: str
    rejected: str
    kind: str
    margin: float
    judges: frozenset[str]
    agreement: float | None = None


def add_pairs(out: Collector, context: GraphContext) -> None:
    """Add the pairs of one graph, the kinds with the strongest evidence first; a pair has one direction."""
    for siblings in _families(context):
        tried: set[tuple[str, str]] = set()
        made: set[frozenset[str]] = set()
        for pair in _candidates(out, context, siblings):
            nodes = frozenset((pair.chosen, pair.rejected))
            if nodes in made or (pair.chosen, pair.rejected) in tried:
                continue
            if len(made) == MAX_PAIRS_PER_PARENT:
                out.rejects.append(Reject("preferences", "too_many_siblings", context.nodes[pair.chosen].parents[0]))
                break
            tried.add((pair.chosen, pair.rejected))
            if _add(out, context, pair):
                made.add(nodes)


def _families(context: GraphContext) -> Iterator[list[str]]:
    """Children of one parent, in the order of their ids. Nodes without a parent are nobody's siblings."""
    families: dict[str, list[str]] = defaultdict(list)
    for node_id in sorted(context.nodes):
        node = context.nodes[node_id]
        if node.parents and node.role != "user":
            families[node.parents[0]].append(node_id)
    for parent in sorted(families):
        if len(families[parent]) > 1:
            yield families[parent]


def _candidates(out: Collector, context: GraphContext, siblings: list[str]) -> Iterator[_Pair]:
    yield from _by_prune(out, context, siblings)
    yield from _by_verdict(context, siblings)
    yield from _by_rank(out, context, siblings)


def _by_prune(out: Collector, context: GraphContext, siblings: list[str]) -> Iterator[_Pair]:
    pruned = [node_id for node_id in siblings if context.is_pruned(node_id)]
    for loser in siblings:
        state = context.states[loser]
        agreement = state.agreement(context.rules)
        if agreement is None or agreement < 0.5:
            continue
        if agreement == 0.5:
            out.rejects.append(Reject("preferences", "tied_votes", loser))
        elif state.label(rules=context.rules) == CORRECT:
            out.rejects.append(Reject("preferences", "prune_contradicts_verdict", loser))
        else:
            for winner in siblings:
                if winner != loser and _replaces(context, winner, loser, pruned):
                    yield _Pair(winner, loser, INJECT_OVER_PRUNED, 1.0, _voters(context, loser))
            yield from _survivors(out, context, siblings, loser, agreement)


def _replaces(context: GraphContext, winner: str, loser: str, pruned: list[str]) -> bool:
    inject = context.states[winner].inject
    if inject is None or inject.kind not in context.rules.choice_kinds:
        return False
    if inject.replaces is not None:
        return inject.replaces == loser
    return pruned == [loser] and context.states[loser].was_pruned_at(inject.at_us, context.rules)


def _survivors(
    out: Collector, context: GraphContext, siblings: list[str], loser: str, agreement: float
) -> Iterator[_Pair]:
    votes = context.states[loser].votes.values()
    named = {name for vote in votes if vote.prune and vote.kind in context.rules.choice_kinds for name in vote.over}
    for stranger in sorted(named.difference(siblings)):
        out.rejects.append(Reject("preferences", "not_a_sibling", f"{stranger} {loser}"))
    for winner in siblings:
        judged = context.states[winner].label(rules=context.rules) == CORRECT
        if winner != loser and (winner in named or judged):
            yield _Pair(winner, loser, SURVIVOR_OVER_PRUNED, agreement, _voters(context, loser), agreement)


def _voters(context: GraphContext, node_id: str) -> frozenset[str]:
    votes = context.states[node_id].votes.values()
    return frozenset(vote.kind for vote in votes if vote.prune and vote.kind in context.rules.choice_kinds)


def _by_verdict(context: GraphContext, siblings: list[str]) -> Iterator[_Pair]:
    judged = [node_id for node_id in siblings if context.states[node_id].verdicts]
    for a, b in combinations(judged, 2):
        difference, judges = _difference(context.states[a], context.states[b], context)
        if difference:
            chosen, rejected = (a, b) if difference > 0 else (b, a)
            yield _Pair(chosen, rejected, VERDICT_ORDER, abs(difference) / 2, judges)


def _difference(a: NodeState, b: NodeState, context: GraphContext) -> tuple[int, frozenset[str]]:
    """How far a was judged above b at the first level at which both were judged differently, and by whom."""
    for level in LEVELS:
        first, second = (_ORDER.get(state.label((level,), context.rules) or "") for state in (a, b))
        if first is not None and second is not None and first != second:
            judges = (state.judges((level,), context.rules) for state in (a, b))
            return first - second, frozenset().union(*judges)
    return 0, frozenset()


def _by_rank(out: Collector, context: GraphContext, siblings: list[str]) -> Iterator[_Pair]:
    ranked = [node_id for node_id in siblings if context.states[node_id].ranks]
    for a, b in combinations(ranked, 2):
        first, second = context.states[a].ranks, context.states[b].ranks
        counted = [
            (rank.value, second[actor].value, rank.kind)
            for actor, rank in first.items()
            if actor in second and rank.kind in context.rules.choice_kinds
        ]
        better, worse = any(x < y for x, y, _ in counted), any(x > y for x, y, _ in counted)
        if better and worse:
            out.rejects.append(Reject("preferences", "ranks_disagree", f"{a} {b}"))
        elif better or worse:
            yield _Pair(*((a, b) if better else (b, a)), RANK, 0.5, frozenset(kind for _, _, kind in counted))


def _add(out: Collector, context: GraphContext, pair: _Pair) -> bool:
    def make() -> Candidate:
        if not context.clean[pair.chosen]:
            raise RejectedCandidateError("chosen_not_clean")
        chosen, rejected = context.text(pair.chosen), context.text(pair.rejected)
        if norm_text(chosen) == norm_text(rejected):
            raise RejectedCandidateError("equal_texts")
        prompt = context.prompt(pair.chosen)
        check_prompt(prompt, chosen, rejected)
        values = {
            "chosen": answer(chosen),
            "rejected": answer(rejected),
            "margin": pair.margin,
            "pair_kind": pair.kind,
            "chosen_node": pair.chosen,
            "rejected_node": pair.rejected,
            "agreement": pair.agreement,
        }
        return Candidate(prompt, values, pair.judges)

    return out.attempt("preferences", (pair.chosen, pair.rejected), make, epoch=context.epoch.number)
