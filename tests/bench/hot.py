"""The live store beside its peers and beside the raw floor, in one run: medians and ratios.

    python tests/bench/hot.py [--quick] [--only CELL,…] [--rounds N] [--seconds S] [--out FILE]

Contestants take turns within a round, each in a process and a directory of its own. Peers that are
not installed (openai-agents, google-adk, diskcache) are left out, and said to be.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from hot_bars import ADK, CACHE, LOG, OPENAI, OURS, POWER, RAW, table  # noqa: E402  beside this file, which is run as a program
from hot_peers import CONTESTANTS, Contestant  # noqa: E402

Result = dict[str, float]
TEXT = ("The reasoning node weighs evidence; the user marked branch 7 as partial and asked for sources.\n" * 5)[:400]
HELD = "sessionlake held object"


def main() -> int:
    """Run the cells, print every table, and return 0; judging the ratios is the reader's."""
    arguments = _arguments()
    print(_machine(), flush=True)
    missing = [name for name, c in CONTESTANTS.items() if not c.installed()]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", flush=True)
    results = {}
    for cell in arguments.only or list(CELLS):
        names, run = CELLS[cell]
        results[cell] = _rounds(cell, [n for n in names if n not in missing], run, arguments)
        _print_cell(cell, results[cell])
    if arguments.out:
        results = _merged(Path(arguments.out), results)
    print(f"\n{table(results)}")
    return 0


def _merged(out: Path, results: dict[str, dict[str, Result]]) -> dict[str, dict[str, Result]]:
    """Put these cells into the file of earlier runs, so that a long run can be made in pieces."""
    known = json.loads(out.read_text())["cells"] if out.exists() else {}
    out.write_text(json.dumps({"machine": _machine(), "cells": known | results}, indent=1))
    return known | results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"cells: {', '.join(CELLS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="time of one contestant in one cell")
    parser.add_argument("--directory", help="where the stores are made (default: a temporary directory)")
    parser.add_argument("--out", help="JSON file of all results; what an earlier run left in it is kept")
    arguments = parser.parse_args()
    unknown = set(arguments.only or ()) - set(CELLS)
    if unknown:
        parser.error(f"--only: no such cell {', '.join(sorted(unknown))}; there are {', '.join(CELLS)}")
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.4
    return arguments


def _machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, kernel {platform.release()}, load {os.getloadavg()[0]:.1f}"
    )


# ------------------------------------------------------------------ running


def _rounds(
    cell: str, names: list[str], run: Callable[..., Result], arguments: argparse.Namespace
) -> dict[str, Result]:
    collected: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            collected[name].append(_in_process(run, name, arguments))
    return {
        name: {key: statistics.median(r[key] for r in results) for key in results[0]}
        for name, results in collected.items()
    }


def _in_process(run: Callable[..., Result], name: str, arguments: argparse.Namespace) -> Result:
    directory = Path(tempfile.mkdtemp(prefix="bench-hot-", dir=arguments.directory))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    try:
        process = context.Process(target=_child, args=(run, name, directory, arguments.seconds, queue))
        process.start()
        outcome = queue.get(timeout=600)
        process.join()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if isinstance(outcome, str):
        raise RuntimeError(f"{name}: {outcome}")
    return outcome  # type: ignore[no-any-return]


def _child(run: Callable[..., Result], name: str, directory: Path, seconds: float, queue: Any) -> None:
    try:
        queue.put(run(name, directory, seconds))
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")
        raise


def _print_cell(cell: str, results: dict[str, Result]) -> None:
    print(f"\n{cell}: {globals()[CELLS[cell][1].__name__].__doc__}")
    columns = list(next(iter(results.values())))
    print(f"  {'':32}" + "".join(f"{column:>14}" for column in columns))
    for name, result in results.items():
        print(f"  {name:32}" + "".join(f"{result[column]:>14,.1f}" for column in columns))
    first = next(iter(results))
    for name, result in list(results.items())[1:]:
        ratio = results[first][columns[0]] / result[columns[0]] if result[columns[0]] else float("inf")
        print(f"  {first} / {name}: {ratio:.2f} in {columns[0]}")
    sys.stdout.flush()


# ------------------------------------------------------------------ cells


def _timed(contestant: Contestant, ids: list[str], seconds: float, prefix: str = "") -> list[float]:
    """Append round robin for so long; returns the time of each call in seconds."""
    times: list[float] = []
    clock = time.perf_counter
    started = clock()
    i = 0
    while True:
        before = clock()
        contestant.append(ids[i % len(ids)], f"{prefix}{i} {TEXT}")
        after = clock()
        times.append(after - before)
        i += 1
        if after - started > seconds:
            return times


def _figures(times: list[float], elapsed: float) -> Result:
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]  # noqa: E731
    return {"ops/s": len(times) / elapsed, "p50 us": at(0.5) * 1e6, "p99 us": at(0.99) * 1e6}


def one_caller(name: str, directory: Path, seconds: float) -> Result:
    """One thread, messages of 400 bytes, 1,000 sessions round robin."""
    ids = [f"s{i}" for i in range(1000)]
    contestant = CONTESTANTS[name](directory)
    contestant.prepare(ids)
    times = _timed(contestant, ids, seconds)
    assert sum(len(contestant.load(i)) for i in ids[:20]) == sum(len(range(k, len(times), 1000)) for k in range(20))
    figures = _figures(times, sum(times))
    figures["open files"] = len(list(Path("/proc/self/fd").iterdir()))
    contestant.close()
    return figures


