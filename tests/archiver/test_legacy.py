"""The JSON forms of the single-file session manager, read without loss."""

import json

import pytest

from archiver.events import FeedbackCounts, Interaction, Message
from archiver.legacy import RejectedRecordError, is_archive_form, parse_json, parse_record

LIVE = {
    "session_id": "s-1",
    "created_at": "2026-10-03T10:00:00",
    "updated_at": "2026-10-03T10:01:00+02:00",
    "language": "de",
    "chat_history": [
        {"role": "user", "content": "Was?", "timestamp": "2026-10-03T10:00:01", "language": "de", "id": "m-7"},
        {"role": "tool", "content": None},
    ],
    "interactions": [
        {"timestamp": "2026-10-03T10:00:02", "action_type": "feedback", "node_id": 7, "feedback": "correct",
         "content": None, "metadata": {"actor": "human"}},
    ],
    "graph_state": {"nodes": {"q": {"content": "Was?"}}},
    "metadata": {"user_id": "u1"},
    "feedback_summary": {"correct": 1, "incorrect": 0, "partial": 0},
    "colour": "blue",
}  # fmt: skip
CREATED_US = 1_791_021_600_000_000


def rule_of(**changes):
    with pytest.raises(RejectedRecordError) as caught:
        parse_record({**LIVE, **changes})
    return caught.value.rule


def test_the_live_form_is_read_without_loss():
    record = parse_record(LIVE)
    assert (record.session_id, record.created_at_us, record.user_id) == ("s-1", CREATED_US, "u1")
    assert record.updated_at_us == CREATED_US - 2 * 3600 * 1_000_000 + 60_000_000
    assert record.tz_assumed
    assert record.messages == (
        Message("user", "Was?", CREATED_US + 1_000_000, "de"),
        Message("tool", None, CREATED_US, None),
    )
    assert record.interactions == (
        Interaction(CREATED_US + 2_000_000, "feedback", "7", None, "correct", '{"actor":"human"}'),
    )
    assert record.reported == FeedbackCounts(1, 0, 0)
    assert json.loads(record.extra) == {"colour": "blue", "messages": {"0": {"id": "m-7"}}}
    assert json.loads(record.graph_state) == LIVE["graph_state"]


def test_aware_times_are_not_flagged():
    aware = {"session_id": "s", "created_at": "2026-10-03T10:00:00Z"}
    assert not parse_record(aware).tz_assumed


def test_the_archive_form_is_recognised():
    archived = {k: v for k, v in LIVE.items() if k not in ("updated_at", "metadata")}
    assert is_archive_form(archived)
    assert parse_record(archived).updated_at_us is None
    assert not is_archive_form(LIVE)


def test_odd_reported_counts_are_kept_word_for_word():
    record = parse_record({**LIVE, "feedback_summary": {"correct": 1, "helpful": 2}})
    assert record.reported is None
    assert json.loads(record.extra)["feedback_summary"] == {"correct": 1, "helpful": 2}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"session_id": ""}, "bad_session_id"),
        ({"session_id": "x" * 10_000}, "bad_session_id"),
        ({"session_id": 7}, "bad_session_id"),
        ({"session_id": "a\ud800"}, "bad_session_id"),
        ({"created_at": None}, "bad_created_at"),
        ({"created_at": "yesterday"}, "bad_created_at"),
        ({"created_at": 1790000000}, "bad_created_at"),
        ({"updated_at": "later"}, "bad_updated_at"),
        ({"chat_history": {"role": "user"}}, "bad_message"),
        ({"chat_history": ["hello"]}, "bad_message"),
        ({"chat_history": [{"content": "no role"}]}, "bad_message"),
        ({"chat_history": [{"role": "user", "content": ["a"]}]}, "bad_message"),
        ({"chat_history": [{"role": "user", "content": "\ud83d"}]}, "lone_surrogate"),
        ({"chat_history": [{"role": "user", "content": "x", "timestamp": "?"}]}, "bad_timestamp"),
        ({"interactions": [{"action_type": "prune", "metadata": "x"}]}, "bad_interaction"),
        ({"messages": []}, "reserved_field"),
        ({"metadata": "text"}, "bad_metadata"),
        ({"metadata": {"user_id": ["u"]}}, "bad_user_id"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(changes, rule):
    assert rule_of(**changes) == rule


@pytest.mark.parametrize("text", ["{", '{"a": NaN}', "[" * 100_000])
def test_text_that_is_not_json_is_refused(text):
    with pytest.raises(RejectedRecordError) as caught:
        parse_json(text)
    assert caught.value.rule == "not_json"


def test_a_list_is_no_session():
    with pytest.raises(RejectedRecordError, match="expected a JSON object, got list"):
        parse_record([])
