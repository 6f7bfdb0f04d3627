"""The tables hold every archived session exactly once, however its segments arrive."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pytest
import reference
from archived import ARCHIVER, DAY_US, OTHER_ARCHIVER, START_US, continued, put, session
from faultproxy import Fault, FaultProxy
from s3_servers import S3Server

from archiver import archive, legacy
from archiver.archive import SegmentRef, Tombstone
from archiver.errors import InputError
from archiver.events import Interaction
from archiver.objects import DirectoryStore, ObjectStore, open_store
from archiver.settings import Settings
from pipelines import compaction, lake
from pipelines.compaction import CompactReport
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000


def compact(store: ObjectStore, **tables: Any) -> CompactReport:
    return compaction.compact(store, Settings(runner={"workers": 1}, tables=tables), now_us=NOW_US)


def assert_exact(store: ObjectStore) -> None:
    """The tables, read through Delta, are the reference's; a glob over messages and interactions is, too."""
    expected, found = reference.tables(store), reference.stored(store)
    for table in TABLES:
        assert found[table] == expected[table], table
    for table in ("messages", "interactions"):
        path = lake.local_path(store, f"tables/{table}/data")
        if path is not None and expected[table]:
            rows = pads.dataset(path, partitioning="hive").to_table().to_pylist()
            assert len(rows) == len(expected[table])


def test_every_table_equals_the_reference(any_store: ObjectStore) -> None:
    sessions = [session(n) for n in range(80)]
    put(any_store, 1, sessions[:50])
    put(any_store, 2, sessions[50:])
    report = compact(any_store)
    assert report.rows_added["sessions"] == 80
    assert report.segments == 2
    assert not report.incomplete
    assert_exact(any_store)


def test_running_again_adds_nothing(directory_store: DirectoryStore) -> None:
    put(directory_store, 1, [session(n) for n in range(10)])
    compact(directory_store)
    before = lake.current(directory_store)
    report = compact(directory_store)
    assert report.runs == ()
    assert sum(report.rows_added.values()) == 0
    assert lake.current(directory_store) == before


def test_nothing_archived_yet(directory_store: DirectoryStore) -> None:
    report = compact(directory_store)
    assert (report.runs, report.lake_version) == ((), 0)
    assert lake.scan(directory_store, "messages").num_rows == 0


def test_a_higher_revision_adds_only_its_tail(directory_store: DirectoryStore) -> None:
    first = [session(n, n_messages=4) for n in range(20)]
    put(directory_store, 1, first)
    compact(directory_store)
    message_files = lake.data_files(directory_store, "messages", None)
    put(directory_store, 2, [continued(r) for r in first[:5]])
    report = compact(directory_store)
    assert report.rows_added["messages"] == 10
    assert report.rows_added["sessions"] == 0
    assert set(message_files) <= set(lake.data_files(directory_store, "messages", None))
    assert_exact(directory_store)


def test_small_tasks_and_many_runs_give_the_same_tables(directory_store: DirectoryStore) -> None:
    records = [session(n, n_messages=40) for n in range(120)]
    for i in range(6):
        put(directory_store, i + 1, records[i * 20 : (i + 1) * 20])
    report = compact(directory_store, max_segments_per_run=2)
    assert report.runs == (1, 2, 3)
    assert_exact(directory_store)


def test_equal_revision_with_other_content_is_reported_and_left_out(directory_store: DirectoryStore) -> None:
    record = session(1)
    put(directory_store, 1, [record, session(2)])
    compact(directory_store)
    put(directory_store, 2, [replace(record, language="xx")])
    report = compact(directory_store)
    assert [r.rule for r in report.rejects] == ["revision_conflict"]
    assert report.incomplete
    assert record.session_uid in report.problems[0]
    assert_exact(directory_store)


def test_two_new_records_that_conflict(directory_store: DirectoryStore) -> None:
    record = session(1)
    put(directory_store, 1, [record])
    put(directory_store, 1, [replace(record, language="xx")], OTHER_ARCHIVER)
    report = compact(directory_store)
    assert [r.rule for r in report.rejects] == ["revision_conflict"]
    assert lake.scan(directory_store, "sessions")["language"].to_pylist() == [record.language]


