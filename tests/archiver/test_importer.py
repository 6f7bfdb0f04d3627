"""Import: everything is in, known or rejected by name; order and repetition change nothing."""

import copy
import gzip
import itertools
import json

import pytest

from archiver import archive, importer, segments
from archiver.errors import StorageError, TooManyRejectsError
from archiver.events import session_uid
from archiver.hot import HotStore
from archiver.objects import StoreFacts
from archiver.settings import load_settings

NOW = 1_800_000_000_000_000


def message(text, role="user", second=0):
    return {"role": role, "content": text, "timestamp": f"2026-10-03T10:00:{second:02d}", "language": "en"}


def session(session_id, texts, **changes):
    return {
        "session_id": session_id,
        "created_at": "2026-10-03T10:00:00",
        "updated_at": f"2026-10-03T11:00:{len(texts):02d}",
        "language": "en",
        "chat_history": [message(t, second=i) for i, t in enumerate(texts)],
        "interactions": [],
        "graph_state": None,
        "metadata": {"user_id": "u1"},
        "feedback_summary": {"correct": 0, "incorrect": 0, "partial": 0},
        **changes,
    }


def archived(data):
    return {k: v for k, v in data.items() if k not in ("updated_at", "metadata")}


class Lake:
    """A hot store and a directory store, and imports into them."""

    def __init__(self, directory, store):
        self.directory = directory
        self.store = store
        self.settings = load_settings(None, {"hot.path": directory / "hot"})

    def run(self, *sessions, **options):
        path = self.directory / f"in-{len(list(self.directory.iterdir()))}.jsonl"
        path.write_text("".join(json.dumps(s) + "\n" for s in sessions))
        return self.run_files(path, **options)

    def run_files(self, *paths, **options):
        with HotStore.from_settings(self.settings.hot) as hot:
            return importer.import_files(
                list(paths), hot, self.store, self.settings, now_us=NOW, options=importer.ImportOptions(**options)
            )

    def records(self):
        """The highest revision of every session in the archive."""
        found = {}
        for archiver_id in archive.list_archivers(self.store):
            for ref, _ in archive.list_segments(self.store, archiver_id):
                file = archive.open_remote(self.store, ref)
                for batch in segments.read_batches(file, key=ref.key):
                    for record in segments.batch_to_records(batch):
                        if record.revision >= found.get(record.session_uid, record).revision:
                            found[record.session_uid] = record
        return found


@pytest.fixture
def lake(tmp_path, directory_store):
    return Lake(tmp_path, directory_store)


def test_importing_twice_adds_nothing(lake):
    sessions = [session(f"s{i}", ["a", "b"]) for i in range(5)]
    assert lake.run(*sessions).imported == 5
    again = lake.run(*sessions)
    assert (again.imported, again.revised, again.identical) == (0, 0, 5)
    assert len(lake.records()) == 5


def test_a_longer_conversation_is_the_next_revision_and_a_shorter_one_is_older(lake):
    lake.run(session("s", ["a"]))
    assert lake.run(session("s", ["a", "b"])).revised == 1
    assert lake.run(session("s", ["a"])).identical == 1
    assert lake.run(session("s", ["a"], updated_at="2026-10-03T10:30:00")).older == 1
    (record,) = lake.records().values()
    assert (record.revision, len(record.messages)) == (2, 2)


def test_another_conversation_under_the_same_identity_is_rejected_not_merged(lake):
    lake.run(session("s", ["a"]))
    report = lake.run(session("s", ["x", "y"]))
    assert report.by_rule == {"identity_collision": 1}
    assert next(iter(lake.records().values())).messages[0].content == "a"


def test_another_user_under_the_same_identity_is_rejected(lake):
    lake.run(session("s", ["a"]))
    assert lake.run(session("s", ["a", "b"], metadata={"user_id": "u2"})).by_rule == {"identity_collision": 1}


def test_the_archive_form_of_a_known_session_is_known(lake):
    live = session("s", ["a", "b"])
    lake.run(live)
    report = lake.run(archived(live))
    assert (report.identical, report.imported, report.revised) == (1, 0, 0)
    lake.run(archived(session("s", ["a", "b", "c"])))
    (record,) = lake.records().values()
    assert (record.revision, record.user_id, json.loads(record.metadata)) == (2, "u1", {"user_id": "u1"})


