"""The tables of ``hot.db`` and the pragmas of a connection.

Times are integer microseconds since 1970-01-01 UTC, booleans 0 or 1.
"""

from __future__ import annotations

import sqlite3
from typing import Final

APPLICATION_ID: Final = 0x534C4831
SCHEMA_VERSION: Final = 2

MESSAGE: Final = 0
INTERACTION: Final = 1
SNAPSHOT: Final = 2
"""event.kind: a superseded graph state; tag is ``graph_snapshot``, content the old state as JSON."""

LIVE: Final = 0
CLOSED: Final = 1

MINUTE_US: Final = 60_000_000
"""Width of session.minute. An index on the exact activity would cost every append 40 %, one on its
minute costs only the first append of a minute."""

AUTOCHECKPOINT: Final = "wal_autocheckpoint=4000"
"""Pages after which a commit empties the WAL, 16 MiB: a checkpoint syncs twice behind the gate, and at SQLite's usual
1,000 pages appends took a tenth longer."""

CONNECTION_PRAGMAS: Final = (
    "foreign_keys=OFF",  # the one deleter of rows (release) deletes children itself; checks cost every append
    "trusted_schema=OFF",
    "synchronous=NORMAL",  # durability.py adds the fdatasync that a promise needs, outside the write lock
    "secure_delete=ON",  # without it deleted texts stay readable in the file
    "temp_store=MEMORY",
    "cache_size=-16000",
    AUTOCHECKPOINT,
    "journal_size_limit=16777216",
)

TABLES: Final = """
CREATE TABLE store(                       -- facts about this store; archiver_id is made once
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session(
  sid INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: objects that are held name their rows by it
  session_uid TEXT NOT NULL,              -- follows from session_id and created_us
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
-- An entry in random order costs the release a page: a session is in one such index at a time.
CREATE UNIQUE INDEX session_live ON session(session_id) WHERE state = 0;
CREATE UNIQUE INDEX session_ended ON session(session_id, created_us) WHERE state = 1;
CREATE INDEX session_due ON session(claimed, minute) WHERE state = 0;
CREATE INDEX session_closed ON session(claimed) WHERE state = 1;
CREATE INDEX session_user ON session(user_id) WHERE state = 0 AND user_id IS NOT NULL;

CREATE TABLE totals(                      -- over all live sessions, kept by triggers: counting a million takes too long
  one INTEGER PRIMARY KEY CHECK(one = 1),
  sessions INTEGER NOT NULL,
  interactions INTEGER NOT NULL,
  verdicts INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO totals(one, sessions, interactions, verdicts) VALUES(1, 0, 0, 0);
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
  sid INTEGER PRIMARY KEY,
  segment INTEGER NOT NULL,
  session_uid TEXT NOT NULL,
  revision INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,              -- events up to this one belong to the claim; -1: none
  reason TEXT NOT NULL CHECK(reason IN ('expired', 'evicted', 'closed')),
  drop_rows INTEGER NOT NULL DEFAULT 0 CHECK(drop_rows IN (0, 1, 2)),  -- 1: deleted, 2: erased; at release no row stays
  frozen INTEGER NOT NULL DEFAULT 0 CHECK(frozen IN (0, 1)),  -- 1: written to since; these are the claimed values:
  user_id TEXT,
  updated_us INTEGER,
  tz_assumed INTEGER,
  language TEXT,
  metadata TEXT,
  graph_state TEXT
) STRICT;
CREATE INDEX claim_segment ON claim(segment);

CREATE TABLE archived(                    -- where every archived revision is
  entry INTEGER PRIMARY KEY,
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
  content_sha256 TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX archived_revision ON archived(session_id, created_us, revision);
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


def configure(connection: sqlite3.Connection) -> None:
    """Set the pragmas every connection needs."""
    for pragma in CONNECTION_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
