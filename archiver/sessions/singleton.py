"""The manager that a whole program shares."""

from __future__ import annotations

import threading

from archiver.sessions.manager import SessionManager

_lock = threading.Lock()
_shared: list[SessionManager] = []


def get_session_manager() -> SessionManager:
    """The program's one manager, made from its settings at the first call; safe to call from any thread."""
    with _lock:
        if not _shared:
            _shared.append(SessionManager())
        return _shared[0]