def sixteen_threads(name: str, directory: Path, seconds: float) -> Result:
    """Sixteen threads, 1,000 sessions."""
    ids = [f"s{i}" for i in range(1000)]
    contestant = CONTESTANTS[name](directory)
    contestant.prepare(ids)
    found: list[list[float]] = []
    run = lambda k: found.append(_timed(contestant, ids[k::16], seconds, f"t{k}:"))  # noqa: E731
    threads = [threading.Thread(target=run, args=(k,)) for k in range(16)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    contestant.close()
    return _figures([t for times in found for t in times], elapsed)


def _writer(name: str, directory: Path, ids: list[str], seconds: float, k: int, barrier: Any, queue: Any) -> None:
    contestant = CONTESTANTS[name](directory)
    contestant.prepare(ids)
    barrier.wait()
    times = _timed(contestant, ids, seconds, f"p{k}:")
    queue.put(times)
    contestant.close()


def _four(name: str, directory: Path, seconds: float, ids: Callable[[int], list[str]]) -> list[list[float]]:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(4), context.Queue()
    CONTESTANTS[name](directory).close()
    arguments = [(name, directory, ids(k), seconds, k, barrier, queue) for k in range(4)]
    processes = [context.Process(target=_writer, args=a) for a in arguments]
    for process in processes:
        process.start()
    found = [queue.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return found


def four_processes(name: str, directory: Path, seconds: float) -> Result:
    """Four processes, 250 sessions each, one store."""
    found = _four(name, directory, seconds, lambda k: [f"p{k}s{i}" for i in range(250)])
    return _figures([t for times in found for t in times], seconds)


def one_session(name: str, directory: Path, seconds: float) -> Result:
    """Four processes on ONE session: what is lost, and in what order."""
    found = _four(name, directory, seconds, lambda k: ["shared"])
    figures = _figures([t for times in found for t in times], seconds)
    contestant = CONTESTANTS[name](directory)
    texts = [text.split(" ")[0] for text in contestant.load("shared")]
    contestant.close()
    figures["lost"] = sum(map(len, found)) - len(texts)
    by_writer = [[int(t.partition(":")[2]) for t in texts if t.startswith(f"p{k}:")] for k in range(4)]
    figures["disorder"] = sum(numbers != sorted(numbers) for numbers in by_writer)
    return figures


def long_history(name: str, directory: Path, seconds: float) -> Result:
    """Appends to one session around message 100 and around message 10,000: median of 300, and their ratio."""
    contestant = CONTESTANTS[name](directory)
    contestant.prepare(["early", "late"])
    for i in range(100):
        contestant.append("early", f"{i} {TEXT}")
    for i in range(10_000):
        contestant.append("late", f"{i} {TEXT}")
    early, late = [], []
    for i in range(300):  # in turns, so that a noisy moment hits both
        for session_id, times in (("early", early), ("late", late)):
            before = time.perf_counter()
            contestant.append(session_id, f"x{i} {TEXT}")
            times.append(time.perf_counter() - before)
    contestant.close()
    first, last = statistics.median(early) * 1e6, statistics.median(late) * 1e6
    return {"late/early": last / first, "at 100 us": first, "at 10,000 us": last}


def loading(name: str, directory: Path, seconds: float) -> Result:
    """Loading whole sessions as typed objects, store open: median of 50; and disk per 1,000 messages."""
    empty = _size(name, directory / "empty")
    contestant = CONTESTANTS[name](directory)
    contestant.prepare(["short", "long"])
    for i in range(20):
        contestant.append("short", f"{i} {TEXT}")
    for i in range(1000):
        contestant.append("long", f"{i} {TEXT}")
    figures: Result = {}
    gc.collect()
    for session_id, label in (("short", "20 us"), ("long", "1,000 us")):
        times = []
        for _ in range(50):
            before = time.perf_counter()
            contestant.load(session_id)
            times.append(time.perf_counter() - before)
        figures[label] = statistics.median(times) * 1e6
    contestant.close()
    figures["MB per 1,000"] = (_bytes_in(directory) - 2 * empty) / 1.02 / 1e6
    return figures


def _size(name: str, directory: Path) -> int:
    """What a store takes before it holds anything."""
    directory.mkdir()
    CONTESTANTS[name](directory).close()
    return _bytes_in(directory)


def _bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def a_million(name: str, directory: Path, seconds: float) -> Result:
    """1,000,000 sessions, a tenth of them expired: lists, counts, claims, and appends while a sweep claims."""
    from hot_million import measure

    return measure(directory, seconds)


CELLS: dict[str, tuple[list[str], Callable[..., Result]]] = {
    "interval": ([OURS, RAW, CACHE, OPENAI, HELD], one_caller),
    "power-1": ([POWER, LOG, OPENAI, ADK], one_caller),
    "power-16-threads": ([POWER, LOG, OPENAI], sixteen_threads),
    "power-4-processes": ([POWER, LOG, OPENAI, ADK], four_processes),
    "one-session": ([OURS, POWER, CACHE, OPENAI, ADK], one_session),
    "growth": ([OURS, HELD], long_history),
    "load": ([OURS, RAW, OPENAI, ADK, CACHE], loading),
    "million": ([OURS], a_million),
}


if __name__ == "__main__":
    sys.exit(main())
