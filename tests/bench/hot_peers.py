"""The contestants of the live-store benchmark: ours, three public libraries, and the raw floor under each promise.

Every contestant appends one message to one session per call, and says what such a call survives.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar


class Contestant:
    """One way of storing sessions in a directory."""

    name: ClassVar[str]
    survives: ClassVar[str]
    needs: ClassVar[str | None] = None

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def installed(cls) -> bool:
        """Whether the library is there."""
        if cls.needs is None:
            return True
        try:
            return importlib.util.find_spec(cls.needs) is not None
        except ModuleNotFoundError:
            return False

    def prepare(self, ids: Sequence[str]) -> None:
        """Create sessions; not timed."""

    def append(self, session_id: str, text: str) -> None:
        """Store one message."""
        raise NotImplementedError

    def load(self, session_id: str) -> list[str]:
        """The texts of a session, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Release everything."""


class Ours(Contestant):
    """SessionManager's public calls."""

    name, survives, durability = "sessionlake interval", "SIGKILL; power cut but for 10 ms", "interval"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        from archiver import SessionManager

        self.manager = SessionManager(directory / "sessions", durability=self.durability)  # type: ignore[arg-type]

    def prepare(self, ids: Sequence[str]) -> None:
        for session_id in ids:
            self.manager.get_or_create(session_id, durability="process")

    def append(self, session_id: str, text: str) -> None:
        self.manager.add_message(session_id, "user", text)

    def load(self, session_id: str) -> list[str]:
        session = self.manager.peek(session_id)
        assert session is not None
        return [message.content or "" for message in session.chat_history]

    def close(self) -> None:
        self.manager.close()


class OursPower(Ours):
    name, survives, durability = "sessionlake power", "power cut", "power"


class OursHeld(Ours):
    """The original's way: a held object, add_message on it, save_session."""

    name = "sessionlake held object"

    def append(self, session_id: str, text: str) -> None:
        session = self.manager.get_session(session_id)
        assert session is not None
        session.add_message("user", text)
        self.manager.save_session(session_id)


