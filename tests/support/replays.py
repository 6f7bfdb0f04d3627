"""Sessions to derive from, written as short as they are thought."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from archiver import legacy, segments
from archiver.events import Interaction, Message, SessionRecord
from pipelines.derive import Act, Derived, Rules, Session, Turn, training_rows
from pipelines.derive.acts import acts_of, turns_of
from pipelines.derive.replay import DEFAULT_RULES

QUESTION: Final = "What is 6*7?"
DATA: Final = Path(__file__).parents[3] / "shared" / "data"


def act(
    action: str, node: str | None, *, at: int = 10, content: str | None = None, says: str | None = None, **meta: Any
) -> Act:
    """One interaction at second ``at``; its position is set by :func:`session`."""
    return Act(-1, at * 1_000_000, action, node, content, says, meta)


def says(verdict: str, node: str | None, **meta: Any) -> Act:
    """A verdict."""
    return act("feedback", node, says=verdict, **meta)


def tree(**parents: str | None) -> dict[str, Any]:
    """A dict-of-nodes graph of ``node=parent``; the question is ``q``, every other text is ``text of {node}``."""
    nodes = {n: {"content": f"text of {n}", "parent": p, "children": []} for n, p in parents.items()}
    return {"nodes": {"q": {"content": QUESTION, "parent": None}, **nodes}}


def turns(*texts: str | None) -> list[Turn]:
    """A chat: user, assistant, user, …, one second apart."""
    return [Turn("user" if i % 2 == 0 else "assistant", text, i * 1_000_000) for i, text in enumerate(texts)]


def session(graph: Any = None, acts: Sequence[Act] = (), chat: Sequence[Turn] | None = None, **changes: Any) -> Session:
    """A session about 6*7."""
    spoken = turns(QUESTION, "It is 42.") if chat is None else list(chat)
    values = {"session_uid": "u" * 32, "session_id": "s", "user_id": None, "language": "en", "extra": None} | changes
    return Session(
        graph_state=None if graph is None else json.dumps(graph),
        n_messages=len(spoken),
        turns=spoken,
        acts=[a._replace(position=i) for i, a in enumerate(acts)],
        **values,
    )


def pairs(derived: Derived) -> list[tuple[str, str, str]]:
    """(chosen node, rejected node, kind) of all pairs, in the order of the nodes."""
    rows = [row.values for row in derived.rows if row.set_name == "preferences"]
    return sorted((v["chosen_node"], v["rejected_node"], v["pair_kind"]) for v in rows)


def values(derived: Derived, set_name: str) -> list[dict[str, Any]]:
    """The columns of a set's rows."""
    return [dict(row.values) for row in derived.rows if row.set_name == set_name]


def reasons(derived: Derived, set_name: str) -> list[str]:
    """The reasons for which candidates of a set gave no row."""
    return sorted(reject.reason for reject in derived.rejects if reject.set_name == set_name)


def rows_of(*arguments: Any, rules: Rules = DEFAULT_RULES, **changes: Any) -> Derived:
    """The training rows of :func:`session`."""
    return training_rows(session(*arguments, **changes), rules)


def real_records(name: str) -> Iterator[tuple[SessionRecord, dict[str, Any]]]:
    """Sessions of ../shared/data with their JSON; those that cannot be archived are left out."""
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            data = json.loads(line)
            try:
                yield legacy.parse_record(data), data
            except legacy.RejectedRecordError:
                continue


def as_sessions(records: Sequence[SessionRecord]) -> list[Session]:
    """Archived records as sessions to replay."""
    batch = segments.records_to_batch(records)
    columns = zip(records, turns_of(batch["messages"]), acts_of(batch["interactions"]), strict=True)
    return [
        Session(r.session_uid, r.session_id, r.user_id, r.language, r.graph_state, len(t), t, a, r.extra)
        for r, t, a in columns
    ]


_VERDICTS: Final = ("correct", "correct", "incorrect", "partial")
_LANGUAGES: Final = ("en", "de", "pl", "ar")


def reasoning(n: int, *, user: str | None = None, days: int = 4) -> SessionRecord:
    """Session number ``n``: a question, a tree of two-step answers, and acts of every kind on it."""
    rng = random.Random(n)
    start = (1_790_000_000 + rng.randrange(days) * 86_400) * 1_000_000 // 86_400_000_000 * 86_400_000_000 + n
    question = f"Question {rng.randrange(10**9)}: what is {n} plus {n % 17}?"
    nodes: dict[str, Any] = {"q": {"content": question, "parent": None}}
    for branch in "abc":
        nodes[branch] = {"content": f"Step {branch}: add {n} to {n % 17}.", "parent": "q"}
        nodes[f"{branch}1"] = {"content": f"So {branch} gives {n + n % 17 + ord(branch) - 97}.", "parent": branch}
    acts = [_random_act(rng, start + 10_000_000 + i * 1_000_000, i) for i in range(rng.randrange(2, 9))]
    votes = ("prune", "prune", rng.choice(("prune", "resurrect"))) if n % 4 == 0 else ()
    acts += [
        Interaction(start + 30_000_000 + i, vote, "b", None, None, json.dumps({"annotator": f"p{i}", "over": "a"}))
        for i, vote in enumerate(votes)
    ]
    answer = f"{nodes['a']['content']}\n{nodes['a1']['content']}"
    chat = [Message("user", question, start), Message("assistant", answer, start + 1_000_000)]
    if n % 5 == 0:
        chat.append(Message("user", f"And twice {n}?", start + 2_000_000))
    return SessionRecord(
        session_id=f"s-{n}", created_at_us=start, updated_at_us=None,
        user_id=user if user is not None else rng.choice((None, f"u{n % 97}")),
        language=rng.choice(_LANGUAGES), tz_assumed=False, messages=tuple(chat), interactions=tuple(acts),
        graph_state=json.dumps({"nodes": nodes}) if n % 7 else None,
        metadata=json.dumps(rng.choice(({}, {}, {}, {"consent": "training"}, {"consent": "analytics"}))),
    )  # fmt: skip


def _random_act(rng: random.Random, at_us: int, i: int) -> Interaction:
    metadata = rng.choice(({}, {}, {"actor": "auto:tests"}, {"annotator": f"p{i % 3}"}, {"level": "answer"}))
    node = rng.choice(("a", "a", "b", "c", "a1", "b1", "c1"))
    match rng.randrange(8):
        case 0:
            return Interaction(at_us, "prune", node, None, None, json.dumps({**metadata, "over": rng.choice("abc")}))
        case 1:
            return Interaction(at_us, "resurrect", node, None, None, json.dumps(metadata))
        case 2:
            content = f"Better step {rng.randrange(10**6)}."
            return Interaction(at_us, "inject", f"h{i}", content, None, json.dumps({**metadata, "parent_id": "q"}))
        case 3:
            return Interaction(at_us, "rank", node, None, None, json.dumps({**metadata, "rank": rng.randrange(3)}))
        case _:
            return Interaction(at_us, "feedback", node, None, rng.choice(_VERDICTS), json.dumps(metadata))
