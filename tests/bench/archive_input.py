"""Input of the archiving benchmark: the same sessions as hot-store rows and as the original's JSON files."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from archiver.events import Interaction, Message, SessionRecord, format_time
from archiver.hot import HotStore, lifecycle

START_US: Final = 1_760_000_000_000_000
MESSAGES: Final = 20
INTERACTIONS: Final = 5
BATCH: Final = 500


def sessions(count: int) -> Iterator[SessionRecord]:
    """Sessions of about 13 KB of text without verbatim repeats longer than a few sentences."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(2, 11))) for _ in range(8000)]
    corpus = " ".join(chance.choices(words, k=700_000))

    def text(length: int) -> str:
        start = chance.randrange(len(corpus) - length)
        return corpus[start : start + length]

    for n in range(count):
        created_us = START_US + n * 1000
        yield SessionRecord(
            session_id=hashlib.sha256(b"%d" % n).hexdigest()[:22],  # as random as ids of real sessions
            created_at_us=created_us,
            updated_at_us=created_us + 25_000_000,
            user_id=f"user-{n % 1000}",
            language="en",
            tz_assumed=False,
            messages=tuple(
                Message(("user", "assistant")[i % 2], text(chance.randrange(300, 600)), created_us + i * 10**6, "en")
                for i in range(MESSAGES)
            ),
            interactions=tuple(
                Interaction(
                    created_us + (MESSAGES + i) * 1_000_000, "feedback", f"node-{i}", None, "correct",
                    f'{{"actor":"human:u{n % 1000}","level":"step"}}',
                )
                for i in range(INTERACTIONS)
            ),
            graph_state=json.dumps({"nodes": [{"id": f"node-{i}", "content": text(400)} for i in range(5)]}),
            metadata='{"app":"web"}',
        )  # fmt: skip


def fill_hot(directory: Path, count: int) -> None:
    """Sessions as expired rows of a hot store."""
    remaining = sessions(count)
    with HotStore(directory, durability="process") as hot:
        while part := list(islice(remaining, BATCH)):
            with hot.transaction() as connection:
                for record in part:
                    lifecycle.insert_record(
                        connection, record, last_activity_us=record.created_at_us + 25_000_000,
                        restored_us=None, archived_sha256=None,
                    )  # fmt: skip


def fill_json(directory: Path, count: int) -> None:
    """Sessions as the original's files."""
    directory.mkdir(parents=True)
    for record in sessions(count):
        (directory / f"{record.session_id}.json").write_text(
            json.dumps(_as_original(record), ensure_ascii=False), "utf-8"
        )


def _as_original(record: SessionRecord) -> dict[str, object]:
    history = [
        {"role": m.role, "content": m.content, "timestamp": format_time(m.created_at_us), "language": m.language}
        for m in record.messages
    ]
    acts = [
        {
            "timestamp": format_time(i.created_at_us), "action_type": i.action_type, "node_id": i.node_id,
            "content": i.content, "feedback": i.feedback, "metadata": json.loads(i.metadata),
        }
        for i in record.interactions
    ]  # fmt: skip
    return {
        "session_id": record.session_id,
        "created_at": format_time(record.created_at_us),
        "updated_at": format_time(record.updated_at_us or 0),
        "language": record.language,
        "chat_history": history,
        "interactions": acts,
        "graph_state": json.loads(record.graph_state or "null"),
        "metadata": json.loads(record.metadata),
    }
