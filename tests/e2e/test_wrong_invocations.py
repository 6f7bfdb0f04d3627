"""A hundred wrong invocations and broken settings: each exits 2 with one line that names what and where."""

import itertools

import pytest

from archiver.program import run
from pipelines.cli import program

COMMANDS = (
    "demo", "import", "sweep", "status", "sessions list", "sessions show", "sessions restore", "erase", "verify",
    "compact", "maintain", "query", "sql", "export", "report", "doctor", "bench", "config show", "config check",
)  # fmt: skip

UNKNOWN_OPTION = [([*c.split(), "--nonsense"], "--nonsense") for c in COMMANDS]
UNKNOWN_COMMAND = [([word], word) for word in ("imprt", "sweeep", "complete", "Query", "sessions-list")]
MISSING = [
    ([], "no command given"),
    (["import"], "paths"),
    (["query"], "sql"),
    (["sessions", "show"], "id"),
    (["sessions", "restore"], "id"),
    (["export"], "set"),
    (["sessions"], "command"),
    (["config"], "command"),
]
BAD_VALUES = [
    (["import", "/no/such/file"], "/no/such/file"),
    (["import", "x.jsonl", "--max-rejects", "many"], "many"),
    (["import", "x.jsonl", "--max-rejects", "-1"], "-1"),
    (["import", "x.jsonl", "--assume-tz", "Mars/Base"], "Mars/Base"),
    (["sessions", "list", "--limit", "0"], "0"),
    (["sessions", "list", "--limit", "a"], "a"),
    (["compact", "--runner", "ray"], "ray"),
    (["compact", "--workers", "-3"], "-3"),
    (["query", "select 1", "--version", "x"], "x"),
    (["query", "select 1", "--format", "xml"], "xml"),
    (["export", "poems"], "poems"),
    (["export", "sft", "--since", "yesterday"], "yesterday"),
    (["demo", "--sessions", "0"], "0"),
    (["demo", "--sessions", "lots"], "lots"),
    (["bench", "nothing"], "nothing"),
    (["--config", "/no/such.toml", "status"], "/no/such.toml"),
]
BAD_STORAGE = [
    ([*command.split(), "--storage", url], "storage.url")
    for command, url in itertools.product(
        ("status", "sweep", "compact", "verify", "maintain"),
        ("ftp://x", "lake", "s3:/b", "http://h/b", "s3://", "file:"),
    )
]
BAD_SETTINGS = [
    ("[hot]\nmax_sesions = 3\n", "hot.max_sesions"),
    ("[hot]\nmax_sessions = 0\n", "hot.max_sessions"),
    ("[hot]\nmax_sessions = 1.5\n", "hot.max_sessions"),
    ("[hot]\ndurability = 'total'\n", "hot.durability"),
    ("[hot]\nsession_max_age_hours = -1\n", "hot.session_max_age_hours"),
    ("[hot]\nsession_max_age_hours = 'a day'\n", "hot.session_max_age_hours"),
    ("[hot]\nbusy_timeout_seconds = 0\n", "hot.busy_timeout_seconds"),
    ("[storage]\nurl = 5\n", "storage.url"),
    ("[storage]\nsse = 'rot13'\n", "storage.sse"),
    ("[storage]\nchecksums = 'never'\n", "storage.checksums"),
    ("[storage]\naccess_key = 'AKIA'\n", "storage.access_key"),
    ("[storage]\nworkers = 1000\n", "storage.workers"),
    ("[tables]\nmemory_limit = 'much'\n", "tables.memory_limit"),
    ("[tables]\nmemory_limit = '1 KiB'\n", "tables.memory_limit"),
    ("[tables]\nretention_hours = -1\n", "tables.retention_hours"),
    ("[runner]\nkind = 'spark'\n", "runner.kind"),
    ("[runner]\nworkers = -2\n", "runner.workers"),
    ("[exports]\nconsent_default = 'yes'\n", "exports.consent_default"),
    ("[time]\nassume_tz = 'local'\n", "time.assume_tz"),
    ("[log]\nlevel = 'LOUD'\n", "log.level"),
    ("[archive]\nsegment_sessions = 0\n", "archive.segment_sessions"),
    ("[archive]\nspool_bytes = ''\n", "archive.spool_bytes"),
    ("[archives]\nsegment_sessions = 1\n", "archives"),
    ("max_sessions = 5\n", "max_sessions"),
    ("[hot\n", "s.toml"),
]
CASES = [*UNKNOWN_OPTION, *UNKNOWN_COMMAND, *MISSING, *BAD_VALUES, *BAD_STORAGE]


def test_there_are_a_hundred():
    assert len(CASES) + len(BAD_SETTINGS) >= 100


def check(capsys, arguments, needle):
    code = run(program(), arguments)
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert needle.lower() in err.lower()
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "needle"), CASES, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_wrong_invocation_is_one_line(capsys, monkeypatch, tmp_path, arguments, needle):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("{}\n")
    check(capsys, arguments, needle)


@pytest.mark.parametrize(("text", "needle"), BAD_SETTINGS)
def test_a_broken_settings_file_is_one_line(capsys, monkeypatch, tmp_path, text, needle):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(text)
    check(capsys, ["--config", "s.toml", "config", "check"], needle)