def test_a_revision_that_rewrites_the_past_is_reported_and_left_out(directory_store: DirectoryStore) -> None:
    record = session(1, n_messages=4)
    put(directory_store, 1, [record])
    compact(directory_store)
    changed = (record.messages[0]._replace(content="rewritten"), *record.messages[1:])
    put(directory_store, 2, [replace(continued(record), messages=changed)])
    before = reference.stored(directory_store)
    report = compact(directory_store)
    assert [r.rule for r in report.rejects] == ["prefix_conflict"]
    assert reference.stored(directory_store) == before


def test_a_shorter_revision_is_reported_and_left_out(directory_store: DirectoryStore) -> None:
    record = session(1, n_messages=4)
    put(directory_store, 1, [record])
    compact(directory_store)
    put(directory_store, 2, [replace(record, messages=record.messages[:2], revision=2)])
    assert [r.rule for r in compact(directory_store).rejects] == ["prefix_conflict"]
    assert lake.scan(directory_store, "sessions")["revision"].to_pylist() == [1]


def test_the_split_of_the_first_revision_is_kept(directory_store: DirectoryStore) -> None:
    record = session(3, user_id=None)
    users = (f"u{i}" for i in range(1000))
    user = next(u for u in users if _split(u) != _split(record.session_uid))
    put(directory_store, 1, [record])
    compact(directory_store)
    put(directory_store, 2, [replace(continued(record), user_id=user)])
    compact(directory_store)
    found = lake.scan(directory_store, "sessions").to_pylist()
    assert [(r["user_id"], r["split"]) for r in found] == [(user, _split(record.session_uid))]


def _split(subject: str) -> str:
    from pipelines import splits

    return splits.split_of(subject, subject, "v1")


def test_withheld_consent_keeps_a_session_out_of_every_table(directory_store: DirectoryStore) -> None:
    records = [session(n, metadata='{"consent": "none"}' if n % 2 else "{}") for n in range(10)]
    put(directory_store, 1, records)
    assert compact(directory_store).sessions_excluded == 5
    assert_exact(directory_store)


def test_consent_withdrawn_later_takes_the_session_out_of_every_table(directory_store: DirectoryStore) -> None:
    records = [session(n, n_messages=3) for n in range(10)]
    put(directory_store, 1, records)
    compact(directory_store)
    put(directory_store, 2, [replace(continued(records[0]), metadata='{"consent": "none"}')])
    compact(directory_store)
    for table, rows in reference.tables(directory_store).items():
        assert reference.stored(directory_store)[table] == rows, table
    assert records[0].session_uid not in lake.scan(directory_store, "messages")["session_uid"].to_pylist()


def test_an_erased_session_that_is_still_archived_stays_out(directory_store: DirectoryStore) -> None:
    records = [session(n) for n in range(10)]
    put(directory_store, 1, records)
    archive.put_tombstone(directory_store, Tombstone.of("session", records[0].session_uid, NOW_US))
    assert compact(directory_store).sessions_excluded == 1
    assert records[0].session_uid not in lake.scan(directory_store, "sessions")["session_uid"].to_pylist()


def test_a_gap_stops_its_archiver_until_it_is_filled(directory_store: DirectoryStore) -> None:
    put(directory_store, 1, [session(1)])
    put(directory_store, 3, [session(3)])
    put(directory_store, 1, [session(4)], OTHER_ARCHIVER)
    report = compact(directory_store)
    assert report.incomplete
    assert [(g.reason, g.ref) for g in report.gaps] == [("missing", SegmentRef(ARCHIVER, 2))]
    assert lake.current(directory_store).watermarks == {ARCHIVER: 1, OTHER_ARCHIVER: 1}
    put(directory_store, 2, [session(2)])
    assert not compact(directory_store).incomplete
    assert_exact(directory_store)


def test_a_gap_that_a_person_accepted_is_passed(directory_store: DirectoryStore) -> None:
    put(directory_store, 1, [session(1)])
    put(directory_store, 3, [session(3)])
    compaction.accept_gap(directory_store, ARCHIVER, 2, reason="disk lost", now_us=NOW_US)
    assert not compact(directory_store).incomplete
    assert_exact(directory_store)


