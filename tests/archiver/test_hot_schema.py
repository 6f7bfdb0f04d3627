"""Stores of every released version open, and the schema changes only together with its version.

``python tests/archiver/test_hot_schema.py`` writes the dump of the present version.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest

from archiver import SessionManager
from archiver.errors import StorageError
from archiver.hot import HotStore, migrations, schema

RELEASED = sorted((Path(__file__).parents[1] / "data" / "hot").glob("v*.sql"))
CREATED_US = 1_790_000_000_000_000


def load(dump: Path, directory: Path) -> None:
    directory.mkdir()
    connection = sqlite3.connect(directory / "hot.db")
    connection.executescript(dump.read_text("utf-8"))
    connection.close()


def definitions(directory: Path) -> dict[str, str]:
    with HotStore(directory) as store, store.reader() as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {name: re.sub(r"\s+", " ", re.sub(r"--.*", "", sql)).strip() for name, sql in found}


@pytest.mark.parametrize("dump", RELEASED, ids=lambda path: path.stem)
def test_a_store_of_a_released_version_opens_with_all_it_holds(dump: Path, tmp_path: Path) -> None:
    load(dump, tmp_path / "old")
    HotStore(tmp_path / "new").close()
    assert definitions(tmp_path / "old") == definitions(tmp_path / "new")
    with SessionManager(tmp_path / "old", clock=lambda: CREATED_US + 1_000_000) as manager:
        session = manager.get_session("s")
        assert session is not None
        assert [m.content for m in session.chat_history] == ["hello", "hi"]
        assert session.interactions[0].feedback == "correct"
        assert session.graph_state == {"nodes": [{"id": "n", "content": "x"}]}
        assert session.metadata == {"k": 1}
        manager.add_message("s", "user", "goes on")
        assert len(manager.hot.archiver_id) == 32


def test_what_an_archiver_was_at_when_version_1_ended_goes_on(tmp_path: Path) -> None:
    load(RELEASED[0], tmp_path / "s")
    connection = sqlite3.connect(tmp_path / "s" / "hot.db")
    connection.executescript("""
        UPDATE sqlite_sequence SET seq = 41 WHERE name = 'session';
        INSERT INTO segment(segment, archiver_id, sequence, state, kind, claimed_us)
          SELECT 1, value, 1, 'open', 'live', 0 FROM store WHERE name = 'archiver_id';
        INSERT INTO claim(segment, session_uid, sid, revision, last_seq, reason)
          SELECT 1, session_uid, sid, 1, next_seq - 1, 'expired' FROM session;
        UPDATE session SET claimed = 1;
        INSERT INTO archived(session_uid, revision, session_id, created_us, last_activity_us, segment, reason,
          content_sha256, n_messages, n_interactions) VALUES('u', 1, 'gone', 7, 7, 1, 'expired', 'd', 0, 0);
    """)
    totals = connection.execute("SELECT * FROM totals").fetchall()
    connection.close()
    with SessionManager(tmp_path / "s", clock=lambda: CREATED_US + 1_000_000) as manager:
        with manager.hot.reader() as reader:
            assert reader.execute("SELECT * FROM totals").fetchall() == totals
        [entry] = manager.hot.claims.known_versions("gone", 7)
        assert (entry.session_uid, entry.content_sha256) == ("u", "d")
        manager.create_session("new")
        with manager.hot.reader() as reader:
            assert reader.execute("SELECT sid FROM session WHERE session_id = 'new'").fetchone() == (42,)
        report = manager.cleanup_stale_sessions()
        assert (report.ok, report.sessions_released) == (True, 1)


def test_the_present_version_has_its_dump() -> None:
    assert f"v{schema.SCHEMA_VERSION}" in [dump.stem for dump in RELEASED]
    for dump in RELEASED:
        assert f"user_version={dump.stem[1:]};" in dump.read_text("utf-8")


def test_a_failed_migration_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(RELEASED[-1], tmp_path / "s")
    before = definitions(tmp_path / "s")

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE added(x INTEGER) STRICT")
        connection.execute("CREATE TABLE session(x)")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        patch.setattr(migrations, "_MIGRATIONS", {schema.SCHEMA_VERSION: broken})
        with pytest.raises(StorageError, match="already exists"):
            HotStore(tmp_path / "s")
    assert definitions(tmp_path / "s") == before


def write_dump() -> None:
    """Write the dump of the present version."""
    with tempfile.TemporaryDirectory() as directory:
        with SessionManager(Path(directory) / "s", clock=lambda: CREATED_US) as manager:
            session = manager.create_session("s", user_id="u")
            session.add_message("user", "hello")
            session.metadata["k"] = 1
            manager.save_session("s")
            manager.add_message("s", "assistant", "hi", client_id="c1")
            manager.add_feedback("s", "n", "correct")
            manager.update_graph_state("s", {"nodes": [{"id": "n", "content": "x"}]})
        connection = sqlite3.connect(Path(directory) / "s" / "hot.db")
        lines = [line for line in connection.iterdump() if not line.startswith("PRAGMA")]
        connection.close()
    pragmas = f"PRAGMA application_id={schema.APPLICATION_ID};\nPRAGMA user_version={schema.SCHEMA_VERSION};\n"
    target = Path(__file__).parents[1] / "data" / "hot" / f"v{schema.SCHEMA_VERSION}.sql"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n" + pragmas, "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    write_dump()
