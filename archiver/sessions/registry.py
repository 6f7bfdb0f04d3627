"""Which live objects a manager holds, and when it may let one go."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from archiver.sessions.model import Session
from archiver.sessions.tracking import Tracked

CAPACITY: Final = 128
_TRIES: Final = 4


class Registry:
    """Live objects by session id. One that somebody holds or uses, or that has unsaved changes, is never let go."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, Tracked] = OrderedDict()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._objects

    @contextlib.contextmanager
    def locked(self, session_id: str) -> Iterator[Tracked | None]:
        """The object of an id, if there is one, locked for the block."""
        while True:
            with self._lock:
                tracked = self._objects.get(session_id)
                if tracked is None:
                    break
                self._objects.move_to_end(session_id)
            with tracked.lock:
                if not tracked.released:
                    yield tracked
                    return
        yield None

    def keep(self, made: Tracked) -> Session:
        """Keep a new object; another thread's of the same conversation wins, one of an earlier conversation goes."""
        session_id = made.session.session_id
        with self._lock:
            known = self._objects.get(session_id)
            if known is not None and known.session_uid == made.session_uid:
                return known.session
            self._objects[session_id] = made
            self._objects.move_to_end(session_id)
            session = made.session
            if len(self._objects) > self._capacity:
                self._let_some_go()
            return session

    def drop(self, tracked: Tracked) -> None:
        """Forget an object whose conversation ended."""
        with self._lock:
            session_id = tracked.session.session_id
            if self._objects.get(session_id) is tracked:
                del self._objects[session_id]

    def _let_some_go(self) -> None:
        for _ in range(min(_TRIES, len(self._objects))):
            if len(self._objects) <= self._capacity:
                return
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
        tracked.released = held is None
        return tracked.released
    finally:
        tracked.lock.release()
