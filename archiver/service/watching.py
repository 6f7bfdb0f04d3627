"""Watch mode: sweeps for ever, as a well-behaved daemon."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import prometheus_client

from archiver.events import format_time
from archiver.hot import HotStore
from archiver.objects import ObjectStore
from archiver.service.sweeping import SweepReport, sweep
from archiver.settings import Settings
from archiver.telemetry import Metrics, fields

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where a watch tells how it goes; each may be absent.

    Attributes:
        health: JSON file, replaced after every sweep: ok, time, backlog, failures in a row, last error.
        textfile: Prometheus text file for node_exporter's textfile collector, replaced after every sweep.
        port: Prometheus endpoint on ``host``.
    """

    health: Path | None = None
    textfile: Path | None = None
    port: int | None = None
    host: str = "127.0.0.1"


@dataclass(slots=True)
class WatchReport:
    """What a watch did until it was stopped."""

    sweeps: int = 0
    failed_sweeps: int = 0
    sessions_released: int = 0


def watch(
    hot: HotStore,
    store: ObjectStore,
    settings: Settings,
    *,
    now_us: Callable[[], int],
    stop: threading.Event,
    outlets: Outlets | None = None,
    metrics: Metrics | None = None,
    interval_seconds: float = 5.0,
) -> WatchReport:
    """Sweep until ``stop`` is set; the step under way is finished. Segments are sealed when that is worthwhile.

    After a failure the pause doubles up to ``archive.retry_cap_seconds``, with jitter, so that many
    archivers do not return to a recovering storage at the same moment; one probe each pause.
    """
    outlets, metrics, report = outlets or Outlets(), metrics or Metrics(), WatchReport()
    in_a_row = 0
    with _endpoint(outlets, metrics):
        while not stop.is_set():
            swept = sweep(
                hot, store, settings, now_us=now_us(), metrics=metrics, only_when_worthwhile=True, stop=stop.is_set
            )
            report.sweeps += 1
            report.sessions_released += swept.sessions_released
            failed = any(failure.kind != "store_busy" for failure in swept.failures)
            report.failed_sweeps += failed
            for failure in swept.failures:
                log.error("sweep_failed", extra=fields(kind=failure.kind, error=failure.message))
            in_a_row = in_a_row + 1 if failed else 0
            _tell(outlets, metrics, swept, in_a_row, now_us())
            pause = pause_seconds(in_a_row, settings.archive.retry_cap_seconds) if failed else interval_seconds
            stop.wait(pause)
    log.info("watch_stopped", extra=fields(sweeps=report.sweeps, sessions=report.sessions_released))
    return report


def pause_seconds(failures: int, cap_seconds: float) -> float:
    """How long to leave a failing storage alone: doubling from a second up to the cap, the half of it random."""
    full = min(cap_seconds, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 60))
    return full * (0.5 + secrets.randbelow(1 << 20) / (1 << 21))


@contextlib.contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the handlers that were there come back afterwards. Main thread only."""
    stop = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        del frame
        log.info("stop_requested", extra=fields(signal=signal.Signals(number).name))
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _endpoint(outlets: Outlets, metrics: Metrics) -> Iterator[None]:
    if outlets.port is None:
        yield
        return
    server, thread = prometheus_client.start_http_server(outlets.port, addr=outlets.host, registry=metrics.registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _tell(outlets: Outlets, metrics: Metrics, swept: SweepReport, in_a_row: int, now_us: int) -> None:
    """Write health and metrics; a disk that refuses them must not stop the archiving."""
    try:
        if outlets.health is not None:
            _replace(outlets.health, json.dumps(_health(swept, in_a_row, now_us)) + "\n")
        if outlets.textfile is not None:
            prometheus_client.write_to_textfile(str(outlets.textfile), metrics.registry)
    except OSError as error:
        log.warning("outlet_failed", extra=fields(error=str(error)))


def _health(swept: SweepReport, in_a_row: int, now_us: int) -> dict[str, object]:
    return {
        "ok": swept.ok,
        "time": format_time(now_us),
        "backlog": swept.backlog,
        "failures_in_a_row": in_a_row,
        "last_error": swept.failures[0].message if swept.failures else None,
    }


def _replace(path: Path, text: str) -> None:
    tmp = path.with_name(f".{path.name}.{os.getpid()}")
    tmp.write_text(text, "utf-8")
    tmp.replace(path)
