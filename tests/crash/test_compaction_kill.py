"""A compaction killed at any effect, or racing others, leaves tables that the next run makes exact."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import killing
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import reference
from archived import OTHER_ARCHIVER, continued, put, session

from archiver.objects import DirectoryStore
from pipelines import compaction, lake
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000


def assert_exact(store: DirectoryStore) -> None:
    """Tables and glob equal the reference."""
    expected, found = reference.tables(store), reference.stored(store)
    for table in TABLES:
        assert found[table] == expected[table], table
    for table in ("messages", "interactions"):
        assert glob_rows(store, table) == len(expected[table]), table


def glob_rows(store: DirectoryStore, table: str) -> int:
    path = lake.local_path(store, f"tables/{table}/data")
    assert path is not None
    return int(pads.dataset(path).count_rows())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with one run, and segments of the next one: new sessions, revisions, another archiver."""
    root = tmp_path_factory.mktemp("prepared") / "lake"
    store = DirectoryStore(root)
    first = [session(n, days=1) for n in range(12)]
    put(store, 1, first)
    compaction.compact(store, killing.SETTINGS, now_us=NOW_US)
    put(store, 2, [continued(r) for r in first[:4]] + [session(n, days=2) for n in range(12, 18)])
    put(store, 1, [session(n, days=2) for n in range(18, 24)], OTHER_ARCHIVER)
    return root


def kill_points(prepared: Path, tmp_path: Path) -> Iterator[tuple[int, bool]]:
    """Every effect of the run, before and after."""
    shutil.copytree(prepared, tmp_path / "count")
    process = killing.start(killing.run_killed, tmp_path / "count", NOW_US, None, False, tmp_path / "counted")
    process.join()
    assert process.exitcode == 0
    for effect in range(1, int((tmp_path / "counted").read_text()) + 1):
        yield effect, False
        yield effect, True


def survive(prepared: Path, root: Path, effect: int, after: bool) -> None:
    """Kill at the effect; another process, which finds more to do, must make everything exact."""
    shutil.copytree(prepared, root)
    process = killing.start(killing.run_killed, root, NOW_US, effect, after, root / "counted")
    process.join()
    assert process.exitcode == -signal.SIGKILL
    store = DirectoryStore(root)
    assert_no_half_state(store)
    put(store, 3, [session(n) for n in range(30, 34)])
    compaction.compact(store, killing.SETTINGS, now_us=NOW_US + 1)
    assert_exact(store)


def assert_no_half_state(store: DirectoryStore) -> None:
    """At the current version every session has exactly its rows, and the summary counts them."""
    version = lake.current(store)
    sessions = lake.scan(store, "sessions", version)
    messages = Counter(lake.scan(store, "messages", version)["session_uid"].to_pylist())
    counts = dict(zip(sessions["session_uid"].to_pylist(), sessions["n_messages"].to_pylist(), strict=True))
    assert len(counts) == sessions.num_rows
    assert messages == Counter({uid: n for uid, n in counts.items() if n})
    latest = [r for r in lake.scan(store, "feedback", version).to_pylist() if r["is_latest"]]
    summary = [r for r in lake.scan(store, "feedback_summary", version).to_pylist() if r["grain"] == "full"]
    assert sum(r["n"] for r in summary) == len(latest)


def test_killed_at_some_effects(prepared: Path, tmp_path: Path) -> None:
    points = list(kill_points(prepared, tmp_path))
    assert len(points) > 60
    for effect, after in points[:: len(points) // 3]:
        survive(prepared, tmp_path / f"{effect}-{after}", effect, after)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_every_effect(prepared: Path, tmp_path: Path) -> None:
    for effect, after in kill_points(prepared, tmp_path):
        survive(prepared, tmp_path / "case", effect, after)
        shutil.rmtree(tmp_path / "case")


def race(store_root: Path, rounds: int, *, upkeep: bool) -> None:
    """Two compactors (or one and an upkeep) a round, while readers look on."""
    store = DirectoryStore(store_root)
    for number in range(rounds):
        fresh = [session(n, days=2) for n in range(number * 8, number * 8 + 8)]
        older = [continued(session(n, days=2)) for n in range(max(0, number - 1) * 8, number * 8, 3)]
        put(store, number + 1, fresh + older)
        put(store, number + 1, [session(1000 + number), *fresh[:2]], OTHER_ARCHIVER)
        rival = killing.run_upkeep if upkeep else killing.run_compaction
        processes = [
            killing.start(killing.run_compaction, store_root, NOW_US + number),
            killing.start(rival, store_root, NOW_US + number),
        ]
        while any(p.is_alive() for p in processes):
            if lake.exists(store):
                assert_no_half_state(store)
                if not upkeep:  # which replaces files, so that a glob sees both for a while
                    assert_no_double(store, "messages")
        for process in processes:
            process.join()
        assert [p.exitcode for p in processes] == [0, 0]
    compaction.compact(store, killing.SETTINGS, now_us=NOW_US + 1000)
    expected, found = reference.tables(store), reference.stored(store)
    for table in TABLES:
        assert found[table] == expected[table], table


def assert_no_double(store: DirectoryStore, table: str) -> None:
    """What a plain glob sees at this moment holds no row twice."""
    path = lake.local_path(store, f"tables/{table}/data")
    assert path is not None
    keys: Counter[tuple[str, int]] = Counter()
    for file in path.rglob("*.parquet"):
        rows = pq.read_table(file, columns=["session_uid", "message_index"]).to_pylist()
        keys.update((row["session_uid"], row["message_index"]) for row in rows)
    assert not keys or keys.most_common(1)[0][1] == 1


def test_two_compactors_at_once(tmp_path: Path) -> None:
    race(tmp_path / "lake", 2, upkeep=False)
    assert_exact(DirectoryStore(tmp_path / "lake"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_upkeep_beside_a_compaction(tmp_path: Path) -> None:
    race(tmp_path / "lake", 6, upkeep=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_compactors_at_once_for_twenty_rounds(tmp_path: Path) -> None:
    race(tmp_path / "lake", 20, upkeep=False)
    assert_exact(DirectoryStore(tmp_path / "lake"))
