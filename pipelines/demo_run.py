"""The demo's steps and what it prints; every number is counted from what was done."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from archiver import service
from archiver.console import Console
from archiver.errors import StorageError
from archiver.objects import ObjectStore, open_store
from archiver.program import human_bytes, own_name, per_second, plural, shown_url
from archiver.sessions import SessionManager
from archiver.settings import Settings
from pipelines import compaction, demo, exports, query

_SUMMARY: Final = """
    select language, n_sessions as sessions, n as verdicts, correct, partial, incorrect,
           rate_correct as rate, rate_correct_low as low, rate_correct_high as high
    from feedback_summary
    where grain = 'all_actions' and actor_kind = 'human' and level = 'step'
      and day = (select max(day) from feedback_summary)
    order by verdicts desc, language
"""


def show(console: Console, settings: Settings, *, sessions: int, clock: Callable[[], int]) -> None:
    """Play, sweep, compact, summarise, export, and say what to try next."""
    store = open_store(settings.storage)
    played = _live(console, settings, sessions)
    swept = _sweep(console, settings, store, clock)
    compacted = compaction.compact(store, settings, now_us=clock())
    rows = ", ".join(f"{n:,} {table}" for table, n in compacted.rows_added.items())
    console.line(f"3. Tables    {rows} in {compacted.seconds:.1f} s")
    summary = query.query(store, settings, _SUMMARY).to_pylist()
    _show_summary(console, summary)
    exported = exports.export(store, settings, "preferences", now_us=clock())
    splits = ", ".join(f"{n:,} {split}" for split, n in exported.rows.items())
    console.line(f"4. Training  preferences: {exported.n_rows:,} pairs ({splits})")
    left_out = sum(exported.rejected.values()) + sum(exported.dropped.values())
    console.line(f"             {left_out:,} candidates gave no pair, each with its reason beside the files. One pair:")
    _show_pair(console, store, exported)
    _show_next(console, settings, exported.url)
    console.result({"played": played, "swept": swept, "compacted": compacted, "summary": summary, "exported": exported})


def _live(console: Console, settings: Settings, sessions: int) -> demo.Played:
    with SessionManager.from_settings(settings) as manager, console.progress("playing sessions") as progress:
        played = demo.play(manager, sessions, progress)
    appends = played.messages + played.interactions
    console.line(
        f"1. Live      {played.sessions:,} sessions of {played.users} users in {played.languages} languages: "
        f"{played.messages:,} messages, {played.interactions:,} interactions"
    )
    console.line(
        f"             from {played.threads} threads in {played.seconds:.1f} s: "
        f"{per_second(appends, played.seconds):,} appends a second, feedback safe against power loss"
    )
    return played


def _sweep(console: Console, settings: Settings, store: ObjectStore, clock: Callable[[], int]) -> service.SweepReport:
    time.sleep(demo.MAX_AGE_SECONDS)  # the sessions really expire
    with SessionManager.from_settings(settings) as manager:
        report = service.sweep(manager.hot, store, settings, now_us=clock())
    if report.failures:
        raise StorageError(report.failures[0].message, operation="demo", key=store.url)
    console.line(
        f"2. Archive   {report.sessions_released:,} expired sessions in {plural(report.segments, 'segment')} "
        f"({human_bytes(report.bytes)}), verified, then deleted from the live store"
    )
    return report


def _show_summary(console: Console, summary: list[dict[str, Any]]) -> None:
    console.line()
    rows = [
        (
            row["language"], row["sessions"], row["verdicts"], row["correct"], row["partial"], row["incorrect"],
            f"{row['rate']:.0%}", f"{row['low']:.0%} … {row['high']:.0%}",
        )
        for row in summary
    ]  # fmt: skip
    columns = ("language", "sessions", "verdicts", "correct", "partial", "incorrect", "rate", "95% interval")
    console.table(columns, rows, title="Verdicts of people on reasoning steps")
    console.line()


def _show_pair(console: Console, store: ObjectStore, exported: exports.ExportReport) -> None:
    name = next(name for name in exported.files if name.startswith("train-"))
    pairs = pq.read_table(pa.BufferReader(store.get(f"{exported.key}/{name}")), use_threads=False)
    pair = min(pairs.to_pylist(), key=lambda row: (row["language"] != "en", row["prompt"][-1]["content"]))
    for part in ("prompt", "chosen", "rejected"):
        text = pair[part][-1]["content"].replace("\n", " ")
        console.line(f"             {part:9} {text}")


def _show_next(console: Console, settings: Settings, export_url: str) -> None:
    storage, command = settings.storage.url, own_name()
    console.line()
    console.line(f"The training set is in {shown_url(export_url)}. Try next:")
    console.line(f'  {command} query "from feedback_summary limit 5" --storage {storage}')
    console.line(f"  {command} export stepwise --storage {storage}")
    console.line(f"  {command} sessions show demo-00007 --hot {settings.hot.path} --storage {storage}")
