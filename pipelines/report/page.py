"""The report: everything a store holds, counted, in one HTML file without a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from archiver.events import format_time
from archiver.objects import ObjectStore
from archiver.settings import Settings
from pipelines import lake
from pipelines.report import document
from pipelines.report.cubes import cubes
from pipelines.report.health import archive_health, table_health
from pipelines.report.training import training_sets

_TABLES: Final = ("sessions", "interactions", "nodes", "feedback_summary")
_STYLES: Final = ("uPlot.min.css", "base.css", "report.css")
_SCRIPTS: Final = (
    "uPlot.iife.min.js",
    "theme.js",
    "numbers.js",
    "dom.js",
    "charts.js",
    "training.js",
    "storage.js",
    "report.js",
)


def report(store: ObjectStore, settings: Settings, *, version: int | None = None, now_us: int) -> bytes:
    """One self-contained HTML page about a lake version (the current one by default), as UTF-8.

    A store whose tables were never created gives a page that says so. Reads the columns it counts,
    not the texts; InputError if there is no such version.
    """
    if version is None and not lake.exists(store):
        numbers, pinned = None, None
    else:
        pinned = lake.current(store) if version is None else lake.at_version(store, version)
        tables = {name: lake.dataset(store, name, pinned) for name in _TABLES}
        numbers = cubes(tables, memory_limit_bytes=settings.tables.memory_limit)
    facts = {
        "made": format_time(now_us)[:16],
        "storage": _without_credentials(store.url),
        "numbers": numbers,
        "lake": {"version": pinned.number, "run": pinned.run} if pinned else None,
        "tables": table_health(store, pinned) if pinned else [],
        "archive": archive_health(store, pinned.watermarks if pinned else {}),
        "training": training_sets(store),
    }
    return render(facts)


def render(facts: Mapping[str, Any]) -> bytes:
    """The page about these facts."""
    return document.page(
        title="sessionlake report",
        body=document.asset("report.html"),
        styles=[document.asset(name) for name in _STYLES],
        scripts=[document.asset(name) for name in _SCRIPTS],
        data=document.json_for_script(facts),
    )


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