class RawSqlite(Contestant):
    """The floor for a NORMAL commit behind a gate: two bare statements, no checks, no counters, no objects."""

    name, survives = "raw SQLite + flock", "SIGKILL"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.lock = threading.Lock()
        self.gate = os.open(directory / "gate", os.O_CREAT | os.O_RDWR)
        fcntl.flock(self.gate, fcntl.LOCK_EX)
        self.connection = sqlite3.connect(
            directory / "raw.db", timeout=60, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-16000"):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS s(sid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, "
            "updated_us INTEGER NOT NULL, next_seq INTEGER NOT NULL DEFAULT 0)"
        )
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS e(sid INTEGER NOT NULL, seq INTEGER NOT NULL, ts_us INTEGER NOT NULL, "
            "role TEXT NOT NULL, content TEXT, PRIMARY KEY(sid, seq)) WITHOUT ROWID"
        )
        fcntl.flock(self.gate, fcntl.LOCK_UN)

    def prepare(self, ids: Sequence[str]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany("INSERT OR IGNORE INTO s(id, updated_us) VALUES(?, 0)", [(i,) for i in ids])
        self.connection.execute("COMMIT")

    def append(self, session_id: str, text: str) -> None:
        with self.lock:
            fcntl.flock(self.gate, fcntl.LOCK_EX)
            execute, now_us = self.connection.execute, time.time_ns() // 1000
            execute("BEGIN IMMEDIATE")
            query = "UPDATE s SET next_seq = next_seq + 1, updated_us = ?2 WHERE id = ?1 RETURNING sid, next_seq"
            ((sid, seq),) = execute(query, (session_id, now_us)).fetchall()
            execute("INSERT INTO e VALUES(?, ?, ?, ?, ?)", (sid, seq, now_us, "user", text))
            execute("COMMIT")
            fcntl.flock(self.gate, fcntl.LOCK_UN)

    def load(self, session_id: str) -> list[str]:
        query = "SELECT content FROM e WHERE sid = (SELECT sid FROM s WHERE id = ?) ORDER BY seq"
        return [row[0] for row in self.connection.execute(query, (session_id,))]

    def close(self) -> None:
        self.connection.close()


class RawLog(Contestant):
    """The floor for power safety: one append-only file per process, one fdatasync shared by all who wrote before it."""

    name, survives = "raw shared log", "power cut"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.fd = os.open(directory / f"{os.getpid()}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.lock, self.sync_lock = threading.Lock(), threading.Lock()
        self.written = self.synced = 0

    def append(self, session_id: str, text: str) -> None:
        line = (json.dumps({"s": session_id, "r": "user", "c": text}) + "\n").encode()
        with self.lock:
            os.write(self.fd, line)
            self.written += 1
            mine = self.written
        with self.sync_lock:
            if self.synced < mine:
                upto = self.written
                os.fdatasync(self.fd)
                self.synced = upto

    def load(self, session_id: str) -> list[str]:
        lines = [json.loads(line) for path in sorted(self.directory.glob("*.log")) for line in path.open()]
        return [line["c"] for line in lines if line["s"] == session_id]

    def close(self) -> None:
        os.close(self.fd)


class _Async(Contestant):
    """An asyncio library, driven in one running loop; concurrent callers are tasks of it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()


class OpenAIAgents(_Async):
    """The OpenAI Agents SDK's session store."""

    name, survives, needs = "openai-agents SQLiteSession", "power cut", "agents"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        from agents import SQLiteSession

        self.make, self.sessions = SQLiteSession, {}

    def _session(self, session_id: str) -> Any:
        if session_id not in self.sessions:
            self.sessions[session_id] = self.make(session_id, str(self.directory / "conversations.db"))
        return self.sessions[session_id]

    def prepare(self, ids: Sequence[str]) -> None:
        for session_id in ids:
            self._session(session_id)

    def append(self, session_id: str, text: str) -> None:
        self.wait(self._session(session_id).add_items([{"role": "user", "content": text}]))

    def load(self, session_id: str) -> list[str]:
        return [item["content"] for item in self.wait(self._session(session_id).get_items())]

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()


class GoogleAdk(_Async):
    """The Agent Development Kit's SQLite session service."""

    name, survives, needs = "google-adk SqliteSessionService", "power cut, mostly", "google.adk"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        logging.disable(logging.WARNING)
        from google.adk.events.event import Event
        from google.adk.sessions.sqlite_session_service import SqliteSessionService
        from google.genai import types

        self.event, self.types = Event, types
        self.service = SqliteSessionService(str(directory / "adk.db"))
        self.sessions: dict[str, Any] = {}

    async def _session(self, session_id: str, *, fresh: bool = False) -> Any:
        if fresh or session_id not in self.sessions:
            names = {"app_name": "bench", "user_id": "u", "session_id": session_id}
            found = await self.service.get_session(**names)
            self.sessions[session_id] = found or await self._created(names)
        return self.sessions[session_id]

    async def _created(self, names: dict[str, str]) -> Any:
        try:
            return await self.service.create_session(**names)
        except Exception as error:  # another process was first
            if "AlreadyExists" not in type(error).__name__:
                raise
            return await self.service.get_session(**names)

    def prepare(self, ids: Sequence[str]) -> None:
        for session_id in ids:
            self.wait(self._session(session_id))

    async def _append(self, session_id: str, text: str) -> None:
        for attempt in range(200):
            content = self.types.Content(role="user", parts=[self.types.Part(text=text)])
            try:
                session = await self._session(session_id, fresh=attempt > 0)
                await self.service.append_event(session, self.event(author="user", content=content))
            except Exception as error:
                if "Stale" not in type(error).__name__:
                    raise
            else:
                return
        raise RuntimeError("stale after 200 reloads")

    def append(self, session_id: str, text: str) -> None:
        self.wait(self._append(session_id, text))

    def load(self, session_id: str) -> list[str]:
        session = self.wait(self._session(session_id, fresh=True))
        return [event.content.parts[0].text for event in session.events]


class DiskCache(Contestant):
    """diskcache's own append: push with the session as prefix."""

    name, survives, needs = "diskcache push", "SIGKILL", "diskcache"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        import diskcache

        self.cache = diskcache.Cache(str(directory / "cache"), eviction_policy="none")

    def append(self, session_id: str, text: str) -> None:
        self.cache.push(("user", text), prefix=session_id, retry=True)

    def load(self, session_id: str) -> list[str]:
        low, high = f"{session_id}-", f"{session_id}-~"
        query = "SELECT value, mode FROM Cache WHERE ? < key AND key < ? ORDER BY key"
        import pickle

        return [pickle.loads(value)[1] for value, _ in self.cache._sql(query, (low, high))]

    def close(self) -> None:
        self.cache.close()


CONTESTANTS: dict[str, type[Contestant]] = {
    c.name: c for c in (Ours, OursPower, OursHeld, RawSqlite, RawLog, OpenAIAgents, GoogleAdk, DiskCache)
}
