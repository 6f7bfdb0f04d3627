"""Compaction beside other engines: the same tables from the same segments, CPU seconds and memory.

    python tests/bench/compact.py [--quick] [--sessions N] [--rounds N] [--directory DIR] [--only PART]
                                  [--json] [--spark-python PYTHON]

Every job runs in a process of its own, the contestants in turn; figures are medians. Modules are compiled before,
as an installation does. Ours does more than the others: digests, sorting, exactly-once commits, durable files.
"four" leaves graphs out, as they do. "floor" only decodes the segments and encodes the rows of our four tables again,
with the same settings and library: what is above it is ours to save.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]


@dataclass(frozen=True, slots=True)
class Measured:
    """One job: CPU of the whole process tree, wall time, peak of anonymous and shared memory of the tree."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: int


def measure(command: list[str]) -> Measured:
    """Run a command and watch its process tree; SystemExit with its output if it fails."""
    started = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment.setdefault("PYTHONPYCACHEPREFIX", "/tmp/sessionlake-bench-pycache")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        peaks = [0]
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, done))
        watcher.start()
        output = process.communicate()[0]
        done.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{output}")
    return Measured(float(output.split("CPU")[-1]), time.monotonic() - started, max(peaks))


def _watch(pid: int, peaks: list[int], done: threading.Event) -> None:
    while not done.wait(0.05):
        peaks.append(sum(map(_memory_kib, _tree(pid))) // 1024)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = [int(p) for t in Path(f"/proc/{pid}/task").iterdir() for p in (t / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _tree(child)


def _memory_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


class NoPandas(MetaPathFinder):
    """An installation of the product has no pandas; where there is one, pyarrow imports it, for a second of CPU."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse it."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def ours(source: Path, target: Path, tables: str, workers: int) -> None:
    """The product's own compaction of hard-linked segments; in this process and its workers."""
    sys.meta_path.insert(0, NoPandas())
    from archiver.objects import DirectoryStore
    from archiver.settings import Settings
    from pipelines import compaction
    from pipelines.runner import prepare_process

    if workers == 1:
        prepare_process()  # as the command does
    if tables == "four":
        import compact_plain

        from pipelines.compaction import tasks

        tasks.derive = compact_plain  # type: ignore[attr-defined]
        _leave_out_feedback(tasks)
    _link(source, target)
    settings = Settings(runner={"workers": workers})
    report = compaction.compact(DirectoryStore(target), settings, now_us=time.time_ns() // 1000)
    if report.incomplete:
        raise SystemExit(f"incomplete: {report.problems[:3]}")


def _leave_out_feedback(tasks: Any) -> None:
    """The summary is made from the feedback rows, but the table of these is none of the four."""
    encoded = tasks._encoded

    def encoded_four(task: Any, tables: Any, owners: Any, dates: Any) -> Any:
        return encoded(task, {name: table for name, table in tables.items() if name != "feedback"}, owners, dates)

    tasks._encoded = encoded_four


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        shutil.copytree(source / "archive", target / "archive", copy_function=os.link)


def cpu_seconds() -> float:
    """CPU of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def floor(source: Path, four: Path) -> float:
    """CPU seconds of decoding the segments and encoding the tables that ``four`` holds, and nothing else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from archiver import segments
    from pipelines import datafiles
    from pipelines.runner import prepare_process
    from pipelines.schema import TABLES

    prepare_process()
    spent = 0.0
    for path in sorted(source.glob("archive/v1/*/*.parquet")):
        data = pa.py_buffer(path.read_bytes())
        before = time.process_time()
        file = segments.open_segment(data, key=path.name)
        segments.read_table(file, key=path.name, row_groups=range(file.num_row_groups))
        spent += time.process_time() - before
    keys = ("session_uid", "session_id", "user_id", "actor", "actor_kind")
    for name in ("sessions", "messages", "interactions", "feedback_summary"):
        for path in sorted((four / "tables" / name / "data").glob("**/*.parquet")):
            repeated = [key for key in keys if key in TABLES[name].schema.names and name != "sessions"]
            rows = pq.ParquetFile(path, read_dictionary=repeated).read()
            before = time.process_time()
            datafiles._encode(TABLES[name], [rows])
            spent += time.process_time() - before
    return spent


def commands(source: Path, target: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """The contestants."""
    jobs = {
        "polars": "polars", "duckdb": "duckdb", "ours, four tables": "four:1", "floor of four tables": "floor",
        "ours, six tables": "six:1", "ours, six tables, 2 workers": "six:2",
    }  # fmt: skip
    if options.json:
        jobs["json.load + from_pylist"] = "pylist"
    if options.spark_python:
        jobs["spark"] = "spark"
    found = {}
    for name, short in jobs.items():
        python = options.spark_python if short == "spark" else sys.executable
        place = target / ("four:1" if short == "floor" else short)
        found[name] = [python, str(Path(__file__)), "--job", short, str(source), str(place)]
    return found


def job(name: str, source: Path, target: Path) -> None:
    """Run one contestant and print its CPU seconds."""
    if name == "floor":
        print("CPU", floor(source, target))
        return
    if name in ("polars", "duckdb", "pylist", "spark"):
        import compact_peers
        import compact_slow_peers

        target.mkdir(parents=True)
        getattr(compact_peers if hasattr(compact_peers, name) else compact_slow_peers, name)(source, target)
    else:
        tables, workers = name.split(":")
        ours(source, target, tables, int(workers))
    print("CPU", cpu_seconds())


def contest(source: Path, target: Path, options: argparse.Namespace) -> dict[str, Measured]:
    """Every contestant ``options.rounds`` times, in turn, after one that is not counted on a small input; medians."""
    import compact_input

    small = source.parent / "input-2000"
    compact_input.generate(small, 2_000)
    if options.json:
        import compact_slow_peers

        for each in (small, source):
            compact_slow_peers.write_json(each)
    found: dict[str, list[Measured]] = {}
    for round_ in range(options.rounds + 1):
        shutil.rmtree(target, ignore_errors=True)
        for name, command in commands(source if round_ else small, target, options).items():
            found.setdefault(name, []).append(measure(command))
    shutil.rmtree(target, ignore_errors=True)
    return {name: _median(runs[1:]) for name, runs in found.items()}


def _median(runs: list[Measured]) -> Measured:
    return Measured(
        statistics.median(r.cpu_seconds for r in runs),
        statistics.median(r.wall_seconds for r in runs),
        int(statistics.median(r.peak_mib for r in runs)),
    )


def report(facts: dict[str, Any], found: dict[str, Measured]) -> None:
    """Print machine, figures and ratios."""
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {facts}"
    )
    print(f"{'':32}{'CPU s':>8}{'wall s':>8}{'MiB':>7}{'/ polars':>10}{'/ duckdb':>10}")
    for name, m in found.items():
        against = [f"{m.cpu_seconds / found[peer].cpu_seconds:>10.2f}" for peer in ("polars", "duckdb")]
        print(f"{name:32}{m.cpu_seconds:>8.1f}{m.wall_seconds:>8.1f}{m.peak_mib:>7}{''.join(against)}")
    one, two = found["ours, six tables"], found["ours, six tables, 2 workers"]
    print(f"two workers against one, wall: {one.wall_seconds / two.wall_seconds:.2f} x")


def incremental(source: Path, facts: dict[str, Any]) -> None:
    """A full run, then one over 1 % new segments without and with late revisions."""
    import compact_input

    from archiver.objects import DirectoryStore
    from archiver.settings import Settings
    from pipelines import compaction

    sys.meta_path.insert(0, NoPandas())
    target = source.parent / "incremental"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "archive", target / "archive", copy_function=os.link)
    settings = Settings(runner={"workers": 1})
    costs = []
    count = max(1, facts["segments"] // 100)
    for step, late in enumerate((None, 0.0, 0.03)):
        for i in range(count if late is not None else 0):
            index = facts["segments"] + (step - 1) * count + i
            sessions = (index + 1) * compact_input.SEGMENT_SESSIONS
            compact_input.write(compact_input.SegmentJob(target, index, sessions, 7, late or 0.0))
        before = cpu_seconds()
        compaction.compact(DirectoryStore(target), settings, now_us=time.time_ns() // 1000)
        costs.append(cpu_seconds() - before)
    full, plain, revised = costs
    share = count / facts["segments"]
    print(f"{share:.0%} new segments: {plain:.2f} s = {plain / full:.1%} of the full run's {full:.1f} s CPU;", end=" ")
    print(f"with 3 % late revisions: {revised:.2f} s = {revised / full:.1%}; 3 % and a second are", end=" ")
    print(f"{0.03 * full + 1:.2f} s")


def main() -> None:
    """Generate, contest, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 sessions, one round")
    parser.add_argument("--sessions", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/sessionlake-bench-compact"))
    parser.add_argument("--only", choices=("contest", "incremental"), help="one part of the two")
    parser.add_argument("--json", action="store_true", help="json.load + from_pylist too")
    parser.add_argument("--spark-python", help="a Python with pyspark; Java must be there")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return job(options.job[0], Path(options.job[1]), Path(options.job[2]))
    import compact_input

    if options.quick:
        options.sessions, options.rounds = 20_000, 1
    sessions = options.sessions
    source = options.directory / f"input-{sessions}"
    facts = compact_input.generate(source, sessions)
    if options.only != "incremental":
        report(facts, contest(source, options.directory / "out", options))
    if options.only != "contest":
        incremental(source, facts)
    return None


if __name__ == "__main__":
    main()
