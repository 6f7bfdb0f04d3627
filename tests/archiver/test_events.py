"""Identity, time and canonical content."""

import dataclasses
import hashlib
import json
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from archiver.errors import InputError, InvalidFeedbackError
from archiver.events import (
    FeedbackCounts,
    Interaction,
    Message,
    SessionRecord,
    canonical_json,
    check_id,
    check_text,
    check_verdict,
    content_sha256,
    format_time,
    membership_digest,
    parse_time,
    session_uid,
)

RECORD = SessionRecord(
    session_id="s",
    created_at_us=1,
    updated_at_us=2,
    user_id="u",
    language="en",
    tz_assumed=False,
    messages=(Message("user", "hi", 1, "en"),),
    interactions=(Interaction(2, "prune", "n"),),
)
MICROSECONDS = st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999)


def test_identity_is_the_documented_digest():
    text = "abc\x1f2026-10-03T10:00:00.000000Z"
    us, _ = parse_time("2026-10-03T10:00:00", field="t")
    assert session_uid("abc", us) == hashlib.sha256(text.encode()).hexdigest()[:32]


@given(MICROSECONDS)
def test_times_round_trip_exactly(us):
    assert parse_time(format_time(us), field="t") == (us, False)


def test_a_naive_time_is_read_in_the_given_zone_and_flagged():
    utc, assumed = parse_time("2026-07-01 12:00:00", field="t", assume_tz=ZoneInfo("Europe/Berlin"))
    assert assumed
    assert format_time(utc) == "2026-07-01T10:00:00.000000+00:00"


@pytest.mark.parametrize("value", ["yesterday", 1790000000, None, "", "0001-01-01T00:00:00+14:00"])
def test_other_times_are_refused_by_field(value):
    with pytest.raises(InputError, match="created_at"):
        parse_time(value, field="created_at")


@pytest.mark.parametrize("value", ["../victim", "a/b", "con", ".", "x" * 512, "日本 語"])
def test_ids_are_data(value):
    assert check_id(value, field="session_id") == value


@pytest.mark.parametrize("value", ["", "x" * 513, "a\x00b", "a\nb", "\ud800", 7, None])
def test_what_cannot_be_an_id(value):
    with pytest.raises(InputError, match="session_id"):
        check_id(value, field="session_id")


def test_text_may_hold_anything_utf8_can():
    text = "NUL \x00, U+2028 \u2028, emoji 👩‍👩‍👧, RTL שלום"
    assert check_text(text, field="content") == text
    with pytest.raises(InputError, match=r"U\+DE00 at character 2"):
        check_text("ab\ude00", field="content")


@pytest.mark.parametrize("value", ["Correct", "", None, 1])
def test_only_three_verdicts(value):
    with pytest.raises(InvalidFeedbackError, match="correct, incorrect, partial"):
        check_verdict(value)


@pytest.mark.parametrize("value", [float("nan"), {"a": {1}}, object()])
def test_json_refuses_what_it_cannot_hold(value):
    with pytest.raises(InputError, match="cannot be stored as JSON"):
        canonical_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": "t"}, {"created_at_us": 9}, {"updated_at_us": None}, {"user_id": None}, {"language": "de"},
        {"tz_assumed": True}, {"messages": ()}, {"interactions": ()}, {"graph_state": "{}"}, {"metadata": '{"a":1}'},
        {"extra": "{}"}, {"messages": (Message("user", "hi", 1, None),)},
    ],
)  # fmt: skip
def test_every_part_of_the_content_changes_its_digest(change):
    assert content_sha256(dataclasses.replace(RECORD, **change)) != content_sha256(RECORD)


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXTS, min_size=8, max_size=8), st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_the_digest_is_over_the_documented_bytes(texts, us, tz_assumed):
    one, two, three, four, five, six, seven, eight = texts
    record = SessionRecord(
        session_id=one or "", created_at_us=us, updated_at_us=None, user_id=two, language=three, tz_assumed=tz_assumed,
        messages=(Message(four or "", five, us, six),) * 2, graph_state=seven, extra=eight,
        interactions=(Interaction(us, four or "", five, six, seven, eight or ""),), reported=FeedbackCounts(1, 0, us),
    )  # fmt: skip
    document = [
        one or "", us, None, two, three, tz_assumed, seven, "{}", eight, [1, 0, us],
        [[four or "", five, us, six]] * 2, [[us, four or "", five, six, seven, eight or ""]],
    ]  # fmt: skip
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    assert content_sha256(record) == hashlib.sha256(text.encode()).hexdigest()


def test_every_character_is_written_as_the_digest_has_always_had_it():
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    assert to_json([every]) == canonical_json([every]).encode()


def test_the_place_in_the_archive_is_not_content():
    assert content_sha256(dataclasses.replace(RECORD, revision=4, archived_at_us=99)) == content_sha256(RECORD)


def test_the_digest_of_a_known_record_never_changes():
    assert content_sha256(RECORD) == "03d3452d68ce37be4cb4b5c95c1caa95f45a225fcac99348f45e0bcc862311aa"


def test_membership_depends_on_order_revision_and_content():
    a, b = ("u1", 1, "x"), ("u2", 1, "y")
    digests = {membership_digest(m) for m in ([a, b], [b, a], [("u1", 2, "x"), b], [("u1", 1, "z"), b], [a])}
    assert len(digests) == 5
