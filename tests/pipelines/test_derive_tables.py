from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from archived import session as archived_session
from replays import QUESTION, as_sessions, real_records

from archiver import segments
from archiver.events import Interaction, Message, SessionRecord
from pipelines import schema
from pipelines.compaction.redaction import redacted
from pipelines.compaction.rows import consent
from pipelines.derive import actor_columns, replay, table_rows, training_rows
from pipelines.derive.texts import decode
from pipelines.schema import TABLES


def record(*interactions: Interaction, graph: object = None, **changes: object) -> SessionRecord:
    values = {"user_id": "ann", "language": "en", "tz_assumed": False} | changes
    return SessionRecord(
        session_id="s", created_at_us=0, updated_at_us=None,
        messages=(Message("user", QUESTION, 0), Message("assistant", "42", 1)),
        interactions=interactions, graph_state=None if graph is None else json.dumps(graph), **values,
    )  # type: ignore[arg-type]  # fmt: skip


def verdict(node: str | None, says: str, at: int = 5, **metadata: object) -> Interaction:
    return Interaction(at, "feedback", node, None, says, json.dumps(metadata))


GRAPH = {"nodes": {"q": {"content": QUESTION}, "a": {"content": "42", "parent": "q", "author": "m"}}}


def test_nodes_after_replay() -> None:
    prune, revive = (Interaction(9, action, "a") for action in ("prune", "resurrect"))
    inject = Interaction(8, "inject", "h", "42!", None, '{"parent_id": "a"}')
    rows = table_rows(segments.records_to_batch([record(prune, revive, inject, verdict("a", "partial"), graph=GRAPH)]))
    assert rows.nodes.cast(schema.NODES.schema).schema == schema.NODES.schema
    assert rows.nodes.drop(["session_uid", "session_id", "user_id"]).to_pylist() == [
        {
            "node_id": "a", "parent_ids": ["q"], "depth": 1, "content": "42", "author": "m", "status": "active",
            "injected": False, "n_prune": 1, "n_resurrect": 1, "n_correct": 0, "n_incorrect": 0, "n_partial": 1,
            "label": "partial",
        },
        {
            "node_id": "h", "parent_ids": ["a"], "depth": 2, "content": "42!", "author": "human", "status": "active",
            "injected": True, "n_prune": 0, "n_resurrect": 0, "n_correct": 0, "n_incorrect": 0, "n_partial": 0,
            "label": None,
        },
        {
            "node_id": "q", "parent_ids": [], "depth": 0, "content": QUESTION, "author": None, "status": "active",
            "injected": False, "n_prune": 0, "n_resurrect": 0, "n_correct": 0, "n_incorrect": 0, "n_partial": 0,
            "label": None,
        },
    ]  # fmt: skip
    assert (rows.n_nodes.to_pylist(), rows.graph_format.to_pylist()) == ([3], ["node_dict"])


def test_feedback_in_long_form() -> None:
    acts = [
        verdict("a", "incorrect", 5, actor="human:bob"),
        verdict("a", "correct", 6, actor="human:bob", context={"k": [1]}),
        verdict(None, "correct", 7, actor="auto:x", annotator="eve"),
        verdict("lost", "partial", 8, level="style", actor="robot"),
        Interaction(9, "feedback", "a", None, "superb"),
    ]
    feedback = table_rows(segments.records_to_batch([record(*acts, graph=GRAPH)])).feedback
    assert feedback.cast(schema.FEEDBACK.schema).schema == schema.FEEDBACK.schema
    columns = ["interaction_index", "label", "score", "actor", "annotator", "actor_kind", "level", "is_latest",
               "node_status", "node_known", "context"]  # fmt: skip
    assert [tuple(row.values()) for row in feedback.select(columns).to_pylist()] == [
        (0, "incorrect", 0.0, "human:bob", None, "human", "step", False, "active", True, None),
        (1, "correct", 1.0, "human:bob", None, "human", "step", True, "active", True, '{"k":[1]}'),
        (2, "correct", 1.0, "eve", "eve", "auto", "answer", True, None, False, None),
        (3, "partial", 0.5, "robot", None, "unknown", "style", True, None, False, None),
    ]


