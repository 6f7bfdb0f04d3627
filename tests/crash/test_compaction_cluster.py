"""A compaction on a Dask cluster, one started for it or one at an address: exact, also when a worker is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import reference
from archived import continued, put, session
from tasklets import MortalStore

from archiver.events import Message, SessionRecord
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, lake, runs
from pipelines.schema import TABLES

REPOSITORY = Path(__file__).parents[2]
NOW_US = 1_790_900_000_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def dask() -> None:
    pytest.importorskip("distributed")


@contextmanager
def remote_cluster(directory: Path) -> Iterator[str]:
    """A scheduler and two workers on the loopback interface, each a process that nobody starts again; its address."""
    place = directory / "scheduler.json"
    shared = ["--scheduler-file", str(place), "--host", "127.0.0.1", "--no-dashboard"]
    worker = ["dask_worker", *shared, "--nthreads", "1", "--no-nanny", "--local-directory", str(directory)]
    with ExitStack() as processes:
        for arguments in (["dask_scheduler", *shared, "--port", "0"], worker, worker):
            processes.enter_context(running(arguments))
            wait_for(place)
        yield json.loads(place.read_text())["address"]


@contextmanager
def running(arguments: list[str]) -> Iterator[None]:
    module, *rest = arguments
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    command = [sys.executable, "-m", f"distributed.cli.{module}", *rest]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


def settings(address: str | None = None) -> Settings:
    """Two workers, and tasks of two megabytes."""
    return Settings(runner={"kind": "dask", "workers": 2, "address": address}, tables={"memory_limit": "64 MiB"})


def bulky(n: int) -> SessionRecord:
    """A session of 200 kB."""
    rng = random.Random(n)
    texts = [rng.randbytes(10_000).hex() for _ in range(10)]
    messages = tuple(Message("user", text, 1_790_000_000_000_000 + i, "en") for i, text in enumerate(texts))
    return session(n, messages=messages)


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """Segments worth several tasks, some of them sessions that another run already brought into the tables."""
    store = DirectoryStore(tmp_path / "lake")
    records = [bulky(n) for n in range(72)]
    put(store, 1, records[:8])
    compaction.compact(store, Settings(runner={"workers": 1}), now_us=NOW_US)
    put(store, 2, [continued(r) for r in records[:8]] + records[8:40])
    put(store, 3, records[40:])
    return tmp_path / "lake"


def assert_exact(root: Path) -> None:
    store = DirectoryStore(root)
    expected, found = reference.tables(store), reference.stored(store)
    for table in TABLES:
        assert found[table] == expected[table], table
    plan = runs.read_plan(store, lake.current(store).run)
    assert plan is not None
    assert (plan.run, len(plan.body["tasks"])) >= (2, 4)


def test_a_worker_killed_in_the_middle_of_a_task(archived: Path, tmp_path: Path) -> None:
    store = MortalStore(archived, tmp_path / "died")
    report = compaction.compact(store, settings(), now_us=NOW_US + 1)
    assert not report.incomplete
    assert_died(tmp_path / "died")
    assert_exact(archived)


def test_a_worker_of_a_remote_cluster_killed_in_the_middle_of_a_task(archived: Path, tmp_path: Path) -> None:
    store = MortalStore(archived, tmp_path / "died")
    with remote_cluster(tmp_path) as address:
        report = compaction.compact(store, settings(address), now_us=NOW_US + 1)
    assert not report.incomplete
    assert_died(tmp_path / "died")
    assert_exact(archived)


def test_the_command_on_a_remote_cluster(archived: Path, tmp_path: Path) -> None:
    with remote_cluster(tmp_path) as address:
        environment = {
            "PYTHONPATH": str(REPOSITORY),
            "SESSIONLAKE_STORAGE__URL": archived.as_uri(),
            "SESSIONLAKE_RUNNER__ADDRESS": address,
            "SESSIONLAKE_TABLES__MEMORY_LIMIT": "64 MiB",
        }
        command = [sys.executable, "-m", "pipelines", "--config", REPOSITORY / "configs" / "dask.toml", "compact"]
        subprocess.run(command, env={**os.environ, **environment}, cwd=tmp_path, check=True, timeout=240)
    assert_exact(archived)


def assert_died(marker: Path) -> None:
    """Some other process did."""
    pid = int(marker.read_text())
    assert pid != os.getpid()
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
