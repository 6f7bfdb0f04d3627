"""What the live store must reach in the benchmark, and what it measured: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Cells = Mapping[str, Mapping[str, Mapping[str, float]]]
OURS, POWER = "sessionlake interval", "sessionlake power"
RAW, LOG = "raw SQLite + flock", "raw shared log"
OPENAI, ADK, CACHE = "openai-agents SQLiteSession", "google-adk SqliteSessionService", "diskcache push"


class Bar(NamedTuple):
    """One promise: a figure that must be at least, or with ``most`` at most, the bar."""

    what: str
    bar: float
    figure: Callable[[Cells], float]
    most: bool = False


def ratio(cell: str, ours: str, other: str) -> Callable[[Cells], float]:
    """Our appends a second over another's in the same cell."""
    return lambda cells: cells[cell][ours]["ops/s"] / cells[cell][other]["ops/s"]


def value(cell: str, name: str, column: str, unit: float = 1) -> Callable[[Cells], float]:
    """One column of one contestant."""
    return lambda cells: cells[cell][name][column] / unit


BARS = (
    Bar("interval / raw SQLite", 0.7, ratio("interval", OURS, RAW)),
    Bar("interval / openai-agents", 10, ratio("interval", OURS, OPENAI)),
    Bar("interval / diskcache", 1, ratio("interval", OURS, CACHE)),
    Bar("power, 1 caller / raw log", 0.7, ratio("power-1", POWER, LOG)),
    Bar("power, 1 caller / openai-agents", 1.5, ratio("power-1", POWER, OPENAI)),
    Bar("power, 1 caller / google-adk", 8, ratio("power-1", POWER, ADK)),
    Bar("power, 16 threads / raw log", 0.85, ratio("power-16-threads", POWER, LOG)),
    Bar("power, 4 processes / raw log", 0.45, ratio("power-4-processes", POWER, LOG)),
    Bar("power, 4 processes / openai-agents", 4, ratio("power-4-processes", POWER, OPENAI)),
    Bar("power, 4 processes / google-adk", 8, ratio("power-4-processes", POWER, ADK)),
    Bar("4 processes, one session, interval: p99 ms", 10, value("one-session", OURS, "p99 us", 1000), most=True),
    Bar("4 processes, one session, power: p99 ms", 10, value("one-session", POWER, "p99 us", 1000), most=True),
    Bar("4 processes, one session: lost", 0, value("one-session", OURS, "lost"), most=True),
    Bar("4 processes, one session: out of order", 0, value("one-session", OURS, "disorder"), most=True),
    Bar("append at message 10,000 / at 100", 1.2, value("growth", OURS, "late/early"), most=True),
    Bar("load 20 messages: us", 100, value("load", OURS, "20 us"), most=True),
    Bar("load 1,000 messages: us", 2500, value("load", OURS, "1,000 us"), most=True),
    Bar("disk: MB per 1,000 messages", 0.6, value("load", OURS, "MB per 1,000"), most=True),
    Bar("1,000,000 sessions, list: ms", 100, value("million", OURS, "list ms"), most=True),
    Bar("1,000,000 sessions, stats: ms", 100, value("million", OURS, "stats ms"), most=True),
    Bar("1,000,000 sessions, claim of 500: ms", 100, value("million", OURS, "claim 500 ms"), most=True),
    Bar("1,000,000 sessions, append in a sweep: p99 ms", 10, value("million", OURS, "append p99 ms"), most=True),
)


def table(cells: Cells) -> str:
    """``what | measured | bar`` for everything that was measured."""
    lines = [f"{'what':46} | {'measured':>9} | bar"]
    for bar in BARS:
        try:
            found = bar.figure(cells)
        except KeyError:  # that cell was not run, or that peer is not installed
            continue
        kept = found <= bar.bar if bar.most else found >= bar.bar
        sign = "at most" if bar.most else "at least"
        lines.append(f"{bar.what:46} | {found:9,.2f} | {sign} {bar.bar:g}{'' if kept else '  MISSED'}")
    return "\n".join(lines)
