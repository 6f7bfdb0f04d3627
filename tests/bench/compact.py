"""Compaction beside Polars and DuckDB: the same tables from the same segments, CPU seconds and memory.

    python tests/bench/compact.py [--quick] [--sessions N] [--rounds N] [--directory DIR] [--only PART]

Every job runs in a process of its own, the contestants in turn; figures are medians. Ours does more than
the others: digests, sorting, exactly-once commits, durable files. "four" leaves graphs out, as they do.
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
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

    prepare_process()  # as the command does
    if tables == "four":
        import compact_plain

        from pipelines.compaction import tasks

        tasks.derive = compact_plain  # type: ignore[attr-defined]
    _link(source, target)
    settings = Settings(runner={"workers": workers})
    report = compaction.compact(DirectoryStore(target), settings, now_us=time.time_ns() // 1000)
    if report.incomplete:
        raise SystemExit(f"incomplete: {report.problems[:3]}")


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        shutil.copytree(source / "archive", target / "archive", copy_function=os.link)


def cpu_seconds() -> float:
    """CPU of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def commands(source: Path, target: Path) -> dict[str, list[str]]:
    """The contestants."""
    python, me = sys.executable, str(Path(__file__))
    return {
        "polars": [python, me, "--job", "polars", str(source), str(target / "polars")],
        "duckdb": [python, me, "--job", "duckdb", str(source), str(target / "duckdb")],
        "ours, four tables": [python, me, "--job", "four:1", str(source), str(target / "four")],
        "ours, six tables": [python, me, "--job", "six:1", str(source), str(target / "six")],
        "ours, six tables, 2 workers": [python, me, "--job", "six:2", str(source), str(target / "six2")],
    }


def job(name: str, source: Path, target: Path) -> None:
    """Run one contestant and print its CPU seconds."""
    if name in ("polars", "duckdb"):
        import compact_peers

        target.mkdir(parents=True)
        getattr(compact_peers, name)(source, target)
    else:
        tables, workers = name.split(":")
        ours(source, target, tables, int(workers))
    print("CPU", cpu_seconds())


def contest(source: Path, target: Path, rounds: int) -> dict[str, Measured]:
    """Every contestant ``rounds`` times, in turn; medians."""
    found: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        for name, command in commands(source, target).items():
            shutil.rmtree(target, ignore_errors=True)
            found.setdefault(name, []).append(measure(command))
    return {name: _median(runs) for name, runs in found.items()}


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
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return job(options.job[0], Path(options.job[1]), Path(options.job[2]))
    import compact_input

    sessions = 20_000 if options.quick else options.sessions
    source = options.directory / f"input-{sessions}"
    facts = compact_input.generate(source, sessions)
    if options.only != "incremental":
        report(facts, contest(source, options.directory / "out", 1 if options.quick else options.rounds))
    if options.only != "contest":
        incremental(source, facts)
    return None


if __name__ == "__main__":
    main()
