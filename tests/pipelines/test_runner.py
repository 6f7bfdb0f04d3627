"""A runner applies a function to every task once, wherever it runs, and survives dying workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import tasklets

from archiver.errors import InputError, StorageError
from archiver.settings import RunnerSettings
from pipelines.runner import open_runner, worker_count

Done = list[tuple[object, object]]


def results(settings: RunnerSettings, function: Callable[..., object], tasks: list[object]) -> Done:
    found: Done = []
    with open_runner(settings) as runner:
        runner.run(function, tasks, lambda task, result: found.append((task, result)))
    return sorted(found)


@pytest.mark.parametrize("workers", [1, 2])
def test_local_runs_every_task_once(workers: int) -> None:
    found = results(RunnerSettings(workers=workers), tasklets.double, list(range(9)))
    assert found == [(n, 2 * n) for n in range(9)]


@pytest.mark.slow
def test_dask_runs_every_task_once() -> None:
    pytest.importorskip("distributed")
    found = results(RunnerSettings(kind="dask", workers=2), tasklets.double, list(range(9)))
    assert found == [(n, 2 * n) for n in range(9)]


def test_processes_that_were_prepared_run_the_tasks() -> None:
    found: Done = []
    with open_runner(RunnerSettings(workers=2)) as runner:
        runner.prepare("json")
        before = {process.pid for process in multiprocessing.active_children()}
        runner.run(tasklets.process_id, ["x", "y", "z"], lambda task, pid: found.append((task, pid)))
    assert len(before) == 2
    assert {pid for _, pid in found} <= before


def test_preparing_in_vain_fails_no_task() -> None:
    with open_runner(RunnerSettings(workers=2)) as runner:
        runner.prepare("no_such_module")
        found: Done = []
        runner.run(tasklets.double, [1, 2], lambda task, result: found.append((task, result)))
    assert sorted(found) == [(1, 2), (2, 4)]


def test_one_task_runs_in_this_process() -> None:
    import os

    assert results(RunnerSettings(workers=2), tasklets.process_id, ["x"]) == [("x", os.getpid())]


def test_several_tasks_run_in_other_processes() -> None:
    import os

    found = results(RunnerSettings(workers=2), tasklets.process_id, ["x", "y", "z"])
    assert os.getpid() not in {pid for _, pid in found}


def test_workers_default_to_the_cores() -> None:
    import os

    assert worker_count(RunnerSettings()) == len(os.sched_getaffinity(0))
    assert worker_count(RunnerSettings(workers=3)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_arrives_whole(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        results(RunnerSettings(workers=workers), tasklets.fail, [1, 2])
    assert (caught.value.operation, caught.value.key, caught.value.hint) == ("fail", "task", "do not")


def test_a_worker_that_dies_costs_no_task(tmp_path: Path) -> None:
    tasks = [(n, str(tmp_path / "died")) for n in range(8)]
    found = results(RunnerSettings(workers=2), tasklets.die_once, tasks)
    assert [result for _, result in found] == list(range(8))
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_dask_worker_that_dies_costs_no_task(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    tasks = [(n, str(tmp_path / "died")) for n in range(8)]
    found = results(RunnerSettings(kind="dask", workers=2), tasklets.die_once, tasks)
    assert [result for _, result in found] == list(range(8))
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_task_that_always_kills_its_worker_is_given_up() -> None:
    with pytest.raises(StorageError, match="died"):
        results(RunnerSettings(workers=2), tasklets.die, [1, 2])