@pytest.mark.parametrize(("node", "level"), [("1", "answer"), ("message-0", "answer"), ("9", "step"), (None, "answer")])
def test_level_without_a_graph(node: str | None, level: str) -> None:
    feedback = table_rows(segments.records_to_batch([record(verdict(node, "correct"))])).feedback
    assert feedback["level"].to_pylist() == [level]


def test_the_latest_verdict_is_by_time_not_by_position() -> None:
    acts = [verdict("a", "correct", 9), verdict("a", "incorrect", 5)]
    feedback = table_rows(segments.records_to_batch([record(*acts, graph=GRAPH)])).feedback
    assert feedback["is_latest"].to_pylist() == [True, False]


def test_a_replaced_graph() -> None:
    other = {"nodes": {"q": {"content": QUESTION}, "a": {"content": "43", "parent": "q"}}}
    snapshot = Interaction(6, "graph_snapshot", None, json.dumps(GRAPH))
    acts = [verdict("a", "correct", 5), snapshot, verdict("a", "incorrect", 7), Interaction(8, "prune", "a")]
    rows = table_rows(segments.records_to_batch([record(*acts, graph=other)]))
    assert rows.nodes.filter(pc.field("node_id") == "a").select(["content", "label"]).to_pylist() == [
        {"content": "43", "label": "incorrect"}
    ]
    assert rows.feedback.select(["is_latest", "node_status"]).to_pylist() == [
        {"is_latest": True, "node_status": "active"},
        {"is_latest": True, "node_status": "pruned"},
    ]


def test_rows_are_aligned_with_the_batch_whatever_its_slice() -> None:
    records = [archived_session(n) for n in range(60)]
    batch = segments.records_to_batch(records)
    whole, part = table_rows(batch), table_rows(batch.slice(20, 30))
    assert part.n_nodes == whole.n_nodes[20:50]
    assert part.graph_format == whole.graph_format[20:50]
    wanted = pa.array([r.session_uid for r in records[20:50]])
    for name in ("nodes", "feedback"):
        every, some = (getattr(rows, name).cast(TABLES[name].schema) for rows in (whole, part))
        assert some == every.filter(pc.is_in(every["session_uid"], wanted))
        assert some.num_rows > 0


def test_a_client_id_of_a_message_that_is_not_there() -> None:
    one = record(verdict("x", "correct"), extra='{"messages": {"7": {"id": "x"}}}')
    assert table_rows(segments.records_to_batch([one])).feedback["level"].to_pylist() == ["step"]
    assert not [row for row in training_rows(as_sessions([one])[0]).rows if row.set_name == "unpaired"]


def test_parents_of_a_node_with_several() -> None:
    graph = {"nodes": {"q": {}, "a": {"parent": "q"}, "b": {"parents": ["a", "q"]}, "c": {}}}
    nodes = table_rows(segments.records_to_batch([record(), record(graph=graph), record(graph=GRAPH)])).nodes
    assert nodes["parent_ids"].to_pylist() == [["q"], ["a", "q"], [], [], ["q"], []]


@pytest.mark.parametrize(
    "text", ["{}", " {} ", '{"a": 1}\n', "1" * 30, "-0", '"\\ud83d\\ude00"', '{"a": 1, "a": 2}', "\t7"]
)
def test_decoding_is_that_of_the_json_module(text: str) -> None:
    assert repr(decode(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[1, NaN, {"a": -Infinity}] ', [1, None, {"a": None}]),
        ('{"\\uD83D": "\\udE00 \\ud83d\\ude00 \\\\ud83d"}', {"\ufffd": "\ufffd 😀 \\ud83d"}),
        ('"\\ud83d"\n', "\ufffd"),
    ],
)
def test_what_neither_json_nor_utf_8_can_hold_is_decoded_as_what_they_can(text: str, value: object) -> None:
    assert decode(text) == value


