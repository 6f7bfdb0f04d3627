"""After an erasure nothing of the erased is left: segments, tables, exports, older versions, hot stores, spools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import NOW_US, settings
from remains import places_of
from s3_servers import S3Server

from archiver import archive, erasure, importer, service
from archiver.events import format_time
from archiver.hot import HotStore
from archiver.objects import DirectoryStore, ObjectStore, open_store
from pipelines import compaction, exports, lake, maintenance

DAY_US = 86_400_000_000
CONFIG = settings(max_wait_minutes=0).model_copy(update={"runner": settings().runner.model_copy(update={"workers": 1})})


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[HotStore]]:
    stores = [HotStore(tmp_path / name) for name in ("host-a", "host-b")]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Sessions of two users as an application wrote them, for import."""
    directory = tmp_path / "input"
    directory.mkdir()
    for user in ("eve", "bob"):
        lines = [json.dumps(_session(user, n)) for n in range(15)]
        (directory / f"{user}.jsonl").write_text("\n".join(lines))
    return directory


def _session(user: str, n: int) -> dict[str, Any]:
    when = format_time(NOW_US - 30 * DAY_US + n * 3_600_000_000)
    graph = {"nodes": [{"id": "n1", "content": f"a step of {user} {n}"}], "edges": []}
    return {
        "session_id": f"{user}-{n}",
        "created_at": when,
        "updated_at": when,
        "chat_history": [
            {"role": "user", "content": f"question of {user} {n}", "timestamp": when},
            {"role": "assistant", "content": f"answer for, of {user} {n}", "timestamp": when},
        ],
        "interactions": [{"timestamp": when, "action_type": "feedback", "node_id": "n1", "feedback": "correct"}],
        "graph_state": graph,
        "metadata": {"user_id": user, "name": f"the name of {user}"},
        "language": "en",
    }


def _fill(hosts: list[HotStore], store: ObjectStore, files: Path) -> None:
    importer.import_files([files], hosts[0], store, CONFIG, now_us=NOW_US)
    compaction.compact(store, CONFIG, now_us=NOW_US)
    assert exports.export(store, CONFIG, "prompts", now_us=NOW_US).n_rows


def _erase_archive(hot: HotStore, store: ObjectStore, **whom: Any) -> erasure.EraseReceipt:
    plan = erasure.plan_erasure(hot, store, now_us=NOW_US, **whom)
    return erasure.erase(hot, store, plan, push=lambda: service.sweep(hot, store, CONFIG, now_us=NOW_US))


def _erase_tables(store: ObjectStore) -> None:
    exports.erase(store, archive.tombstones(store), also=maintenance.covered_uids(store))
    maintenance.erase(store, CONFIG, now_us=NOW_US)


def _uids(store: ObjectStore) -> set[str]:
    return set(lake.scan(store, "messages").column("session_uid").to_pylist())


@pytest.mark.parametrize(
    "kind",
    [
        "directory",
        pytest.param("moto", marks=pytest.mark.slow),
        pytest.param("seaweed", marks=[pytest.mark.s3, pytest.mark.slow]),
    ],
)
def test_an_erased_user_is_nowhere_and_does_not_come_back(
    kind: str, hosts: list[HotStore], files: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: S3Server | None = None if kind == "directory" else request.getfixturevalue(f"{kind}_s3")
    store: ObjectStore = (
        open_store(server.settings(bucket=server.versioned_bucket)) if server else DirectoryStore(tmp_path / "lake")
    )
    _fill(hosts, store, files)
    texts = (b"of eve", b"eve-3")
    assert all(places_of(text, store, hosts, server) for text in texts)
    assert len(_uids(store)) == 30

    assert _erase_archive(hosts[0], store, user_id="eve").complete
    _erase_tables(store)
    assert {name for text in texts for name in places_of(text, store, hosts, server)} == set()
    bob = _uids(store)
    assert len(bob) == 15

    again = importer.import_files([files], hosts[1], store, CONFIG, now_us=NOW_US + DAY_US)
    assert again.imported == 15  # bob's, whom this host does not know
    compaction.compact(store, CONFIG, now_us=NOW_US + DAY_US)
    assert _uids(store) == bob
    assert {name for text in texts for name in places_of(text, store, hosts, server)} == set()


class _Interrupted(DirectoryStore):
    """Does something else in the middle of a compaction."""

    def __init__(self, root: Path, at: str, then: Callable[[], object]) -> None:
        super().__init__(root)
        self._at, self._then = at, then

    def _interrupt(self, name: str) -> None:
        if name == self._at:
            self._at = ""
            self._then()

    def create(self, key: str, data: bytes | Path, **values: Any) -> bool:
        if key.startswith("tables/_runs/"):  # the keys are read, the plan is made
            self._interrupt("create")
        return super().create(key, data, **values)

    def stage(self, key: str, data: bytes | Path) -> str:
        self._interrupt("stage")
        return super().stage(key, data)

    def publish(self, key: str, token: str) -> None:
        self._interrupt("publish")
        super().publish(key, token)


@pytest.mark.parametrize("step", ["create", "stage", "publish"])
def test_an_erasure_while_a_compaction_runs(hosts: list[HotStore], files: Path, tmp_path: Path, step: str) -> None:
    store = DirectoryStore(tmp_path / "lake")
    importer.import_files([files], hosts[0], store, CONFIG, now_us=NOW_US)

    def erase() -> None:
        _erase_archive(hosts[0], store, user_id="eve")

    compaction.compact(_Interrupted(tmp_path / "lake", step, erase), CONFIG, now_us=NOW_US)
    _erase_tables(store)
    assert len(_uids(store)) == 15
    assert places_of(b"of eve", store, hosts) == []
    rows = lake.scan(store, "messages").select(["session_id", "content"]).to_pylist()
    assert all(row["content"].endswith(row["session_id"].replace("bob-", "of bob ")) for row in rows)


def test_an_erasure_of_a_session_killed_before_the_tables_is_finished_by_the_next(
    hosts: list[HotStore], files: Path, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path / "lake")
    _fill(hosts, store, files)
    first = _erase_archive(hosts[0], store, session_id="eve-3")
    assert places_of(b"of eve 3", store, hosts)
    second = _erase_archive(hosts[0], store, session_id="eve-3")
    _erase_tables(store)
    assert second.tombstones == first.tombstones
    assert places_of(b"of eve 3", store, hosts) == []
    assert places_of(b"of eve 4", store, hosts)
