"""The pointer of an export that was cut short between manifest and pointer."""

import json

from archived import put, session

from archiver.settings import load_settings
from pipelines.compaction import compact
from pipelines.exports import export

SETTINGS = load_settings(None, {"runner.workers": 1})
NOW_US = 1_800_000_000_000_000


def test_asking_again_makes_the_missing_pointer(directory_store):
    put(directory_store, 1, sorted((session(n, n_messages=2) for n in range(20)), key=lambda r: r.session_uid))
    compact(directory_store, SETTINGS, now_us=NOW_US)
    first = export(directory_store, SETTINGS, "prompts", now_us=NOW_US)
    directory_store.delete_versions("exports/prompts/latest.json")
    again = export(directory_store, SETTINGS, "prompts", now_us=NOW_US)
    assert again.existed
    assert json.loads(directory_store.get("exports/prompts/latest.json"))["key"] == first.key
