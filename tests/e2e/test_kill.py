"""kill -9 in the middle of a sweep and of a compaction, then the same command again: the same tables."""

import shutil
import time

import pytest

from archiver import SessionManager
from pipelines.demo import play

TABLES = {
    "sessions": "session_uid, user_id, n_messages, n_interactions, n_nodes, revision, content_sha256",
    "messages": "session_uid, message_index, role, content",
    "interactions": "session_uid, interaction_index, action_type, node_id, feedback, metadata",
    "nodes": "session_uid, node_id, parent_ids, status, label, n_correct",
    "feedback": "session_uid, interaction_index, label, is_latest",
    "feedback_summary": "grain, day, language, actor_kind, level, action_type, n, n_sessions, n_users",
}
SESSIONS = 300
SHARES = [0.3 + 0.1 * i for i in range(8)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled") / "hot"
    with SessionManager(directory, max_sessions=SESSIONS * 2) as manager:
        play(manager, SESSIONS, lambda _done: None)
    return directory


def contents(sessionlake, where):
    storage = ("--storage", f"file:{where}/lake")
    return {
        table: sessionlake.json("query", f"select {columns} from {table} order by all", *storage)["rows"]
        for table, columns in TABLES.items()
    }


def flags(where):
    return ("--hot", f"{where}/hot", "--storage", f"file:{where}/lake")


def seconds_of(sessionlake, arguments):
    began = time.monotonic()
    sessionlake(*arguments)
    return time.monotonic() - began


def kill_while(sessionlake, arguments, seconds):
    """Start the command again and again, kill each earlier or later in the time an undisturbed one takes."""
    killed = 0
    for share in SHARES:
        process = sessionlake.start(*arguments, SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS="0")
        time.sleep(share * seconds)
        process.kill()
        process.communicate()
        killed += process.returncode != 0
    return killed


def test_the_same_tables_as_an_undisturbed_run(sessionlake, filled, tmp_path):
    sessionlake.environment["SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS"] = "0"
    for name in ("calm", "storm"):
        shutil.copytree(filled, tmp_path / name / "hot")
    for command in ("sweep", "compact"):
        seconds = seconds_of(sessionlake, (command, *flags("calm")))
        assert kill_while(sessionlake, (command, *flags("storm")), seconds) > 0
        sessionlake(command, *flags("storm"))

    calm, storm = contents(sessionlake, "calm"), contents(sessionlake, "storm")
    assert len(calm["sessions"]) == SESSIONS
    assert storm == calm
