"""Settings: file < environment < flags, and errors that name key, place and remedy."""

import pytest

from archiver.errors import SettingsError
from archiver.settings import load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    import os

    for name in [n for n in os.environ if n.startswith("SESSIONLAKE_")]:
        monkeypatch.delenv(name)


def write(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text)
    return path


def test_later_sources_win_also_with_zero_and_empty(tmp_path, monkeypatch):
    path = write(tmp_path, "[hot]\nsession_max_age_hours = 5\nmax_sessions = 7\n[tables]\nmemory_limit = '512 MiB'\n")
    monkeypatch.setenv("SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS", "0.5")
    settings = load_settings(path, {"hot.session_max_age_hours": 0})
    assert settings.hot.session_max_age_hours == 0
    assert settings.hot.max_sessions == 7
    assert settings.tables.memory_limit == 512 * 1024**2
    assert load_settings(path).hot.session_max_age_hours == 0.5


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().hot.max_sessions = 3


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("[hot]\nmax_session = 1", ["hot.max_session", "s.toml", "max_sessions"]),
        ("[hott]\nmax_sessions = 1", ["hott", "s.toml", "archive, exports, hot"]),
        ("[hot]\nmax_sessions = 'many'", ["hot.max_sessions", "s.toml", "'many'"]),
        ("[storage]\nurl = 'ftp://x'", ["storage.url", "s3://bucket/prefix", "ftp://x"]),
        ("[tables]\nmemory_limit = '1 parsec'", ["tables.memory_limit", "512 MiB", "parsec"]),
        ("[time]\nassume_tz = 'Mars/Base'", ["time.assume_tz", "Europe/Berlin", "Mars/Base"]),
        ("[hot]\ndurability = 'maybe'", ["hot.durability", "'process', 'interval' or 'power'"]),
        ("max_sessions = 1", ["max_sessions", "outside a section"]),
        ("[hot", ["s.toml", "not TOML"]),
    ],
)
def test_a_wrong_file_is_named_with_key_and_remedy(tmp_path, text, needles):
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    for needle in needles:
        assert needle in str(caught.value)


def test_a_wrong_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv("SESSIONLAKE_HOT__MAX_SESSIONS", "-1")
    with pytest.raises(SettingsError, match="SESSIONLAKE_HOT__MAX_SESSIONS"):
        load_settings()
    monkeypatch.delenv("SESSIONLAKE_HOT__MAX_SESSIONS")
    monkeypatch.setenv("SESSIONLAKE_NOPE__X", "1")
    with pytest.raises(SettingsError, match="nope"):
        load_settings()


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("storage.endpoint_url", "https://AKIAEXAMPLE:hunter2@s3.example.com"),
        ("storage.url", "s3://AKIAEXAMPLE:hunter2@bucket/lake"),
    ],
)
def test_credentials_are_no_settings_and_are_not_repeated(key, value):
    with pytest.raises(SettingsError, match="boto3's own chain") as caught:
        load_settings(flags={key: value})
    assert "hunter2" not in str(caught.value)
    assert "AKIAEXAMPLE" not in str(caught.value)
