"""Managers with a clock of their own, and the single-file module this API comes from, where it is at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from live import archived_records

from archiver import SessionManager
from archiver.objects import open_store

HOUR_US = 3_600_000_000
START_US = 1_790_000_000_000_000
ORIGINAL = Path(__file__).parents[3] / "shared" / "original" / "session_manager.py"


class Clock:
    """A clock that stands still until told; every reading is one microsecond later than the last."""

    def __init__(self, now_us: int = START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        self.now_us += 1
        return self.now_us

    def forward(self, hours: float) -> None:
        self.now_us += int(hours * HOUR_US)


def texts(session: Any) -> list[str]:
    """The contents of a session's messages."""
    return [message.content for message in session.chat_history]


def archived_ids(manager: SessionManager) -> list[str]:
    """Session ids in the archive as the store knows it."""
    with manager.hot.reader() as connection:
        return [row[0] for row in connection.execute("SELECT session_id FROM archived ORDER BY 1")]


def archived_texts(manager: SessionManager) -> list[list[str]]:
    """The contents of the messages of every archived revision, in the order of their revisions."""
    records = archived_records(open_store(manager.settings.storage))
    ordered = sorted(records, key=lambda record: (record.session_id, record.created_at_us, record.revision))
    return [[message.content or "" for message in record.messages] for record in ordered]


def original_module() -> ModuleType | None:
    """The original single-file session manager, None where it is not at hand."""
    if not ORIGINAL.exists():
        return None
    spec = importlib.util.spec_from_file_location("original_session_manager", ORIGINAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
