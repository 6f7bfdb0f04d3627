"""The tables of ``hot.db``: DDL, connection pragmas and forward migrations.

Times are integer microseconds since 1970-01-01 UTC, booleans 0 or 1.
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import Final

from archiver.errors import CorruptDataError

APPLICATION_ID: Final = 0x534C4831
SCHEMA_VERSION: Final = 1

MESSAGE: Final = 0
INTERACTION: Final = 1
SNAPSHOT: Final = 2
"""event.kind: a superseded graph state; tag is ``graph_snapshot``, content the old state as JSON."""

LIVE: Final = 0
CLOSED: Final = 1

MINUTE_US: Final = 60_000_000
"""Width of session.minute. An index on the exact activity would cost every append 40 %, one on its
minute costs only the first append of a minute."""

CONNECTION_PRAGMAS: Final = (
    "foreign_keys=OFF",  # the one deleter of rows (release) deletes children itself; checks cost every append
    "trusted_schema=OFF",
    "synchronous=NORMAL",  # durability.py adds the fdatasync that a promise needs, outside the write lock
    "secure_delete=ON",  # without it deleted texts stay readable in the file
    "temp_store=MEMORY",
    "cache_size=-16000",
    # At 4,000 appends are 1.1 × as fast (a checkpoint syncs twice behind the gate), but a WAL grows for longer,
    # and every fdatasync of a growing file commits the file system's journal: `power` falls from 0.78 to 0.69
    # of a raw log.
    "wal_autocheckpoint=1000",
    "journal_size_limit=16777216",
)

_VERSION_1: Final = """
CREATE TABLE store(                       -- facts about this store; archiver_id is made once
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session(
  sid INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: objects that are held name their rows by it
  session_uid TEXT NOT NULL UNIQUE,
  session_id TEXT NOT NULL CHECK(length(session_id) BETWEEN 1 AND 512),
  user_id TEXT,
  state INTEGER NOT NULL DEFAULT 0 CHECK(state IN (0, 1)),      -- 0 live, 1 closed: waits to be archived
  close_reason TEXT CHECK(close_reason IN ('closed', 'expired')),
  claimed INTEGER NOT NULL DEFAULT 0 CHECK(claimed IN (0, 1)),  -- 1: there is a row in claim
  on_loan INTEGER NOT NULL DEFAULT 0 CHECK(on_loan IN (0, 1)),  -- 1: restored, and nobody has continued it yet
  created_us INTEGER NOT NULL,
  updated_us INTEGER,                     -- what the archive calls updated_at
  last_activity_us INTEGER NOT NULL,      -- what expiry uses; always this host's clock but for imports
  minute INTEGER NOT NULL,                -- last_activity_us / MINUTE_US
  tz_assumed INTEGER NOT NULL DEFAULT 0 CHECK(tz_assumed IN (0, 1)),
  language TEXT,
  title TEXT,                             -- start of the first user message
  next_seq INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 0,     -- +1 with every commit that changed anything but the activity
  rewrites INTEGER NOT NULL DEFAULT 0,    -- +1 with every edit or removal of stored events
  n_messages INTEGER NOT NULL DEFAULT 0,
  n_interactions INTEGER NOT NULL DEFAULT 0,
  fb_correct INTEGER NOT NULL DEFAULT 0,
  fb_incorrect INTEGER NOT NULL DEFAULT 0,
  fb_partial INTEGER NOT NULL DEFAULT 0,
  archived_revision INTEGER NOT NULL DEFAULT 0,  -- highest revision proven to be in the archive
  archived_seq INTEGER NOT NULL DEFAULT -1,      -- last event that revision holds; -1: none
  archived_sha256 TEXT,                          -- content digest of that revision
  restored_us INTEGER,
  quarantined TEXT,                       -- why sweeps leave it alone until a person has looked
  text_bytes INTEGER NOT NULL DEFAULT 0,  -- of its events, so that a claim is bounded without reading them
  metadata TEXT NOT NULL DEFAULT '{}',
  extra TEXT,
  reported TEXT  -- JSON [correct, incorrect, partial] of an import
) STRICT;
CREATE UNIQUE INDEX session_live ON session(session_id) WHERE state = 0;
CREATE INDEX session_id ON session(session_id);
CREATE INDEX session_due ON session(claimed, minute) WHERE state = 0;
CREATE INDEX session_closed ON session(claimed) WHERE state = 1;
CREATE INDEX session_user ON session(user_id) WHERE state = 0 AND user_id IS NOT NULL;

CREATE TABLE totals(                      -- over all live sessions, kept by triggers: counting a million takes too long
  one INTEGER PRIMARY KEY CHECK(one = 1),
  sessions INTEGER NOT NULL,
  interactions INTEGER NOT NULL,
  verdicts INTEGER NOT NULL
) STRICT;
INSERT INTO totals(one, sessions, interactions, verdicts) VALUES(1, 0, 0, 0);
CREATE TRIGGER count_new AFTER INSERT ON session WHEN NEW.state = 0 BEGIN
  UPDATE totals SET sessions = sessions + 1, interactions = interactions + NEW.n_interactions,
    verdicts = verdicts + NEW.fb_correct + NEW.fb_incorrect + NEW.fb_partial;
END;
CREATE TRIGGER count_gone AFTER DELETE ON session WHEN OLD.state = 0 BEGIN
  UPDATE totals SET sessions = sessions - 1, interactions = interactions - OLD.n_interactions,
    verdicts = verdicts - OLD.fb_correct - OLD.fb_incorrect - OLD.fb_partial;
END;
CREATE TRIGGER count_changed
AFTER UPDATE OF state, n_interactions, fb_correct, fb_incorrect, fb_partial ON session BEGIN
  UPDATE totals SET
    sessions = sessions + (NEW.state = 0) - (OLD.state = 0),
    interactions = interactions + (NEW.state = 0) * NEW.n_interactions - (OLD.state = 0) * OLD.n_interactions,
    verdicts = verdicts + (NEW.state = 0) * (NEW.fb_correct + NEW.fb_incorrect + NEW.fb_partial)
      - (OLD.state = 0) * (OLD.fb_correct + OLD.fb_incorrect + OLD.fb_partial);
END;

CREATE TABLE event(
  sid INTEGER NOT NULL,
  seq INTEGER NOT NULL,                   -- rises with commits; gaps are removed events
  kind INTEGER NOT NULL CHECK(kind IN (0, 1, 2)),
  created_us INTEGER NOT NULL,
  tag TEXT NOT NULL,                      -- role or action_type
  content TEXT,
  node_id TEXT,
  feedback TEXT,                          -- one of the three verdicts, or whatever an import held
  language TEXT,
  metadata TEXT,
  client_id TEXT,
  PRIMARY KEY(sid, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX event_client ON event(sid, client_id) WHERE client_id IS NOT NULL;

CREATE TABLE graph_state(                 -- in the session row it would triple the cost of an append
  sid INTEGER PRIMARY KEY,
  state TEXT NOT NULL
) STRICT;

CREATE TABLE segment(                     -- all state of the archive protocol
  segment INTEGER PRIMARY KEY,
  archiver_id TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('open', 'closed', 'verified', 'released')),
  kind TEXT NOT NULL CHECK(kind IN ('live', 'import', 'void')),
  claimed_us INTEGER NOT NULL,            -- archived_at of all its sessions
  n_sessions INTEGER NOT NULL DEFAULT 0,
  membership_digest TEXT,
  file_sha256 TEXT,
  file_bytes INTEGER,
  released_us INTEGER,
  note TEXT,
  last_error TEXT,
  last_error_us INTEGER,
  UNIQUE(archiver_id, sequence)
) STRICT;
CREATE INDEX segment_unreleased ON segment(state) WHERE state <> 'released';

CREATE TABLE claim(                       -- a session of an unreleased segment
  segment INTEGER NOT NULL,
  session_uid TEXT NOT NULL,
  sid INTEGER NOT NULL UNIQUE,
  revision INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,              -- events up to this one belong to the claim; -1: none
  reason TEXT NOT NULL CHECK(reason IN ('expired', 'evicted', 'closed')),
  drop_rows INTEGER NOT NULL DEFAULT 0 CHECK(drop_rows IN (0, 1, 2)),  -- 1: deleted, 2: erased; at release no row stays
  content_sha256 TEXT,                    -- this and the next three: what the build found, for the archived index
  row_group INTEGER,
  n_messages INTEGER,
  n_interactions INTEGER,
  frozen INTEGER NOT NULL DEFAULT 0 CHECK(frozen IN (0, 1)),  -- 1: written to since; these are the claimed values:
  user_id TEXT,
  updated_us INTEGER,
  tz_assumed INTEGER,
  language TEXT,
  metadata TEXT,
  graph_state TEXT,
  PRIMARY KEY(segment, session_uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE archived(                    -- where every archived revision is
  session_uid TEXT NOT NULL,
  revision INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  user_id TEXT,
  created_us INTEGER NOT NULL,
  updated_us INTEGER,
  last_activity_us INTEGER NOT NULL,
  language TEXT,
  title TEXT,
  segment INTEGER NOT NULL,
  row_group INTEGER,                      -- a hint; the reader checks the uid
  reason TEXT NOT NULL CHECK(reason IN ('expired', 'evicted', 'closed', 'imported')),
  content_sha256 TEXT NOT NULL,
  n_messages INTEGER NOT NULL,
  n_interactions INTEGER NOT NULL,
  PRIMARY KEY(session_uid, revision)
) STRICT, WITHOUT ROWID;
CREATE INDEX archived_by_id ON archived(session_id);
CREATE INDEX archived_by_user ON archived(user_id) WHERE user_id IS NOT NULL;
CREATE INDEX archived_evicted ON archived(last_activity_us) WHERE reason = 'evicted';

CREATE TABLE adopted(                     -- files of the original that were taken over, or could not be
  name TEXT PRIMARY KEY,
  at_us INTEGER NOT NULL,
  error TEXT
) STRICT, WITHOUT ROWID;

-- A claimed session keeps the view its claim promised: whoever writes first afterwards saves the old
-- values. Triggers, because a rule that every present and future writer must remember gets forgotten.
CREATE TRIGGER freeze_session AFTER UPDATE OF user_id, updated_us, tz_assumed, language, metadata ON session
WHEN OLD.claimed = 1 BEGIN
  UPDATE claim SET frozen = 1, user_id = OLD.user_id, updated_us = OLD.updated_us, tz_assumed = OLD.tz_assumed,
    language = OLD.language, metadata = OLD.metadata,
    graph_state = (SELECT state FROM graph_state WHERE sid = OLD.sid)
  WHERE sid = OLD.sid AND frozen = 0;
END;
CREATE TRIGGER freeze_new_graph BEFORE INSERT ON graph_state  -- BEFORE: REPLACE deletes without a trigger
WHEN EXISTS (SELECT 1 FROM claim WHERE sid = NEW.sid AND frozen = 0) BEGIN
  UPDATE claim SET frozen = 1, graph_state = (SELECT state FROM graph_state WHERE sid = NEW.sid),
    (user_id, updated_us, tz_assumed, language, metadata) =
      (SELECT user_id, updated_us, tz_assumed, language, metadata FROM session WHERE sid = NEW.sid)
  WHERE sid = NEW.sid;
END;
CREATE TRIGGER freeze_graph AFTER UPDATE ON graph_state
WHEN EXISTS (SELECT 1 FROM claim WHERE sid = OLD.sid AND frozen = 0) BEGIN
  UPDATE claim SET frozen = 1, graph_state = OLD.state,
    (user_id, updated_us, tz_assumed, language, metadata) =
      (SELECT user_id, updated_us, tz_assumed, language, metadata FROM session WHERE sid = OLD.sid)
  WHERE sid = OLD.sid;
END;
CREATE TRIGGER freeze_lost_graph BEFORE DELETE ON graph_state
WHEN EXISTS (SELECT 1 FROM claim WHERE sid = OLD.sid AND frozen = 0) BEGIN
  UPDATE claim SET frozen = 1, graph_state = OLD.state,
    (user_id, updated_us, tz_assumed, language, metadata) =
      (SELECT user_id, updated_us, tz_assumed, language, metadata FROM session WHERE sid = OLD.sid)
  WHERE sid = OLD.sid;
END;
"""

_MIGRATIONS: Final[dict[int, str]] = {0: _VERSION_1}
"""Schema version found → script that leads to the next version."""


def configure(connection: sqlite3.Connection) -> None:
    """Set the pragmas every connection needs."""
    for pragma in CONNECTION_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def migrate(connection: sqlite3.Connection, *, key: str) -> None:
    """Bring the database to SCHEMA_VERSION in one transaction; a newer or foreign file is refused untouched."""
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection, key)
        for version in range(found, SCHEMA_VERSION):
            _run_script(connection, _MIGRATIONS[version])
        if found < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(
                "INSERT OR IGNORE INTO store(name, value) VALUES('archiver_id', ?)", (secrets.token_hex(16),)
            )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, key: str) -> int:
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not empty and application != APPLICATION_ID:
        raise CorruptDataError("is a SQLite database of another program", operation="open store", key=key)
    if version > SCHEMA_VERSION:
        raise CorruptDataError(
            f"has schema version {version}, this program knows up to {SCHEMA_VERSION}",
            operation="open store", key=key, hint="a newer sessionlake wrote it; use that version",
        )  # fmt: skip
    return version


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run statement by statement: ``executescript`` would commit the open transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
