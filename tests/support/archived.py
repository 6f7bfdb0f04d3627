"""Archives for tests: sessions as records, segments put straight under their keys."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from archiver import archive, segments
from archiver.archive import SegmentRef
from archiver.events import FeedbackCounts, Interaction, Message, SessionRecord
from archiver.objects import ObjectStore

DAY_US: Final = 86_400_000_000
START_US: Final = 1_790_000_000_000_000 // DAY_US * DAY_US
ARCHIVER: Final = "a" * 32
OTHER_ARCHIVER: Final = "b" * 32

_WORDS: Final = ("alpha", "βήτα", "гамма", "δ\u0301", "中文", "🙂", "line\nbreak", "", "null", "x" * 300)
_ACTORS: Final = ({}, {"actor": "human:ann"}, {"actor": "auto:judge"}, {"annotator": "bob"}, {"actor": "model:m"})


def session(n: int, *, seed: int = 0, days: int = 3, n_messages: int | None = None, **changes: Any) -> SessionRecord:
    """Session number ``n``: every field filled from a seeded generator, some of them null."""
    rng = random.Random(f"{seed}:{n}")
    created = START_US + rng.randrange(days) * DAY_US + rng.randrange(DAY_US)
    count = rng.randrange(9) if n_messages is None else n_messages
    record = SessionRecord(
        session_id=f"s{n}",
        created_at_us=created,
        updated_at_us=rng.choice((None, created + 10_000_000)),
        user_id=rng.choice((None, f"u{n % 7}", f"u{n % 7}")),
        language=rng.choice((None, "en", "pl")),
        tz_assumed=rng.random() < 0.2,
        messages=tuple(message(rng, created, i) for i in range(count)),
        interactions=tuple(interaction(rng, created, i) for i in range(rng.randrange(6))),
        graph_state=rng.choice((None, _graph(rng))),
        metadata=json.dumps(rng.choice(({}, {"app": "web"}, {"consent": "training"}))),
        extra=rng.choice((None, '{"topic":"t"}')),
        reported=rng.choice((None, FeedbackCounts(rng.randrange(3), 0, 0))),
        archived_at_us=START_US + 10 * DAY_US,
    )
    return replace(record, **changes)


def message(rng: random.Random, created_us: int, index: int) -> Message:
    """One message of a session."""
    role = "user" if index % 2 == 0 else rng.choice(("assistant", "assistant", "tool"))
    content = rng.choice((None, " ".join(rng.choices(_WORDS, k=5)), rng.choice(_WORDS)))
    return Message(role, content, created_us + index * 1_000_001, rng.choice((None, "en")))


def interaction(rng: random.Random, created_us: int, index: int) -> Interaction:
    """One interaction of a session, half of them verdicts."""
    when = created_us + 5_000_000 + index * 3
    metadata = {**rng.choice(_ACTORS), **rng.choice(({}, {"level": "outcome"}, {"context": "c"}))}
    node = rng.choice((None, "n0", "n1", "nowhere"))
    if rng.random() < 0.5:
        verdict = rng.choice(("correct", "incorrect", "partial"))
        return Interaction(when, "feedback", node, None, verdict, json.dumps(metadata))
    action = rng.choice(("prune", "resurrect", "inject", "view"))
    return Interaction(when, action, node, rng.choice((None, "text")), None, json.dumps(metadata))


def _graph(rng: random.Random) -> str:
    nodes = [{"id": f"n{i}", "content": rng.choice(_WORDS)} for i in range(3)]
    return json.dumps({"nodes": nodes, "edges": [{"source": "n0", "target": "n1"}, {"source": "n0", "target": "n2"}]})


def continued(record: SessionRecord, *, seed: int = 1, messages: int = 2, interactions: int = 1) -> SessionRecord:
    """The session's next revision: the same beginning, some events more."""
    rng = random.Random(f"{record.session_id}:{record.revision}:{seed}")
    more = tuple(message(rng, record.created_at_us, len(record.messages) + i) for i in range(messages))
    acts = tuple(interaction(rng, record.created_at_us, len(record.interactions) + i) for i in range(interactions))
    return replace(
        record,
        messages=record.messages + more,
        interactions=record.interactions + acts,
        revision=record.revision + 1,
        updated_at_us=record.created_at_us + 50_000_000,
        archived_at_us=record.archived_at_us + DAY_US,
    )


def segment_bytes(ref: SegmentRef, records: Iterable[SessionRecord], *, row_group: int = 16) -> bytes:
    """The segment file of some sessions."""
    ordered = sorted(records, key=lambda r: (r.session_uid, r.revision))
    batches = (segments.records_to_batch(ordered[i : i + row_group]) for i in range(0, len(ordered), row_group))
    sink = io.BytesIO()
    segments.write_segment(sink, segments.SegmentHeader(ref.archiver_id, ref.sequence), batches)
    return sink.getvalue()


def put(store: ObjectStore, sequence: int, records: Sequence[SessionRecord], archiver: str = ARCHIVER) -> SegmentRef:
    """Archive sessions as one segment."""
    archive.register_archiver(store, archiver)
    ref = SegmentRef(archiver, sequence)
    assert store.create(ref.key, segment_bytes(ref, records))
    return ref