def test_no_text_of_a_segment_that_others_wrote_stops_the_derivation() -> None:
    half, huge = "\\ud83d", "1e999"
    graph = (
        f'{{"nodes": {{"q": {{"content": "{half}", "score": NaN}}, "{half}": {{"parent": "q", "author": "{half}"}}}}}}'
    )
    metadata = f'{{"context": {{"n": {huge}}}, "actor": "{half}", "annotator": "{half}", "level": "{half}"}}'
    acts = [Interaction(i, action, "q", None, "correct", metadata) for i, action in enumerate(["feedback", "inject"])]
    one = replace(record(*acts, metadata=f'{{"consent": "{half}"}}', extra="no JSON"), graph_state=graph)
    batch = segments.records_to_batch([one])
    rows = table_rows(batch)
    columns = ["node_id", "content", "author", "parent_ids", "n_correct"]
    assert [tuple(row.values()) for row in rows.nodes.select(columns).to_pylist()] == [
        ("q", "\ufffd", None, [], 1), ("\ufffd", None, "\ufffd", ["q"], 0),
    ]  # fmt: skip
    assert rows.feedback["context"].to_pylist() == ['{"n":null}', '{"n":null}']
    assert consent(batch.column("metadata")).to_pylist() == ["\ufffd"]
    assert {row.set_name for row in training_rows(as_sessions([one])[0]).rows} == {"sft", "prompts"}


def test_redaction_leaves_half_a_surrogate_pair_escaped() -> None:
    graph = '{"nodes": {"q": {"content": "\\ud83d é", "author": "ann@example.com"}}}'
    clean, found = redacted(segments.records_to_batch([replace(record(), graph_state=graph)]), "salt")
    assert found.to_pylist() == [1]
    assert clean.column("graph_state").to_pylist() == [
        '{"nodes":{"q":{"content":"\\ud83d \\u00e9","author":"<EMAIL_1>"}}}'
    ]
    assert table_rows(clean).nodes["content"].to_pylist() == ["\ufffd é"]


@pytest.mark.parametrize("text", ["", " ", "{} x", "{}{}", "\ufeff{}", "nul", '{"a": 1', "1" * 5000])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)


def test_an_empty_batch() -> None:
    rows = table_rows(segments.records_to_batch([]))
    assert (rows.nodes.num_rows, rows.feedback.num_rows, len(rows.n_nodes)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("metadata", "user", "expected"),
    [
        ("{}", None, ("human", "human")),
        ("{}", "u1", ("human:u1", "human")),
        ('{"actor": "human"}', "u1", ("human", "human")),
        ('{"actor": "auto:tests"}', "u1", ("auto:tests", "auto")),
        ('{"actor": "robot"}', None, ("robot", "unknown")),
        ('{"actor": "agent:x", "annotator": "eve"}', None, ("eve", "agent")),
        ('{"annotator": 7}', None, ("7", "human")),
        ("[]", None, ("human", "human")),
        ("no json", None, ("human", "human")),
        (None, None, ("human", "human")),
    ],
)
def test_who_acted(metadata: str | None, user: str | None, expected: tuple[str, str]) -> None:
    actor, kind = actor_columns(pa.array([metadata], pa.string()), pa.array([user], pa.string()))
    assert (actor.to_pylist()[0], kind.to_pylist()[0]) == expected


@pytest.mark.realdata
def test_tables_and_training_rows_agree() -> None:
    records, _ = zip(*real_records("sessions"), strict=True)
    some = [r for r in records if r.graph_state][::7]
    rows = table_rows(segments.records_to_batch(some))
    nodes = {(r["session_uid"], r["node_id"]): r for r in rows.nodes.to_pylist()}
    for one in as_sessions(some):
        for row in training_rows(one).rows:
            values = row.values
            if row.set_name == "preferences":
                chosen, rejected = (nodes[one.session_uid, values[name]] for name in ("chosen_node", "rejected_node"))
                assert chosen["status"] == "active"
                assert chosen["parent_ids"][0] == rejected["parent_ids"][0]
            if row.set_name == "unpaired":
                assert nodes[one.session_uid, values["node_id"]]["label"] == (
                    "correct" if values["label"] else "incorrect"
                )
            for step, label in zip(values.get("node_refs", ()), values.get("labels", ()), strict=True):
                node = nodes[one.session_uid, step]
                assert label == (node["label"] == "correct" or (node["label"] is None and node["injected"]))
    assert rows.feedback.num_rows == sum(len(replay(one).events) for one in as_sessions(some))
