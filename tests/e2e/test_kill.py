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


def kill_while(sessionlake, arguments, delays):
    killed = 0
    for delay in delays:
        process = sessionlake.start(*arguments, SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS="0")
        time.sleep(delay)
        process.kill()
        process.communicate()
        killed += process.returncode != 0
    return killed


def test_the_same_tables_as_an_undisturbed_run(sessionlake, filled, tmp_path):
    sessionlake.environment["SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS"] = "0"
    for name in ("calm", "storm"):
        shutil.copytree(filled, tmp_path / name / "hot")
    sessionlake("sweep", *flags("calm"))
    sessionlake("compact", *flags("calm"))

    delays = [0.6 + 0.1 * i for i in range(8)]
    assert kill_while(sessionlake, ("sweep", *flags("storm")), delays) > 0
    sessionlake("sweep", *flags("storm"))
    assert kill_while(sessionlake, ("compact", *flags("storm")), delays) > 0
    sessionlake("compact", *flags("storm"))

    calm, storm = contents(sessionlake, "calm"), contents(sessionlake, "storm")
    assert len(calm["sessions"]) == SESSIONS
    assert storm == calm
