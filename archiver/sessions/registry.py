"""Which live objects a manager holds, and when it may let one go."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Final

from archiver.sessions.tracking import Tracked

CAPACITY: Final = 256
_TRIES: Final = 4


class Registry:
    """Live objects by session id. One that somebody holds, or that has unsaved changes, is never let go."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, Tracked] = OrderedDict()

    def get(self, session_id: str) -> Tracked | None:
        """The object of an id, if there is one."""
        with self._lock:
            found = self._objects.get(session_id)
            if found is not None:
                self._objects.move_to_end(session_id)
            return found

    def put(self, made: Tracked) -> Tracked:
        """Keep a new object; another thread's of the same conversation wins, one of an earlier conversation goes."""
        session_id = made.session.session_id
        with self._lock:
            known = self._objects.get(session_id)
            if known is not None and known.session_uid == made.session_uid:
                return known
            self._objects[session_id] = made
            self._objects.move_to_end(session_id)
            if len(self._objects) > self._capacity:
                self._let_some_go()
            return made

    def drop(self, tracked: Tracked) -> None:
        """Forget an object whose conversation ended."""
        with self._lock:
            session_id = tracked.session.session_id
            if self._objects.get(session_id) is tracked:
                del self._objects[session_id]

    def all(self) -> list[Tracked]:
        """All objects, the least recently used first."""
        with self._lock:
            return list(self._objects.values())

    def _let_some_go(self) -> None:
        for _ in range(min(_TRIES, len(self._objects) - self._capacity + 1)):
            session_id, tracked = self._objects.popitem(last=False)
            if not _release(tracked):
                self._objects[session_id] = tracked


def _release(tracked: Tracked) -> bool:
    """Let go of the object and see whether it was ours alone; whoever else holds it may still change it."""
    if not tracked.lock.acquire(blocking=False):
        return False
    try:
        if tracked.has_changes():
            return False
        alive = weakref.ref(tracked.session)
        del tracked.session
        held = alive()
        if held is not None:
            tracked.session = held
            return False
        return True
    finally:
        tracked.lock.release()
