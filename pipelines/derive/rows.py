"""All training rows of one session, and a reason for every candidate that became none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pipelines.derive.acts import Session
from pipelines.derive.answers import add_answers, add_judged_messages, add_steps
from pipelines.derive.chats import add_conversation, add_prompt
from pipelines.derive.context import Collector, GraphContext, Reject, Row
from pipelines.derive.pairs import add_pairs
from pipelines.derive.replay import DEFAULT_RULES, Replay, Rules, replay

SETS: Final = frozenset({"sft", "preferences", "unpaired", "stepwise", "prompts"})
_NO_CANDIDATE: Final = {
    "preferences": "no_preference",
    "unpaired": "no_verdict",
    "stepwise": "no_judged_steps",
}


@dataclass(frozen=True, slots=True)
class Derived:
    """Rows and rejects of one session; a session without a row for a set has at least one reject for it."""

    rows: tuple[Row, ...]
    rejects: tuple[Reject, ...]


def training_rows(session: Session, rules: Rules = DEFAULT_RULES, sets: Collection[str] = SETS) -> Derived:
    """The rows that a session gives for the named sets; never raises on odd data."""
    out = Collector(session.session_uid)
    if set(sets) == {"prompts"}:  # the one set that no interaction changes
        add_prompt(out, session)
        return Derived(tuple(out.rows), tuple(out.rejects))
    result = replay(session)
    contexts = [GraphContext(session, epoch, rules) for epoch in result.epochs if epoch.nodes]
    if "sft" in sets:
        add_conversation(out, session, result, contexts, rules)
    if "prompts" in sets:
        add_prompt(out, session)
    if "unpaired" in sets:
        add_judged_messages(out, session, result.messages, rules)
    for context in contexts:
        if "preferences" in sets:
            add_pairs(out, context)
        if "unpaired" in sets:
            add_answers(out, context)
        if "stepwise" in sets:
            add_steps(out, context)
    rows = _unique(out.rows) if len(contexts) > 1 else out.rows
    return Derived(tuple(rows), (*out.rejects, *_missing(out, result, sets)))


def _unique(rows: list[Row]) -> list[Row]:
    """Rows without those that an earlier graph of the session already gave, word for word."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(repr((row.set_name, row.prompt, row.values)), row)
    return list(first.values())


def _missing(out: Collector, result: Replay, sets: Collection[str]) -> list[Reject]:
    """Rejects that no candidate carries: injects that mean nothing, and sets without any candidate."""
    conflicts = [Reject("preferences", reason, node) for reason, node in result.rejects if "preferences" in sets]
    known = {row.set_name for row in out.rows} | {reject.set_name for reject in (*out.rejects, *conflicts)}
    has_graph = any(epoch.nodes for epoch in result.epochs)
    return conflicts + [
        Reject(name, reason if has_graph or name == "unpaired" else "no_graph")
        for name, reason in _NO_CANDIDATE.items()
        if name in sets and name not in known
    ]