def test_an_existing_segment_cannot_be_declared_lost(directory_store: DirectoryStore) -> None:
    put(directory_store, 1, [session(1)])
    with pytest.raises(InputError, match="exists"):
        compaction.accept_gap(directory_store, ARCHIVER, 1, reason="", now_us=NOW_US)


@pytest.mark.parametrize("where", ["footer", "text"])
def test_a_damaged_segment_stops_only_its_archiver(directory_store: DirectoryStore, where: str) -> None:
    put(directory_store, 1, [session(1)])
    bad = put(directory_store, 2, [session(n, n_messages=30) for n in range(100, 130)])
    put(directory_store, 3, [session(3)])
    others = [put(directory_store, i, [session(10 + i)], OTHER_ARCHIVER) for i in (1, 2)]
    _damage(directory_store, bad, where)
    report = compact(directory_store)
    assert [(g.reason, g.ref) for g in report.gaps] == [("damaged", bad)]
    assert bad.key in report.problems[0]
    assert lake.current(directory_store).watermarks == {ARCHIVER: 1, OTHER_ARCHIVER: 2}
    expected = reference.tables(directory_store, refs=[SegmentRef(ARCHIVER, 1), *others])
    assert reference.stored(directory_store) == expected


def _damage(store: DirectoryStore, ref: SegmentRef, where: str) -> None:
    path = lake.local_path(store, ref.key)
    assert path is not None
    data = bytearray(path.read_bytes())
    if where == "footer":
        del data[-20:]
    else:  # a page of message texts: keys stay readable, so only the map task can notice
        import pyarrow.parquet as pq

        group = pq.ParquetFile(path).metadata.row_group(0)
        column = next(group.column(i) for i in range(group.num_columns) if "content" in group.column(i).path_in_schema)
        data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)


def test_earlier_versions_stay_readable(directory_store: DirectoryStore) -> None:
    records = [session(n, n_messages=3) for n in range(10)]
    put(directory_store, 1, records)
    first = compact(directory_store).lake_version
    expected = reference.stored(directory_store)
    put(directory_store, 2, [continued(r) for r in records] + [session(99)])
    compact(directory_store)
    assert reference.stored(directory_store, lake.at_version(directory_store, first)) == expected


def test_files_lie_under_data_by_date_and_the_log_holds_no_text(
    directory_store: DirectoryStore, tmp_path: Path
) -> None:
    secret = "very-secret-words"
    record = session(1, n_messages=2)
    put(directory_store, 1, [replace(record, messages=tuple(m._replace(content=secret) for m in record.messages))])
    compact(directory_store)
    for table in TABLES:
        for file in lake.data_files(directory_store, table, None):
            assert file.path.startswith(f"data/dt={file.dt}/part-")
    logs = list((tmp_path / "lake" / "tables").rglob("_delta_log/*.json"))
    assert logs
    assert not any(secret in path.read_text() for path in logs)


def test_rows_of_a_file_are_sorted_and_columns_have_the_declared_types(directory_store: DirectoryStore) -> None:
    put(directory_store, 1, [session(n) for n in range(60)])
    put(directory_store, 2, [session(n) for n in range(60, 120)])
    compact(directory_store)
    import pyarrow.parquet as pq

    for table, dataset in TABLES.items():
        for file in lake.data_files(directory_store, table, None):
            path = lake.local_path(directory_store, file.key)
            found = pq.ParquetFile(path).read()
            assert found.schema.names == dataset.schema.names
            assert [f.type for f in found.schema] == [f.type for f in dataset.schema]
            keys = found.select(list(dataset.sort_keys)).to_pylist()
            assert keys == sorted(keys, key=lambda row: tuple(row.values()))


