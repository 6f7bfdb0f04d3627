"""The report's numbers are the tables' numbers, however they are folded; its page carries them and nothing else."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pages
import pyarrow as pa
import pytest
import showcase
from archived import ARCHIVER, put, session

from archiver import archive
from archiver.archive import SegmentRef
from archiver.errors import CorruptDataError, InputError
from archiver.objects import DirectoryStore, ObjectStore
from archiver.settings import Settings
from pipelines import compaction, exports, lake
from pipelines.report import document
from pipelines.report.cubes import LABEL_CHARS, PERIODS, cubes
from pipelines.report.health import missing_runs
from pipelines.report.page import report
from pipelines.schema import EXPORTS, FEEDBACK_SUMMARY, INTERACTIONS, NODES, SESSIONS, Dataset, table_with_partition

NOW_US = showcase.NOW_US
LIMIT = 256 * 2**20
SETTINGS = Settings(runner={"workers": 1})
EPOCH = dt.date(1970, 1, 1)


def rows(dataset: Dataset, given: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of a table from the columns that matter; the others hold what their type allows."""
    schema = table_with_partition(dataset)
    return pa.Table.from_pylist([{f.name: _blank(f) for f in schema} | dict(row) for row in given], schema)


def _blank(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_timestamp(field.type) or pa.types.is_date(field.type):
        return EPOCH if pa.types.is_date(field.type) else dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return {"string": "", "bool": False}.get(str(field.type), [] if pa.types.is_list(field.type) else 0)


def tables(
    sessions: Sequence[Mapping[str, Any]] = (),
    interactions: Sequence[Mapping[str, Any]] = (),
    nodes: Sequence[Mapping[str, Any]] = (),
    summary: Sequence[Mapping[str, Any]] = (),
) -> dict[str, pa.Table]:
    return {
        "sessions": rows(SESSIONS, sessions),
        "interactions": rows(INTERACTIONS, interactions),
        "nodes": rows(NODES, nodes),
        "feedback_summary": rows(FEEDBACK_SUMMARY, summary),
    }


def many_sessions(count: int, *, languages: int, days: int) -> list[dict[str, Any]]:
    return [
        {"session_uid": f"u{n:06}", "dt": dt.date(2025, 1, 1) + dt.timedelta(n % days),
         "language": f"l{n % languages:03}", "n_messages": 2, "graph_format": "none"}
        for n in range(count)
    ]  # fmt: skip


def cube_rows(numbers: Mapping[str, Any], cube: str) -> list[dict[str, Any]]:
    """A cube as rows with names instead of codes."""
    columns = numbers["cubes"][cube]
    found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in found:
        for dimension, names in numbers["names"].items():
            if dimension in row:
                row[dimension] = names["values"][row[dimension]]
        row["period"] = EPOCH + dt.timedelta(row["period"])
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    """A made-up lake of 90 sessions over six days."""
    made = DirectoryStore(tmp_path_factory.mktemp("report") / "lake")
    showcase.build(made, showcase.records(90, days=6), segment_sessions=40)
    return made


def test_every_cube_holds_what_the_tables_hold(store: DirectoryStore) -> None:
    numbers = pages.data_of(report(store, SETTINGS, now_us=NOW_US))["numbers"]
    assert numbers["period"] == "day"
    for cube, counts in _counted(store).items():
        found = {_key(row): row for row in cube_rows(numbers, cube)}
        assert set(found) == {key for key, _ in counts}, cube
        for (key, count), expected in _by_count(counts):
            assert found[key].get(count, 0) == expected, (cube, key, count)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("period", "language", "actor_kind", "action", "level")
    return tuple(row[name] for name in names if name in row)


def _by_count(counts: Counter[Any]) -> Iterable[tuple[Any, int]]:
    return counts.items()


def _counted(store: DirectoryStore) -> dict[str, Counter[Any]]:
    """The cubes, counted row by row from the finest tables: feedback itself, not its summary."""
    sessions = lake.scan(store, "sessions").to_pylist()
    language = {s["session_uid"]: s["language"] or "und" for s in sessions}
    counted: dict[str, Counter[Any]] = {name: Counter() for name in ("sessions", "verdicts", "actions", "nodes")}
    for s in sessions:
        key = (s["dt"], language[s["session_uid"]])
        counted["sessions"][key, "sessions"] += 1
        for ours, theirs in (
            ("messages", "n_messages"),
            ("user_messages", "n_user_messages"),
            ("tz_assumed", "tz_assumed"),
        ):
            counted["sessions"][key, ours] += s[theirs]
    for f in lake.scan(store, "feedback").to_pylist():
        if f["is_latest"]:
            key = (f["dt"], f["language"] or "und", f["actor_kind"], f["action_type"], f["level"])
            counted["verdicts"][key, f["label"]] += 1
    for i in lake.scan(store, "interactions").to_pylist():
        counted["actions"][(i["dt"], language[i["session_uid"]], i["actor_kind"], i["action_type"]), "n"] += 1
    for n in lake.scan(store, "nodes").to_pylist():
        key = (n["dt"], language[n["session_uid"]])
        counted["nodes"][key, "nodes"] += 1
        counted["nodes"][key, "ever_pruned"] += n["n_prune"] > 0
        counted["nodes"][key, "returned"] += n["n_prune"] > 0 and n["status"] != "pruned"
        counted["nodes"][key, "injected_kept"] += n["injected"] and n["status"] != "pruned"
        counted["nodes"][key, "judged"] += n["label"] is not None
        counted["nodes"][key, "conflicts"] += n["label"] == "conflict"
    return counted


def test_only_the_full_grain_of_the_summary_is_summed() -> None:
    full = {"grain": "full", "day": "2026-01-05", "language": "en", "actor_kind": "human", "level": "step",
            "action_type": "feedback", "n": 3, "correct": 2, "incorrect": 1}  # fmt: skip
    rolled = full | {"grain": "all", "language": "*", "action_type": "*"}
    numbers = cubes(tables(summary=[full, rolled]), memory_limit_bytes=LIMIT)
    assert numbers["cubes"]["verdicts"]["correct"] == [2]
    assert "*" not in numbers["names"]["language"]["values"]


def test_replaced_graphs_are_no_acts_of_anybody() -> None:
    one = {"session_uid": "u", "actor_kind": "human"}
    acts = [one | {"action_type": name} for name in ("prune", "graph_snapshot", "prune")]
    numbers = cubes(tables(sessions=[{"session_uid": "u"}], interactions=acts), memory_limit_bytes=LIMIT)
    assert [(row["action"], row["n"]) for row in cube_rows(numbers, "actions")] == [("prune", 2)]


def test_days_fold_into_longer_periods_until_the_cubes_fit_and_no_session_is_lost() -> None:
    given = tables(sessions=many_sessions(5_000, languages=19, days=700))
    periods = []
    for max_rows in (20_000, 2_100, 500, 100, 30):
        numbers = cubes(given, memory_limit_bytes=LIMIT, max_rows=max_rows)
        columns = numbers["cubes"]["sessions"]
        assert sum(columns["sessions"]) == 5_000
        assert sum(columns["messages"]) == 10_000
        assert len(columns["period"]) <= max_rows
        periods.append(numbers["period"])
    assert periods == ["day", "week", "month", "year", "decade"]
    assert all(period in PERIODS for period in periods)


def test_rare_languages_share_one_code_and_are_counted() -> None:
    numbers = cubes(tables(sessions=many_sessions(1_000, languages=250, days=1)), memory_limit_bytes=LIMIT)
    names, columns = numbers["names"]["language"], numbers["cubes"]["sessions"]
    assert len(names["values"]) == 100
    assert names["others"] == 150
    assert columns["sessions"][columns["language"].index(100)] == 600
    assert sum(columns["sessions"]) == 1_000


def test_long_names_are_cut_and_still_counted() -> None:
    sessions = [{"session_uid": str(n), "language": "x" * 1_000_000 + str(n)} for n in range(2)]
    numbers = cubes(tables(sessions=sessions), memory_limit_bytes=LIMIT)
    assert numbers["names"]["language"]["values"] == ["x" * LABEL_CHARS]
    assert numbers["cubes"]["sessions"]["sessions"] == [2]


@pytest.mark.parametrize(
    ("days", "max_rows", "expected"),
    [
        ((dt.date(1969, 12, 31), dt.date(1970, 1, 4), dt.date(1970, 1, 5)), 3, ("day", [-1, 3, 4])),
        ((dt.date(1969, 12, 31), dt.date(1970, 1, 4), dt.date(1970, 1, 5)), 2, ("week", [-3, 4])),
        ((dt.date(1969, 12, 10), dt.date(1969, 12, 31), dt.date(1970, 1, 12)), 2, ("month", [-31, 0])),
        ((dt.date(1969, 12, 31), dt.date(9999, 12, 31)), 1, ("century", [-25567, 2896373])),
    ],
)
def test_periods_start_where_people_expect(days: Any, max_rows: int, expected: tuple[str, list[int]]) -> None:
    sessions = [{"session_uid": str(n), "dt": day, "language": "en"} for n, day in enumerate(days)]
    numbers = cubes(tables(sessions=sessions), memory_limit_bytes=LIMIT, max_rows=max_rows)
    assert (numbers["period"], numbers["cubes"]["sessions"]["period"]) == expected


def test_a_million_sessions_stay_a_small_page() -> None:
    n = 1_000_000
    languages = pa.array([f"l{i:02}" for i in range(60)]).take(pa.array([i % 60 for i in range(n)]))
    days = pa.array([dt.date(2024, 1, 1) + dt.timedelta(i) for i in range(900)]).take(
        pa.array([i % 900 for i in range(n)])
    )
    empty = tables()
    blank = {f.name: pa.nulls(n, f.type) if f.nullable else pa.repeat(pa.scalar(_blank(f), f.type), n)
             for f in table_with_partition(SESSIONS)}  # fmt: skip
    blank |= {"language": languages, "dt": days}
    empty["sessions"] = pa.table(blank, table_with_partition(SESSIONS))
    numbers = cubes(empty, memory_limit_bytes=LIMIT)
    assert sum(numbers["cubes"]["sessions"]["sessions"]) == n
    assert len(json.dumps(numbers, separators=(",", ":"))) < 1_000_000


# The page


def test_no_tables_yet_gives_a_page_that_names_the_archive(tmp_path: Path) -> None:
    empty = DirectoryStore(tmp_path / "lake")
    put(empty, 1, [session(1)])
    facts = pages.data_of(report(empty, SETTINGS, now_us=NOW_US))
    assert facts["numbers"] is None
    assert facts["lake"] is None
    assert facts["archive"][0]["waiting"] == 1


def test_an_unknown_version_is_an_input_error(store: DirectoryStore) -> None:
    with pytest.raises(InputError):
        report(store, SETTINGS, version=99, now_us=NOW_US)


def test_an_earlier_version_is_counted_as_it_was(tmp_path: Path) -> None:
    growing = DirectoryStore(tmp_path / "lake")
    for sequence in (1, 2):
        put(growing, sequence, [session(n) for n in range(5 * sequence - 5, 5 * sequence)])
        compaction.compact(growing, SETTINGS, now_us=NOW_US)
    first = lake.current(growing).number - 1
    facts = [pages.data_of(report(growing, SETTINGS, version=v, now_us=NOW_US)) for v in (first, None)]
    assert [sum(f["numbers"]["cubes"]["sessions"]["sessions"]) for f in facts] == [5, 10]
    assert [f["tables"][-1]["rows"] for f in facts] == [5, 10]


def test_every_store_gives_the_same_numbers(any_store: ObjectStore, store: DirectoryStore) -> None:
    showcase.build(any_store, showcase.records(90, days=2), segment_sessions=40)
    found = pages.data_of(report(any_store, SETTINGS, now_us=NOW_US))
    assert sum(found["numbers"]["cubes"]["sessions"]["sessions"]) == 90
    assert sum(found["numbers"]["cubes"]["verdicts"]["correct"]) == sum(
        pages.data_of(report(store, SETTINGS, now_us=NOW_US))["numbers"]["cubes"]["verdicts"]["correct"]
    )
    assert found["storage"] == any_store.url


def test_the_page_is_the_same_for_the_same_lake_and_time(store: DirectoryStore) -> None:
    assert report(store, SETTINGS, now_us=NOW_US) == report(store, SETTINGS, now_us=NOW_US)


def test_only_our_own_scripts_and_styles_are_permitted(store: DirectoryStore) -> None:
    page = report(store, SETTINGS, now_us=NOW_US)
    text = page.decode()
    rules = pages.policy(page)
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == [pages.digest(s) for s in re.findall(r"<script>(.*?)</script>", text, re.DOTALL)]
    assert rules["style-src"] == [pages.digest(s) for s in re.findall(r"<style>(.*?)</style>", text, re.DOTALL)]
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert rules["base-uri"] == rules["form-action"] == ["'none'"]


def test_nothing_in_the_page_points_elsewhere(store: DirectoryStore) -> None:
    for tag, attributes in pages.elements(report(store, SETTINGS, now_us=NOW_US)).tags:
        assert "src" not in attributes
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#") or (tag, attributes["href"]) == ("link", "data:,")


def test_the_page_without_data_is_small(tmp_path: Path) -> None:
    assert len(report(DirectoryStore(tmp_path / "lake"), SETTINGS, now_us=NOW_US)) < 120_000


def test_the_charting_library_is_the_published_file() -> None:
    static = resources.files("pipelines.report") / "static"
    assert hashlib.sha256((static / "uPlot.iife.min.js").read_bytes()).hexdigest() == UPLOT_SHA256
    assert "MIT License" in (static / "LICENSE-uPlot.txt").read_text()


UPLOT_SHA256 = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
"""Of dist/uPlot.iife.min.js in the package uplot 1.6.32."""


@pytest.mark.parametrize(
    "text", ["</script><script>x()</script>", "<!--", "a & b", "\u2028\u2029", "\u202eabc", '"\\', "🙂"]
)
def test_texts_in_the_data_cannot_end_the_script(text: str) -> None:
    written = document.json_for_script({"text": text})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"text": text}


