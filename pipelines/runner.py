"""Where tasks run: in this process, in a pool of local processes, or on a Dask cluster.

A runner is a map. Its function is pure but for writes whose names are made from its inputs, so
running a task again, after a worker died, adds nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa

from archiver.batch import collect_rarely
from archiver.errors import SettingsError, StorageError
from archiver.settings import RunnerSettings

MAX_POOLS: Final = 4
"""Pools tried for one call, each with the tasks that the last one left when a worker died."""

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAX_MMAP_THRESHOLD: Final = 32 * 1024**2
_KEPT_BYTES: Final = 256 * 1024**2

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class Runner(Protocol):
    """Applies a function to tasks, somewhere."""

    def prepare(self, module: str) -> None:
        """Begin what several tasks of a module will need, and return at once: the caller still plans them."""
        ...

    def run(
        self,
        function: Callable[[TaskT], ResultT],
        tasks: Sequence[TaskT],
        on_done: Callable[[TaskT, ResultT], None],
    ) -> None:
        """Apply ``function`` to every task; ``on_done`` sees each result once, here, in no fixed order.

        Function and tasks must be picklable. The first exception ends the call and is raised.
        """
        ...


@contextmanager
def open_runner(settings: RunnerSettings) -> Iterator[Runner]:
    """The runner of the settings; its processes start with the first call that needs them and end here."""
    if settings.kind == "dask":
        dask = DaskRunner(settings)
        try:
            yield dask
        finally:
            dask.close()
        return
    local = LocalRunner(worker_count(settings))
    try:
        yield local
    finally:
        local.close()


def worker_count(settings: RunnerSettings) -> int:
    """Local processes: the setting, else one for every core this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


class LocalRunner:
    """A pool of spawned processes; a single worker, or a single task, runs in this process."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def prepare(self, module: str) -> None:
        """Start the processes and let them import the module; what fails here fails again, and is told, with a task."""
        if self._workers > 1 and self._pool is None:
            pool = self._started()
            for _ in range(self._workers):
                pool.submit(_imported, module)

    def run(
        self,
        function: Callable[[TaskT], ResultT],
        tasks: Sequence[TaskT],
        on_done: Callable[[TaskT, ResultT], None],
    ) -> None:
        """See Runner. When a worker dies, a new pool gets the tasks that are left, up to MAX_POOLS times."""
        if self._workers == 1 or len(tasks) <= 1:
            for task in tasks:
                on_done(task, function(task))
            return
        left = dict(enumerate(tasks))
        for _ in range(MAX_POOLS):
            try:
                self._run_left(function, left, on_done)
            except BrokenProcessPool:
                self.close()
            else:
                return
        raise StorageError(
            f"worker processes died {MAX_POOLS} times, {len(left)} tasks are left", operation="run",
            hint="look for the kernel's out-of-memory messages; lower tables.memory_limit or runner.workers",
        )  # fmt: skip

    def _run_left(
        self,
        function: Callable[[TaskT], ResultT],
        left: dict[int, TaskT],
        on_done: Callable[[TaskT, ResultT], None],
    ) -> None:
        pool = self._started()
        futures = {pool.submit(function, task): i for i, task in left.items()}
        try:
            for future in as_completed(futures):
                result = future.result()
                on_done(left.pop(futures.pop(future)), result)
        finally:
            for future in futures:
                future.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=prepare_process)
        return self._pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class DaskRunner:
    """A Dask cluster: the one at ``runner.address``, else one on this machine, bound to the loopback interface."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        self._client: Any = None

    def prepare(self, module: str) -> None:
        """Nothing: the workers of a cluster are there."""

    def run(
        self,
        function: Callable[[TaskT], ResultT],
        tasks: Sequence[TaskT],
        on_done: Callable[[TaskT, ResultT], None],
    ) -> None:
        """See Runner. Dask moves the tasks of a worker that died to another one."""
        if not tasks:
            return
        client = self._connected()
        distributed = _distributed()

        futures = {client.submit(function, task, pure=False): task for task in tasks}
        try:
            for future in distributed.as_completed(list(futures), loop=client.loop):
                on_done(futures.pop(future), future.result())
        finally:
            client.cancel(list(futures))

    def _connected(self) -> Any:  # distributed is not typed
        if self._client is not None:
            return self._client
        distributed = _distributed()
        address = self._settings.address or distributed.LocalCluster(
            n_workers=worker_count(self._settings),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        self._client = distributed.Client(address, set_as_default=False)
        self._client.run(prepare_process)
        return self._client

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._client is None:
            return
        cluster = None if self._settings.address else self._client.cluster
        self._client.close()
        if cluster is not None:
            cluster.close()


def _imported(module: str) -> None:
    importlib.import_module(module)


def _distributed() -> Any:
    """Dask's module, which is an optional dependency and costs half a second."""
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise SettingsError(
            "runner.kind dask needs Dask distributed", operation="run", key="runner.kind",
            hint="pip install 'sessionlake[dask]'",
        ) from error  # fmt: skip


def prepare_process() -> None:
    """Make this process one that runs tasks: few collections, one heap, one busy thread; processes are the parallelism.

    Arrow's own allocators and the C library, which Parquet's compression asks for working memory for every
    page, each give memory back to the system and get it again, cleared: 7 % of a compaction's CPU. One heap
    that keeps up to _KEPT_BYTES serves both, and the threads that wait for requests.
    """
    collect_rarely()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; other C libraries have none
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
        set_option(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        pa.set_memory_pool(pa.system_memory_pool())


def release_memory() -> None:
    """Give back to the system what Arrow and the C library keep of memory that is free."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
