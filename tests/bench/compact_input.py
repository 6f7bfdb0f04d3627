"""Segments of generated chat sessions for the compaction benchmark: seeded, in six languages, with late revisions.

    python tests/bench/compact_input.py DIRECTORY --sessions 200000

200,000 sessions are 1.5 GB as JSON: 100 segments over 30 days, 3 % of the records later revisions up to
six days old, 0.5 % delivered twice.
"""

from __future__ import annotations

import argparse
import io
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from archiver import archive, segments
from archiver.archive import SegmentRef
from archiver.events import FeedbackCounts, Interaction, Message, SessionRecord
from archiver.objects import DirectoryStore

ARCHIVER = "c" * 32
START_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
PER_DAY = 6_667
SEGMENT_SESSIONS = 2_000
LANGUAGES = ("en", "es", "de", "pl", "ja", "ru")
SHARES = (0.5, 0.15, 0.12, 0.08, 0.08, 0.07)
ALPHABETS = {
    "en": "etaoinshrdlucmfwypvbgkjqxz", "es": "eaosrnidlctumpbgvyqhfzjñáéíó", "de": "enisratdhulcgmobwfkzpvüäößjyxq",
    "pl": "aioeznrwstcykdpmujlłbgęhąóżśćfńź",
    "ja": "のにはをたがでてとしれさいるもなっこうかあめ一人日大年国本中生学行時分",
    "ru": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъ",
}  # fmt: skip
ENDS = (" ", ". ", ", ", ".\n", ' "x" ', "\n```py\nf(1)\n```\n")
END_SHARES = (0.88, 0.08, 0.025, 0.007, 0.004, 0.004)
ACTIONS = ("feedback", "view", "prune", "inject", "resurrect", "edit")
ACTION_SHARES = (0.5, 0.15, 0.12, 0.1, 0.05, 0.08)
VERDICTS = ("correct", "incorrect", "partial")
VERDICT_SHARES = (0.6, 0.25, 0.15)


@cache
def corpus(language: str, seed: int, words: int = 600_000) -> tuple[str, list[int]]:
    """Text of words with natural frequencies, and where each word starts."""
    rng = np.random.default_rng([seed, LANGUAGES.index(language), 99])
    letters = np.array(list(ALPHABETS[language]))
    odds = 1 / (np.arange(len(letters)) + 2.5)
    lengths = np.clip(rng.poisson(2.2 if language == "ja" else 4.5, 20_000), 1, 14)
    vocabulary = ["".join(rng.choice(letters, n, p=odds / odds.sum())) for n in lengths]
    zipf = 1 / (np.arange(20_000) + 3.0) ** 1.02
    chosen = rng.choice(20_000, words, p=zipf / zipf.sum())
    ends = rng.choice(
        [" ", ". ", ", ", ".\n", ' "x" ', "\n```py\nf(1)\n```\n"], words, p=[0.88, 0.08, 0.025, 0.007, 0.004, 0.004]
    )
    pieces = [vocabulary[word] + end for word, end in zip(chosen, ends, strict=True)]
    return "".join(pieces), np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).tolist()