def test_hostile_names_reach_the_page_as_data_only(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    made = DirectoryStore(tmp_path / "lake")
    put(made, 1, [session(1, language=hostile)])
    compaction.compact(made, SETTINGS, now_us=NOW_US)
    page = report(made, SETTINGS, now_us=NOW_US)
    assert hostile[:LABEL_CHARS] in pages.data_of(page)["numbers"]["names"]["language"]["values"]
    assert "img" not in {tag for tag, _ in pages.elements(page).tags}


# Archive and tables


def test_table_health_adds_up(store: DirectoryStore) -> None:
    facts = pages.data_of(report(store, SETTINGS, now_us=NOW_US))
    for row in facts["tables"]:
        assert row["rows"] == lake.scan(store, row["table"]).num_rows, row["table"]
        sizes = [o.size_bytes for o in store.list(f"tables/{row['table']}/data/")]
        assert (row["files"], row["bytes"]) == (len(sizes), sum(sizes)), row["table"]


def test_gaps_voids_and_waiting_segments_are_named(tmp_path: Path) -> None:
    made = DirectoryStore(tmp_path / "lake")
    for sequence in (1, 2, 4, 7, 9):
        put(made, sequence, [session(sequence)])
    compaction.compact(made, SETTINGS, now_us=NOW_US)
    made.create(SegmentRef(ARCHIVER, 8).void_key, b"{}")
    (found,) = pages.data_of(report(made, SETTINGS, now_us=NOW_US))["archive"]
    sizes = [info.size_bytes for _, info in archive.list_segments(made, ARCHIVER)]
    assert found == {
        "archiver": ARCHIVER, "segments": 5, "bytes": sum(sizes), "first": 1, "last": 9, "consumed": 2, "waiting": 3,
        "voids": [8], "gaps": [[3, 3], [5, 6]], "missing": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("present", "expected"),
    [(set(), [(2, 6)]), ({2, 3, 4, 5, 6}, []), ({3, 6}, [(2, 2), (4, 5)]), ({2, 9}, [(3, 6)])],
)
def test_missing_runs(present: set[int], expected: list[tuple[int, int]]) -> None:
    assert missing_runs(present, 2, 6) == expected


# Training sets


def test_sets_that_were_never_exported_say_so(tmp_path: Path) -> None:
    facts = pages.data_of(report(DirectoryStore(tmp_path / "lake"), SETTINGS, now_us=NOW_US))
    assert [(s["set"], s["exported"]) for s in facts["training"]] == [(name, False) for name in EXPORTS]


def test_the_funnel_is_what_the_export_reported(store: DirectoryStore) -> None:
    made = exports.export(store, SETTINGS, "unpaired", now_us=NOW_US)
    facts = pages.data_of(report(store, SETTINGS, now_us=NOW_US))
    found = next(s for s in facts["training"] if s["set"] == "unpaired")
    assert found["splits"] == dict(made.rows)
    assert found["sessions_read"] == 90
    assert {reason: n for what, reason, n in found["left_out"] if what == "candidate"} == dict(made.rejected)
    dropped = {reason: n for what, reason, n in found["left_out"] if what == "row"}
    assert dropped == {reason: n for reason, n in made.dropped.items() if n}
    assert found["rows_left_out"] == sum(dropped.values())
    assert found["version"] == made.version


@pytest.mark.parametrize("pointer", [b"", b"[]", b'{"version": "v"}'])
def test_a_pointer_that_is_none_is_named(tmp_path: Path, pointer: bytes) -> None:
    made = DirectoryStore(tmp_path / "lake")
    made.create("exports/sft/latest.json", pointer)
    with pytest.raises(CorruptDataError, match=r"exports/sft/latest\.json"):
        report(made, SETTINGS, now_us=NOW_US)


def test_an_export_whose_files_are_gone_is_none(tmp_path: Path) -> None:
    made = DirectoryStore(tmp_path / "lake")
    body = {"version": "v1", "key": "exports/sft/v1", "exported_at_us": NOW_US}
    made.create("exports/sft/latest.json", json.dumps(body).encode())
    facts = pages.data_of(report(made, SETTINGS, now_us=NOW_US))
    assert not next(s for s in facts["training"] if s["set"] == "sft")["exported"]