def test_the_order_of_the_input_changes_nothing(tmp_path, lake):
    from archiver.objects import DirectoryStore

    versions = [
        session("s", ["a"]),
        session("s", ["a", "b"]),
        archived(session("s", ["a", "b", "c"])),
        session("t", ["z"]),
    ]
    results = set()
    for i, order in enumerate(itertools.permutations(versions)):
        directory = tmp_path / f"order-{i}"
        directory.mkdir()
        other = Lake(directory, DirectoryStore(directory / "lake"))
        other.run(*order)
        results.add(tuple(sorted((u, r.revision, r.messages, r.metadata) for u, r in other.records().items())))
    assert len(results) == 1


def test_rejects_name_file_line_and_rule_and_the_rest_is_in(lake, tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_text(json.dumps(session("s", ["a"])) + '\n{"broken\n' + json.dumps({"session_id": "x"}) + "\n")
    report = lake.run_files(path)
    assert (report.records, report.imported) == (3, 1)
    assert [(r.line, r.rule) for r in report.rejects] == [(2, "not_json"), (3, "bad_created_at")]
    assert all(r.file == str(path) and r.reason for r in report.rejects)


def test_too_many_rejects_stop_the_import(lake):
    with pytest.raises(TooManyRejectsError, match="at most 0 permitted"):
        lake.run({"session_id": "x"}, max_rejects=0)


def test_an_oversized_record_is_rejected(lake):
    report = lake.run(session("s", ["x" * 5000]), session("t", ["a"]), max_record_bytes=2000)
    assert report.by_rule == {"too_large": 1}
    assert report.imported == 1


def test_every_form_of_file(lake, tmp_path):
    directory = tmp_path / "old"
    (directory / "archive").mkdir(parents=True)
    (directory / "live.json").write_text(json.dumps(session("a", ["1"]), indent=2))
    (directory / "archive" / "session_b_2026-10-03.json").write_text(
        json.dumps(archived(session("b", ["2"])), indent=2)
    )
    (directory / "many.jsonl.gz").write_bytes(gzip.compress(json.dumps(session("c", ["3"])).encode()))
    assert lake.run_files(directory).imported == 3
    assert {r.session_id for r in lake.records().values()} == {"a", "b", "c"}


def test_live_sessions_go_into_the_hot_store_and_expired_ones_into_the_archive(lake):
    young = session("young", ["a"], created_at="2027-01-15T07:00:00+00:00", updated_at="2027-01-15T08:00:00+00:00")
    report = lake.run(young, session("old", ["a"]), live=True)
    assert (report.made_live, report.imported) == (1, 1)
    with HotStore.from_settings(lake.settings.hot) as hot:
        assert hot.holds("young", 1_799_996_400_000_000)
    assert lake.run(young).by_rule == {"live": 1}


def test_of_two_unexpired_conversations_with_one_id_one_is_live_and_the_other_archived(lake):
    times = [{"created_at": f"2027-01-15T0{h}:00:00+00:00", "updated_at": "2027-01-15T08:00:00+00:00"} for h in (6, 7)]
    report = lake.run(*(session("s", ["a"], **t) for t in times), session("t", ["b"]), live=True)
    assert (report.made_live, report.imported, report.rejects) == (1, 2, [])


def test_an_erased_session_does_not_come_back(lake):
    data = session("s", ["a"])
    uid = session_uid("s", 1_791_021_600_000_000)
    tombstone = archive.Tombstone.of("session", uid, NOW)
    lake.store.create(tombstone.key, b"{}")
    assert lake.run(copy.deepcopy(data)).by_rule == {"erased": 1}
    assert lake.records() == {}


def test_a_storage_that_could_lose_sessions_is_refused(lake, monkeypatch):
    unsafe = StoreFacts(creates_once=False, replaces_if_match=True, refuses_bad_checksum=True)
    monkeypatch.setattr(type(lake.store), "probe", lambda self, key: unsafe)
    with pytest.raises(StorageError, match="second create overwrites"):
        lake.run(session("s", ["a"]))
    assert lake.records() == {}
