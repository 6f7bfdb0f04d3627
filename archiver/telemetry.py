"""What sessionlake tells its operators: constant log events and one documented set of counters.

A log line is an event name plus fields, never a formatted sentence, so that it can be searched:
``log.info("segment_released", extra=fields(segment=7, sessions=500))``. Texts of users and
credentials are never fields.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

_FIELDS = "sessionlake_fields"


class CounterName(Enum):
    """Every counter there is: metric name and meaning, the unit is the last word."""

    CLAIMED = ("sessionlake_claimed_sessions", "sessions added to a segment")
    RELEASED = (
        "sessionlake_released_sessions",
        "sessions deleted from the hot store after proof of their archive copy",
    )
    SEGMENTS = ("sessionlake_released_segments", "segments verified in the archive and released")
    PUSH_ATTEMPTS = ("sessionlake_push_attempts", "PUT requests sent for segments")
    PUSH_FAILURES = ("sessionlake_push_failures", "pushes whose segment was not verified afterwards")
    SWEEP_FAILURES = ("sessionlake_sweep_failures", "sweeps that ended with an error")
    PUSHED_BYTES = ("sessionlake_pushed_bytes", "bytes of verified segments")


class GaugeName(Enum):
    """Every gauge there is: metric name and meaning."""

    BACKLOG = ("sessionlake_backlog_sessions", "expired sessions not yet released")
    OLDEST_EXPIRED = ("sessionlake_oldest_expired_seconds", "how long the oldest unarchived session has been expired")
    SPOOL = ("sessionlake_spool_bytes", "bytes of segments waiting in the spool")
    LAST_SUCCESS = ("sessionlake_last_success_timestamp_seconds", "when the last sweep ended well, Unix time")


class Metrics:
    """The counters and gauges of one program, in a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge  # noqa: PLC0415  log lines need none of it

        self.registry = CollectorRegistry()
        self._counters = {c: Counter(*c.value, registry=self.registry) for c in CounterName}
        self._gauges = {g: Gauge(*g.value, registry=self.registry) for g in GaugeName}

    def add(self, name: CounterName, amount: float = 1) -> None:
        """Add to a counter."""
        self._counters[name].inc(amount)

    def set(self, name: GaugeName, value: float) -> None:
        """Set a gauge."""
        self._gauges[name].set(value)

    def value(self, name: CounterName) -> float:
        """The counter's present value."""
        return float(self._counters[name]._value.get())


def fields(**values: Any) -> dict[str, Mapping[str, Any]]:
    """The ``extra`` of a log call: fields of a constant event name."""
    return {_FIELDS: values}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; an exception becomes the field ``error``."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """One line for people: time, level, event, key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        when = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        pairs = " ".join(f"{k}={v}" for k, v in getattr(record, _FIELDS, {}).items())
        line = f"{when} {record.levelname.lower():7} {record.getMessage()} {pairs}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(*, as_json: bool, level: str) -> None:
    """Send the project's log lines to standard error; other libraries' loggers are left alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    for name in ("archiver", "pipelines"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
