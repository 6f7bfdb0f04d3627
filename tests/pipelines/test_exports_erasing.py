"""An erased session leaves every export that named it, and nothing else."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archiver.archive import Ledger, Tombstone
from pipelines.exports import erase

NOBODY = Ledger(frozenset())


def parquet(uids):
    sink = io.BytesIO()
    pq.write_table(pa.table({"row_id": [f"r-{u}" for u in uids], "session_uid": list(uids)}), sink)
    return sink.getvalue()


def rejects(uids):
    return gzip.compress("".join(json.dumps({"session_uid": u, "reason": "x"}) + "\n" for u in uids).encode())


@pytest.fixture
def store(directory_store):
    def version(name, uids, rejected=(), file="train-00000-of-00001.parquet", data=None):
        prefix = f"exports/sft/{name}"
        directory_store.create(f"{prefix}/{file}", data or parquet(uids))
        directory_store.create(f"{prefix}/rejects.jsonl.gz", rejects(rejected))
        directory_store.create(f"{prefix}/manifest.json", b"{}")

    version("v000001-aa", ["ann", "bob"])
    version("v000002-bb", ["bob"], rejected=["eve"])
    version("v000003-cc", [], file="train-00000-of-00001.jsonl", data=b'{"session_uid": "cid"}\n')
    directory_store.create("exports/sft/latest.json", b'{"version": "v000003-cc", "key": "exports/sft/v000003-cc"}')
    return directory_store


def versions(store):
    return {info.key.split("/")[2] for info in store.list("exports/sft/v")}


def test_versions_that_hold_the_session_go_whole(store):
    assert erase(store, NOBODY, {"ann"}) == ("exports/sft/v000001-aa",)
    assert versions(store) == {"v000002-bb", "v000003-cc"}
    assert erase(store, NOBODY, {"ann"}) == ()


def test_rejects_and_json_lines_count_too(store):
    assert erase(store, NOBODY, {"eve", "cid"}) == ("exports/sft/v000002-bb", "exports/sft/v000003-cc")
    assert versions(store) == {"v000001-aa"}


def test_latest_follows(store):
    erase(store, NOBODY, {"cid"})
    assert json.loads(store.get("exports/sft/latest.json"))["key"] == "exports/sft/v000002-bb"
    erase(store, NOBODY, {"bob"})
    assert store.head("exports/sft/latest.json") is None


def test_nobody_erased_touches_nothing(store):
    assert erase(store, NOBODY) == ()
    assert len(versions(store)) == 3


def test_the_ledger_alone_is_enough(store):
    """The tables may have lost the session before: by a withdrawn consent, or an erasure that was killed."""
    ledger = Ledger(frozenset({Tombstone.of("session", "ann", 1)}))
    assert erase(store, ledger) == ("exports/sft/v000001-aa",)
