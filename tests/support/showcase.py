"""A lake that looks like a real one: made-up conversations in ten languages, archived and compacted."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any, Final

from archived import put

from archiver.events import Interaction, Message, SessionRecord
from archiver.objects import ObjectStore
from archiver.settings import Settings
from pipelines import compaction
from pipelines.demo import Conversation, conversations

START_US: Final = 1_780_272_000_000_000
"""2026-06-01 00:00 UTC."""
NOW_US: Final = 1_790_900_000_000_000
DAY_US: Final = 86_400_000_000
DAYS: Final = 120
_JUDGES: Final = ("model:judge-1", "agent:searcher", "human:reviewer")


def records(count: int, *, days: int = DAYS) -> Iterator[SessionRecord]:
    """Sessions that grow more frequent with time, every eighth without a language, some judged by models."""
    for number, conversation in enumerate(conversations(count)):
        rng = random.Random(f"showcase-{number}")
        day = int(days * rng.random() ** 0.6)
        created = START_US + min(day, days - 1) * DAY_US + rng.randrange(DAY_US)
        yield _record(conversation, created, rng)


def _record(conversation: Conversation, created_us: int, rng: random.Random) -> SessionRecord:
    language = None if rng.random() < 0.125 else conversation.language
    turns = [
        Message(role, text, created_us + i * 20_000_000, language) for i, (role, text) in enumerate(conversation.turns)
    ]
    actions = [*conversation.actions, *_judged_by_others(rng)]
    return SessionRecord(
        session_id=conversation.session_id,
        created_at_us=created_us,
        updated_at_us=created_us + 600_000_000,
        user_id=conversation.user_id,
        language=language,
        tz_assumed=rng.random() < 0.02,
        messages=tuple(turns),
        interactions=tuple(
            _interaction(action, created_us + 60_000_000 + i * 7_000_000) for i, action in enumerate(actions)
        ),
        graph_state=json.dumps(conversation.graph, ensure_ascii=False),
        archived_at_us=NOW_US,
    )


def _judged_by_others(rng: random.Random) -> Iterator[dict[str, Any]]:
    if rng.random() < 0.3:
        verdict = rng.choice(("correct", "correct", "incorrect", "partial"))
        yield {"action_type": "feedback", "node_id": "s1", "feedback": verdict, "actor": rng.choice(_JUDGES)}
    if rng.random() < 0.06:
        yield {"action_type": "resurrect", "node_id": "s1x", "metadata": {"annotator": "second"}}


def _interaction(action: dict[str, Any], at_us: int) -> Interaction:
    named = {name: action[name] for name in ("actor", "level") if action.get(name)}
    metadata = json.dumps({**action.get("metadata", {}), **named})
    return Interaction(
        at_us, action["action_type"], action.get("node_id"), action.get("content"), action.get("feedback"), metadata
    )


def build(store: ObjectStore, sessions: Iterable[SessionRecord], *, segment_sessions: int = 400) -> None:
    """Archive the sessions in segments and compact them."""
    waiting = list(sessions)
    for sequence, start in enumerate(range(0, len(waiting), segment_sessions), 1):
        put(store, sequence, waiting[start : start + segment_sessions])
    compaction.compact(store, Settings(runner={"workers": 1}), now_us=NOW_US)
