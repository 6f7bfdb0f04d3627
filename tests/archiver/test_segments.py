"""Segment format v1: lossless, deterministic, checked."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archived import START_US, session

from archiver import segments
from archiver.errors import CorruptDataError
from archiver.events import Message, SessionRecord, content_sha256, membership_digest
from archiver.segments import SegmentHeader

HEADER = SegmentHeader("c" * 32, 7)
SAMPLE = Path(__file__).parents[1] / "data" / "segment-v1.parquet"


def sessions(count: int) -> list[SessionRecord]:
    return sorted((session(n) for n in range(count)), key=lambda r: r.session_uid)


def written(records: list[SessionRecord]) -> tuple[bytes, segments.SegmentSummary]:
    sink = io.BytesIO()
    groups = segments.row_groups(records)
    summary = segments.write_segment(sink, HEADER, map(segments.records_to_batch, groups))
    return sink.getvalue(), summary


def segment_of(records: list[SessionRecord]) -> bytes:
    return written(records)[0]


def read(data: bytes) -> list[SessionRecord]:
    file = segments.open_segment(io.BytesIO(data), key="k")
    return [r for batch in segments.read_batches(file, key="k") for r in segments.batch_to_records(batch)]


def test_every_field_of_every_session_comes_back() -> None:
    records = sessions(300)
    records.append(replace(records[-1], session_id="z" * 512, messages=(), interactions=(), metadata='{"a" :  1}'))
    records.sort(key=lambda r: r.session_uid)
    assert read(segment_of(records)) == records


def test_summary_tells_what_was_written() -> None:
    records = sessions(300)
    _, summary = written(records)
    assert summary.membership_digest == membership_digest(
        (r.session_uid, r.revision, content_sha256(r)) for r in records
    )
    assert (summary.n_sessions, summary.n_messages) == (300, sum(len(r.messages) for r in records))
    assert summary.n_interactions == sum(len(r.interactions) for r in records)
    assert summary.min_created_at_us == min(r.created_at_us for r in records)
    assert summary.max_created_at_us == max(r.created_at_us for r in records)
    assert summary.row_groups == tuple(records[i].session_uid for i in (0, 128, 256))


def test_file_metadata_repeats_the_summary() -> None:
    data, summary = segment_of(sessions(10)), written(sessions(10))[1]
    stated = segments.segment_metadata(segments.open_segment(io.BytesIO(data), key="k"), key="k")
    assert stated["segment_id"] == f"{'c' * 32}/000000000007"
    assert stated["membership_digest"] == summary.membership_digest
    assert (stated["n_sessions"], stated["format_version"]) == ("10", "1")


def test_bytes_depend_on_nothing_but_the_sessions() -> None:
    program = (
        "import hashlib, sys; sys.path.insert(0, 'tests/archiver'); import test_segments as t;"
        "print(hashlib.sha256(t.segment_of(t.sessions(200))).hexdigest())"
    )
    root = Path(__file__).parents[2]
    found = {hashlib.sha256(segment_of(sessions(200))).hexdigest()}
    for seed in ("1", "77"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests/support'}",
        }
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout.strip())
    assert len(found) == 1


def test_row_groups_end_at_128_sessions_or_at_8_mib_of_text() -> None:
    small = [session(n, n_messages=0) for n in range(300)]
    assert [len(group) for group in segments.row_groups(small)] == [128, 128, 44]
    large = [replace(s, messages=(Message("user", "x" * 3 * 1024**2, START_US),)) for s in small[:7]]
    assert [len(group) for group in segments.row_groups(large)] == [3, 3, 1]


def test_footer_finds_the_row_group_of_a_session() -> None:
    records = sessions(300)
    file = segments.open_segment(io.BytesIO(segment_of(records)), key="k")
    for i in (0, 127, 128, 299):
        assert segments.row_group_of(file, records[i].session_uid) == i // 128
    assert segments.row_group_of(file, "g" * 32) is None


def test_footer_holds_no_text_of_users() -> None:
    secret = "my-own-words"
    record = replace(session(1), messages=(Message("user", secret, START_US),), metadata=f'{{"note":"{secret}"}}')
    metadata = pq.ParquetFile(io.BytesIO(segment_of([record]))).metadata
    group = metadata.row_group(0)
    with_statistics = {group.column(i).path_in_schema for i in range(group.num_columns) if group.column(i).is_stats_set}
    assert with_statistics == {
        "session_uid", "session_id", "user_id", "created_at", "updated_at", "archived_at", "revision",
    }  # fmt: skip
    footer = segment_of([record])[-8 - metadata.serialized_size :]
    assert secret.encode() not in footer


def test_flipped_bit_in_a_page_is_noticed_and_named() -> None:
    data = segment_of(sessions(200))
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    for i in range(group.num_columns):
        column = group.column(i)
        middle = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        damaged = bytearray(data)
        damaged[middle] ^= 0x10
        file = segments.open_segment(io.BytesIO(bytes(damaged)), key="the-key")
        with pytest.raises(CorruptDataError, match="the-key"):
            list(segments.read_batches(file, key="the-key"))


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_truncated_file_is_noticed_and_named(keep: int) -> None:
    data = segment_of(sessions(20))
    with pytest.raises(CorruptDataError, match="the-key"):
        segments.open_segment(io.BytesIO(data[:keep]), key="the-key")


def test_other_parquet_file_is_refused() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(CorruptDataError, match="not a segment of format 1"):
        segments.open_segment(io.BytesIO(sink.getvalue()), key="k")


def test_void_segment_has_no_rows_and_says_why() -> None:
    file = segments.open_segment(io.BytesIO(segments.void_segment(HEADER, reason="lost spool")), key="k")
    assert file.metadata.num_rows == 0
    assert segments.segment_metadata(file, key="k")["void"] == "lost spool"
    assert list(segments.read_batches(file, key="k")) == []


def test_sample_of_format_1_is_read_as_ever() -> None:
    file = segments.open_segment(SAMPLE, key=SAMPLE.name)
    records = [r for batch in segments.read_batches(file, key="k") for r in segments.batch_to_records(batch)]
    assert segments.segment_metadata(file, key="k")["membership_digest"] == (
        "902c1f7f9012cdd233b31f4a012b4d1f51e8c2995f3110c923b9675f1e36d543"
    )
    assert [r.session_id for r in records] == ["s5", "s0", "s4", "s3", "s1", "s2"]
    members = ((r.session_uid, r.revision, content_sha256(r)) for r in records)
    assert membership_digest(members) == segments.segment_metadata(file, key="k")["membership_digest"]