def session(number: int, seed: int) -> SessionRecord:
    """Session ``number``: about 12 messages of 46 words, 4 interactions, a graph of 8 nodes."""
    rng = np.random.default_rng([seed, number])
    created = START_US + int(number / PER_DAY * DAY_US) + int(rng.integers(0, 10**6))
    language = LANGUAGES[rng.choice(6, p=SHARES)]
    text, at = corpus(language, seed)

    def words(count: int) -> str:
        start = int(rng.integers(0, len(at) - 1_000))
        return text[at[start] : at[start + count]]

    n_messages = int(min(2 * rng.geometric(1 / 6.0), 80))
    times = created + np.cumsum(rng.integers(2 * 10**6, 90 * 10**6, n_messages))
    counts = np.clip(rng.lognormal(3.55, 0.75, n_messages), 2, 800).astype(int)
    messages = tuple(
        Message("assistant" if i % 2 else "user", words(int(n)), int(t), language)
        for i, (n, t) in enumerate(zip(counts, times, strict=True))
    )
    nodes = [f"n_{x:06x}" for x in rng.integers(0, 1 << 24, int(rng.poisson(7)) + 1)]
    graph = {
        "root": nodes[0],
        "nodes": {
            node: {"text": words(14), "score": round(float(rng.random()), 4), "parent": nodes[max(0, i - 1 - i % 3)]}
            for i, node in enumerate(nodes)
        },
    }
    acts = []
    for i in range(int(rng.poisson(4))):
        action = ACTIONS[rng.choice(6, p=ACTION_SHARES)]
        verdict = VERDICTS[rng.choice(3, p=VERDICT_SHARES)] if action == "feedback" else None
        metadata = {
            "context": words(8),
            "latency_ms": int(rng.integers(4_000)),
            f"exp_{rng.integers(50)}": {"arm": i % 4},
        }
        content = words(12) if action in ("inject", "edit") else None
        when = int(times[0]) + i * 9_000_000
        node = nodes[int(rng.integers(len(nodes)))]
        acts.append(Interaction(when, action, node, content, verdict, json.dumps(metadata, ensure_ascii=False)))
    return SessionRecord(
        session_id=f"{(number * 2654435761) % 2**48:012x}",
        created_at_us=created,
        updated_at_us=int(times[-1]),
        user_id=f"u{(number * 40503) % 50021:06d}",
        language=language,
        tz_assumed=False,
        messages=messages,
        interactions=tuple(acts),
        graph_state=json.dumps(graph, ensure_ascii=False),
        metadata=json.dumps({"app": "web", "build": number % 40}),
        reported=FeedbackCounts(*(sum(a.feedback == v for a in acts) for v in VERDICTS)),
        archived_at_us=created + DAY_US,
    )


def revised(record: SessionRecord) -> SessionRecord:
    """The next revision: two messages and one interaction more."""
    last = record.messages[-1]
    more = tuple(last._replace(created_at_us=last.created_at_us + i * 1_000_000) for i in (1, 2))
    act = Interaction(last.created_at_us, "view", metadata="{}")
    return replace(record, messages=record.messages + more, interactions=(*record.interactions, act), revision=2)


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """One segment to write."""

    root: Path
    index: int
    sessions: int
    seed: int
    late: float


def write(job: SegmentJob) -> int:
    """Write one segment; returns the JSON size of its records."""
    low = job.index * SEGMENT_SESSIONS
    high = min(low + SEGMENT_SESSIONS, job.sessions)
    records = [session(n, job.seed) for n in range(low, high)]
    rng = np.random.default_rng([job.seed, job.index, 5])
    since = max(0, low - 6 * PER_DAY)
    if job.index and job.late:
        late = np.unique(rng.integers(since, low, int(job.late * SEGMENT_SESSIONS)))
        again = np.unique(rng.integers(since, low, int(job.late / 6 * SEGMENT_SESSIONS)))
        records += [revised(session(int(n), job.seed)) for n in late]
        records += [session(int(n), job.seed) for n in np.setdiff1d(again, late)]
    records.sort(key=lambda r: (r.session_uid, r.revision))
    ref = SegmentRef(ARCHIVER, job.index + 1)
    sink = io.BytesIO()
    step = segments.ROW_GROUP_SESSIONS
    batches = (segments.records_to_batch(records[i : i + step]) for i in range(0, len(records), step))
    segments.write_segment(sink, segments.SegmentHeader(ref.archiver_id, ref.sequence), batches)
    DirectoryStore(job.root).create(ref.key, sink.getvalue())
    return sum(_json_bytes(record) for record in records)


def _json_bytes(record: SessionRecord) -> int:
    value = [
        record.session_id,
        record.user_id,
        record.messages,
        record.interactions,
        record.graph_state,
        record.metadata,
    ]
    return len(json.dumps(value, ensure_ascii=False).encode())


def generate(root: Path, sessions: int, *, seed: int = 7, late: float = 0.03, processes: int = 2) -> dict[str, int]:
    """Write all segments below ``root``, once; returns what they hold."""
    facts = root / "input.json"
    if facts.exists():
        return dict(json.loads(facts.read_text()))
    archive.register_archiver(DirectoryStore(root), ARCHIVER)
    jobs = [SegmentJob(root, i, sessions, seed, late) for i in range(-(-sessions // SEGMENT_SESSIONS))]
    with ProcessPoolExecutor(processes) as pool:
        found = {"sessions": sessions, "segments": len(jobs), "json_bytes": sum(pool.map(write, jobs))}
    facts.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--sessions", type=int, default=200_000)
    parser.add_argument("--late", type=float, default=0.03)
    options = parser.parse_args()
    print(generate(options.directory, options.sessions, late=options.late))