def test_redaction_takes_personal_data_out_of_every_table(directory_store: DirectoryStore) -> None:
    mail = "jane.doe@example.org"
    record = session(1, n_messages=2, user_id=mail)
    messages = tuple(m._replace(content=f"write to {mail}") for m in record.messages)
    act = Interaction(record.created_at_us, "feedback", mail, mail, "correct", json.dumps({"context": mail}))
    graph = json.dumps({"nodes": [{"id": mail, "content": mail}], "edges": []})
    record = replace(record, session_id=mail, messages=messages, interactions=(act,), graph_state=graph)
    record = replace(record, metadata=json.dumps({"mail": mail}))
    put(directory_store, 1, [record])
    compact(directory_store, redact=True)
    put(directory_store, 2, [continued(record)])
    assert not compact(directory_store, redact=True).incomplete
    for table in TABLES:
        rows = lake.scan(directory_store, table).to_pylist()
        assert rows
        assert mail not in str(rows), table
    found = lake.scan(directory_store, "sessions").to_pylist()[0]
    assert found["redaction_count"] >= 8
    assert found["session_uid"] == record.session_uid
    assert lake.scan(directory_store, "feedback")["node_known"].to_pylist()[0]


@pytest.mark.realdata
@pytest.mark.slow
def test_every_table_equals_the_reference_on_real_sessions(directory_store: DirectoryStore) -> None:
    path = Path(__file__).parents[3] / "shared/data/sessions.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [legacy.parse_record(legacy.parse_json(line)) for line in lines]
    for i in range(0, len(records), 1000):
        put(directory_store, i // 1000 + 1, records[i : i + 1000])
    assert compact(directory_store).rows_added["sessions"] == len(records)
    assert_exact(directory_store)


@pytest.mark.slow
def test_dask_and_two_processes_give_the_same_tables(directory_store: DirectoryStore) -> None:
    pytest.importorskip("distributed")
    for i in range(3):
        put(directory_store, i + 1, [session(n, n_messages=30) for n in range(i * 20, i * 20 + 20)])
    tables = {"memory_limit": "64 MiB"}
    compaction.compact(directory_store, Settings(runner={"kind": "dask", "workers": 2}, tables=tables), now_us=NOW_US)
    put(directory_store, 4, [continued(session(n, n_messages=30)) for n in range(50)])
    compaction.compact(directory_store, Settings(runner={"workers": 2}, tables=tables), now_us=NOW_US)
    assert_exact(directory_store)


@pytest.mark.slow
def test_requests_of_a_run_grow_with_what_is_new_only(proxied: tuple[S3Server, FaultProxy]) -> None:
    """Ours and delta-rs's, counted on the wire: the archive and its days ten times as many, the new work the same."""
    server, proxy = proxied
    counts = []
    for segments in (3, 30):
        store = open_store(server.settings(endpoint_url=proxy.url))
        for i in range(segments):
            put(store, i + 1, [session(10 * i + n, created_at_us=START_US + i * DAY_US + n) for n in range(4)])
        compact(store)
        put(store, segments + 1, [session(1000, days=1), continued(session(0, created_at_us=START_US))])
        before = proxy.count()
        compact(store)
        counts.append(proxy.count() - before)
    assert counts[1] <= counts[0] * 1.05


@pytest.mark.slow
@pytest.mark.parametrize("table", ["messages", "feedback_summary", "sessions"])
def test_a_commit_whose_answer_is_lost(proxied: tuple[S3Server, FaultProxy], table: str) -> None:
    server, proxy = proxied
    store = open_store(server.settings(endpoint_url=proxy.url))
    put(store, 1, [session(n) for n in range(5)])
    compact(store)
    put(store, 2, [session(n) for n in range(5, 10)])
    proxy.add(Fault.LOSE_ANSWER, method="PUT", path=f"tables/{table}/_delta_log/0+2.json", times=1)
    compact(store)
    assert_exact(store)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["_runs/0+2.json", "_runs/0+2.outcome", "tables/messages/data"])
def test_a_write_whose_answer_is_lost(proxied: tuple[S3Server, FaultProxy], path: str) -> None:
    server, proxy = proxied
    store = open_store(server.settings(endpoint_url=proxy.url))
    put(store, 1, [session(n) for n in range(5)])
    compact(store)
    put(store, 2, [session(n) for n in range(5, 10)])
    proxy.add(Fault.LOSE_ANSWER, method="P(UT|OST)", path=path, times=1)
    compact(store)
    assert_exact(store)
