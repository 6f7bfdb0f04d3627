"""Exports from a real lake: files, bytes, invariants, leaks, personal data."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import archived
import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from invariants import violations
from replays import real_records, reasoning

from archiver.archive import SegmentRef
from archiver.errors import ConflictError, InputError
from archiver.events import Interaction, Message, SessionRecord
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, exports, lake
from pipelines.exports import ExportFilters, ExportReport, source, writer
from pipelines.schema import EXPORTS

NOW_US = 1_790_900_000_000_000
SETS = tuple(EXPORTS)
RESERVED = {
    "label", "labels", "text", "images", "image", "tools", "completion", "completions", "chat_template_kwargs",
    "input_ids", "attention_mask", "position_ids", "conversations", "messages", "prompt", "chosen", "rejected",
    "margin", "seq_lengths", "completion_mask", "assistant_masks", "environment",
}  # fmt: skip
MEANT = {
    "sft": {"messages"},
    "preferences": {"prompt", "chosen", "rejected", "margin"},
    "unpaired": {"prompt", "completion", "label"},
    "stepwise": {"prompt", "completions", "labels"},
    "prompts": {"prompt"},
}


def settings(workers: int = 1, **changes: Any) -> Settings:
    return Settings(runner={"workers": workers}, exports=changes)  # type: ignore[arg-type]


def filled(root: Path, *segments: Sequence[SessionRecord]) -> DirectoryStore:
    """A lake of some segments."""
    store = DirectoryStore(root)
    for number, records in enumerate(segments, 1):
        archived.put(store, number, records)
    compaction.compact(store, settings(), now_us=NOW_US)
    return store


def export(store: DirectoryStore, set_name: str, workers: int = 1, **options: Any) -> ExportReport:
    changes = options.pop("exports", {})
    return exports.export(store, settings(workers, **changes), set_name, now_us=NOW_US, **options)


def directory(store: DirectoryStore, report: ExportReport) -> Path:
    path = lake.local_path(store, report.key)
    assert path is not None
    return path


def rows(store: DirectoryStore, report: ExportReport) -> list[dict[str, Any]]:
    """All rows of an export, with their split."""
    return [
        {**row, "split": file.name.partition("-")[0]}
        for file in sorted(directory(store, report).glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]


def rejects(store: DirectoryStore, report: ExportReport) -> list[dict[str, str]]:
    with gzip.open(directory(store, report) / "rejects.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def records() -> list[SessionRecord]:
    return [reasoning(n) for n in range(600)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, records: list[SessionRecord]) -> DirectoryStore:
    return filled(tmp_path_factory.mktemp("lake"), records[:350], records[350:])


@pytest.fixture(scope="module")
def made(store: DirectoryStore) -> dict[str, ExportReport]:
    return {name: export(store, name) for name in SETS}


@pytest.mark.parametrize("name", SETS)
def test_every_invariant_holds(store: DirectoryStore, made: dict[str, ExportReport], name: str) -> None:
    assert made[name].n_rows > 100
    assert set(made[name].rows) == {"train", "validation", "test"}
    assert violations(name, directory(store, made[name])) == {}


@pytest.mark.parametrize("name", SETS)
def test_datasets_loads_it_with_the_schema_of_the_code(
    store: DirectoryStore, made: dict[str, ExportReport], name: str, tmp_path: Path
) -> None:
    path, expected = str(directory(store, made[name])), datasets.Features.from_arrow_schema(EXPORTS[name].schema)
    for arguments in ((path,), (path, name)):
        loaded = datasets.load_dataset(*arguments, cache_dir=str(tmp_path))
        assert {split: part.num_rows for split, part in loaded.items()} == made[name].rows
        assert all(part.features == expected for part in loaded.values())
        streamed = datasets.load_dataset(*arguments, streaming=True)
        assert {split: sum(1 for _ in part) for split, part in streamed.items()} == made[name].rows
        assert next(iter(streamed["train"])) == loaded["train"][0]


@pytest.mark.parametrize("name", SETS)
def test_no_column_has_a_meaning_it_must_not_have(name: str) -> None:
    assert RESERVED & set(EXPORTS[name].schema.names) == MEANT[name]
    assert not any(column.endswith("_ids") for column in EXPORTS[name].schema.names)


@pytest.mark.parametrize("name", SETS)
def test_the_manifest_describes_the_files(store: DirectoryStore, made: dict[str, ExportReport], name: str) -> None:
    path = directory(store, made[name])
    manifest = json.loads((path / "manifest.json").read_text())
    listed = {entry["name"]: entry for entry in manifest["files"] + manifest["companions"]}
    assert {file.name for file in path.iterdir()} == {*listed, "manifest.json"}
    for file_name, entry in listed.items():
        body = (path / file_name).read_bytes()
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (entry["sha256"], entry["bytes"])
    files = [pq.ParquetFile(path / entry["name"]) for entry in manifest["files"]]
    assert [file.metadata.num_rows for file in files] == [entry["rows"] for entry in manifest["files"]]
    assert all(file.metadata.num_rows for file in files)
    assert all(file.schema_arrow.equals(EXPORTS[name].schema, check_metadata=True) for file in files)
    assert manifest["table_version"] == lake.current(store).number
    pointer = json.loads(store.get(f"exports/{name}/latest.json"))
    assert pointer == {"version": made[name].version, "key": made[name].key, "exported_at_us": NOW_US}


@pytest.mark.parametrize("name", SETS)
def test_counts_in_are_counts_out(store: DirectoryStore, made: dict[str, ExportReport], name: str) -> None:
    manifest = json.loads((directory(store, made[name]) / "manifest.json").read_text())
    sessions = manifest["sessions"]
    assert sessions["read"] == sessions["with_rows"] + sessions["without_rows"] == 600
    listed = rejects(store, made[name])
    assert Counter(line["reason"] for line in listed) == {**manifest["rejected"], **manifest["dropped_rows"]}
    published = rows(store, made[name])
    assert {line["row_id"] for line in listed if "row_id" in line}.isdisjoint(row["row_id"] for row in published)
    silent = sessions["read"] - len(
        {line["session_uid"] for line in listed} | {row["session_uid"] for row in published}
    )
    assert silent == 0
    assert sum(manifest["rows_by_language"].values()) == made[name].n_rows
    if manifest["rows_by_judge"]:
        assert sum(manifest["rows_by_judge"].values()) == made[name].n_rows
        assert "" not in manifest["rows_by_judge"]


def test_the_manifest_names_gaps_that_were_accepted(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for number in (1, 3):
        archived.put(store, number, [reasoning(number)])
    compaction.compact(store, settings(), now_us=NOW_US)
    lost = SegmentRef(archived.ARCHIVER, 2)
    compaction.accept_gap(store, lost.archiver_id, lost.sequence, reason="disk lost", now_us=NOW_US)
    before = export(store, "prompts", version=lake.current(store).number)
    compaction.compact(store, settings(), now_us=NOW_US)
    manifests = [json.loads(store.get(f"{r.key}/manifest.json")) for r in (before, export(store, "prompts"))]
    assert [manifest["accepted_gaps"] for manifest in manifests] == [[], [lost.void_key]]


def test_the_card_says_what_is_in_it(store: DirectoryStore, made: dict[str, ExportReport]) -> None:
    card = (directory(store, made["preferences"]) / "README.md").read_text("utf-8")
    assert f"| train | {made['preferences'].rows['train']} |" in card
    for column in EXPORTS["preferences"].schema.names:
        assert f"| {column} |" in card
    for word in ("verdict_order", "human", "left out", "default consent", "Known limits", "table version"):
        assert word in card


def digests(store: DirectoryStore, report: ExportReport) -> dict[str, str]:
    files = directory(store, report).iterdir()
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SLICE_BYTES", 20_000)


@pytest.mark.parametrize("name", SETS)
def test_slices_do_not_change_a_byte(
    store: DirectoryStore, made: dict[str, ExportReport], name: str, tmp_path: Path, small_slices: None
) -> None:
    assert len(source.LakeSource(store, lake.current(store)).slices()) > 4
    target = DirectoryStore(tmp_path)
    again = export(store, name, target=target)
    assert not again.existed
    assert digests(target, again) == digests(store, made[name])


def test_the_order_of_the_inputs_does_not_change_a_byte(
    records: list[SessionRecord], store: DirectoryStore, made: dict[str, ExportReport], tmp_path: Path
) -> None:
    other = filled(tmp_path, records[350:], records[:350])
    for name in ("sft", "preferences"):
        assert digests(other, export(other, name)) == digests(store, made[name])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_do_not_change_a_byte(
    store: DirectoryStore, made: dict[str, ExportReport], workers: int, tmp_path: Path, small_slices: None
) -> None:
    target = DirectoryStore(tmp_path)
    for name in SETS:
        assert digests(target, export(store, name, workers, target=target)) == digests(store, made[name])


def test_shards_and_lines(store: DirectoryStore, made: dict[str, ExportReport], tmp_path: Path) -> None:
    target = DirectoryStore(tmp_path)
    sharded = export(store, "prompts", target=target, exports={"shard_bytes": 1})
    assert [file for file in sharded.files if file.startswith("validation")] == ["validation-00000-of-00001.parquet"]
    assert rows(target, sharded) == rows(store, made["prompts"])
    lines = export(store, "unpaired", target=target, file_format="jsonl")
    path = directory(target, lines)
    read = [json.loads(line) for line in (path / "train-00000-of-00001.jsonl").read_text("utf-8").splitlines()]
    assert read == [
        {k: v for k, v in row.items() if k != "split"}
        for row in rows(store, made["unpaired"])
        if row["split"] == "train"
    ]
    assert datasets.load_dataset(str(path), cache_dir=str(tmp_path / "cache"))["test"].num_rows == lines.rows["test"]


def test_sizes_count_the_texts(
    store: DirectoryStore, made: dict[str, ExportReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 20_000)
    target = DirectoryStore(tmp_path)
    report = export(store, "prompts", target=target, exports={"shard_bytes": 40_000})
    train = [name for name in report.files if name.startswith("train")]
    assert len(train) > 1
    assert train[0] == f"train-00000-of-{len(train):05d}.parquet"
    metadata = pq.ParquetFile(directory(target, report) / train[0]).metadata
    assert {metadata.row_group(i).num_rows % 64 for i in range(metadata.num_row_groups)} == {0}
    assert metadata.num_row_groups > 1
    assert rows(target, report) == rows(store, made["prompts"])


def test_an_export_that_exists_is_not_made_again(store: DirectoryStore, made: dict[str, ExportReport]) -> None:
    again = export(store, "sft")
    assert again.existed
    assert replace(again, existed=False, seconds=0) == replace(made["sft"], seconds=0)


def test_an_export_that_was_cut_short_is_finished(
    store: DirectoryStore, made: dict[str, ExportReport], tmp_path: Path
) -> None:
    target = DirectoryStore(tmp_path)
    first = export(store, "sft", target=target)
    for name in ("manifest.json", "README.md"):
        target.delete_versions(f"{first.key}/{name}")
    assert digests(target, export(store, "sft", target=target)) == digests(store, made["sft"])
    for name in ("manifest.json", "README.md"):
        target.delete_versions(f"{first.key}/{name}")
    assert target.create(f"{first.key}/README.md", b"somebody else's")
    with pytest.raises(ConflictError, match="other bytes"):
        export(store, "sft", target=target)


def test_adding_sessions_moves_no_row(store: DirectoryStore, records: list[SessionRecord], tmp_path: Path) -> None:
    smaller = filled(tmp_path, records[:400])
    for name in ("sft", "unpaired"):
        before = {row["row_id"]: row for row in rows(smaller, export(smaller, name))}
        after = {row["row_id"]: row for row in rows(store, export(store, name))}
        shared = before.keys() & after.keys()
        assert len(shared) > 0.9 * len(before)
        assert all(before[row_id] == after[row_id] for row_id in shared)


def test_an_older_version_can_be_exported(tmp_path: Path, records: list[SessionRecord]) -> None:
    store = filled(tmp_path, records[:60])
    first = export(store, "prompts")
    archived.put(store, 2, records[60:90])
    compaction.compact(store, settings(), now_us=NOW_US)
    assert export(store, "prompts").n_rows > first.n_rows
    again = export(store, "prompts", version=1, target=DirectoryStore(tmp_path / "elsewhere"))
    assert (again.version, again.rows) == (first.version, first.rows)


def chat(n: int, *texts: str, user: str | None = None, **changes: Any) -> SessionRecord:
    messages = tuple(
        Message("user" if i % 2 == 0 else "assistant", t, 1_790_000_000_000_000 + i) for i, t in enumerate(texts)
    )
    return replace(
        reasoning(n, user=user), messages=messages, interactions=(), graph_state=None, metadata="{}", **changes
    )  # fmt: skip


def users(split: str, count: int) -> list[str]:
    from pipelines.splits import split_of

    return [user for user in (f"u{i}" for i in range(1000)) if split_of(user, "", "v1") == split][:count]


def test_no_prompt_leaks_and_the_evaluation_wins(tmp_path: Path) -> None:
    train, validation, test = (users(split, 1)[0] for split in ("train", "validation", "test"))
    store = filled(
        tmp_path,
        [
            chat(1, "shared?", "1", user=train), chat(2, " shared? ", "2", user=test),
            chat(3, "both?", "1", user=validation), chat(4, "both?", "2", user=test),
            chat(5, "own?", "1", user=train), chat(6, "shared?", "1", "more?", "2", user=train),
            chat(7, "later?", "1", user=validation), chat(8, "later?", "1", user=train),
            chat(9, "own?", "1", user=train),
        ],
    )  # fmt: skip
    report = export(store, "sft")
    kept = [(row["split"], row["messages"][-2]["content"]) for row in rows(store, report)]
    assert sorted(kept) == [("test", " shared? "), ("test", "both?"), ("train", "own?"), ("validation", "later?")]
    assert report.dropped == {"duplicate": 1, "leakage": 4}
    prompts = export(store, "prompts")
    assert prompts.dropped["leakage"] == 3
    assert violations("prompts", directory(store, prompts)) == {}


def test_held_back_sessions_guard_the_evaluation_too(tmp_path: Path) -> None:
    train, test = users("train", 1)[0], users("test", 1)[0]
    analytics = {"metadata": '{"consent": "analytics"}'}
    guarded = replace(chat(2, "shared?", "2", user=test, language="de"), **analytics)  # type: ignore[arg-type]
    store = filled(tmp_path, [chat(1, "shared?", "1", user=train, language="en"), guarded])
    assert export(store, "sft").n_rows == 0
    assert export(store, "sft", filters=ExportFilters(languages=("en",))).dropped == {"leakage": 1}


def test_contradictions_across_sessions(tmp_path: Path) -> None:
    def judged(n: int, verdict: str) -> SessionRecord:
        act = Interaction(1_790_000_000_000_009, "feedback", "1", None, verdict)
        return replace(chat(n, "q?", "a", user=users("train", 9)[n]), interactions=(act,))

    store = filled(tmp_path, [judged(0, "correct"), judged(1, "incorrect"), judged(2, "correct")])
    report = export(store, "unpaired")
    assert (report.n_rows, report.dropped) == (0, {"contradiction": 3})


def test_consent(tmp_path: Path) -> None:
    consents = [None, "training", "analytics", "none", "whatever"]
    sessions = [
        replace(chat(n, f"{n}?", "a", user="u1"), metadata=json.dumps({"consent": c} if c else {}))
        for n, c in enumerate(consents)
    ]
    store = filled(tmp_path, sessions)
    report = export(store, "sft")
    assert {row["session_id"] for row in rows(store, report)} == {"s-0", "s-1"}
    assert report.rows_on_default_consent == 1
    strict = export(store, "sft", exports={"consent_default": "none"})
    assert {row["session_id"] for row in rows(store, strict)} == {"s-1"}
    assert strict.rows_on_default_consent == 0
    assert set(strict.rejected) == {"consent"}


def test_no_rows_no_files(tmp_path: Path) -> None:
    store = filled(tmp_path, [chat(1, "only a question?")])
    report = export(store, "sft")
    assert (report.n_rows, report.key, report.files) == (0, "", ())
    assert report.rejected == {"no_assistant_turn": 1}
    assert list(store.list("exports/")) == []


def test_an_empty_split_has_no_file_and_no_place_in_the_card(tmp_path: Path) -> None:
    store = filled(tmp_path, [chat(1, "q?", "a", user=users("train", 1)[0])])
    report = export(store, "sft")
    assert report.files == ("train-00000-of-00001.parquet",)
    assert list(datasets.load_dataset(str(directory(store, report)), cache_dir=str(tmp_path / "c"))) == ["train"]


@pytest.fixture(scope="module")
def filterable(store: DirectoryStore) -> Callable[..., list[dict[str, Any]]]:
    def run(name: str = "preferences", **filters: Any) -> list[dict[str, Any]]:
        return rows(store, export(store, name, filters=ExportFilters(**filters)))

    return run


def test_filters(
    store: DirectoryStore, made: dict[str, ExportReport], filterable: Callable[..., list[dict[str, Any]]]
) -> None:
    everything = rows(store, made["preferences"])
    assert filterable(languages=("de", "pl")) == [row for row in everything if row["language"] in ("de", "pl")]
    assert filterable(pair_kinds=("rank",)) == [row for row in everything if row["pair_kind"] == "rank"]
    clear = filterable(min_agreement=0.8)
    assert clear == [row for row in everything if row["agreement"] is None or row["agreement"] >= 0.8]
    assert 0 < len(clear) < len(everything)
    middle = 1_790_000_000_000_000 + 2 * 86_400_000_000
    early, late = filterable(until_us=middle), filterable(since_us=middle)
    assert {row["session_uid"] for row in early}.isdisjoint(row["session_uid"] for row in late)
    assert len(early) + len(late) == len(everything)
    where = filterable(where="n_interactions >= 6 AND json_extract_string(metadata, '$.consent') = 'training' -- these")
    assert 0 < len(where) < len(everything)
    automatic = filterable("unpaired", actor_kinds=("auto",))
    assert 0 < len(automatic) < made["unpaired"].n_rows


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"actor_kinds": ("robot",)}, "human, auto, model, agent"),
        ({"actor_kinds": ("unknown",)}, "human, auto, model, agent"),
        ({"pair_kinds": ("best",)}, "inject_over_pruned"),
        ({"where": "n_mesages > 1"}, "columns are session_uid"),
        ({"where": "1) FROM (SELECT 1"}, "is no condition"),
        ({"where": "session_uid IN (SELECT content FROM read_text('/etc/passwd'))"}, "is no condition"),
    ],
)
def test_filters_that_cannot_match_are_refused(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        ExportFilters(**filters)


def test_an_unknown_set(store: DirectoryStore) -> None:
    with pytest.raises(InputError, match="sets are sft, preferences"):
        export(store, "rewards")


PLANTS = ("ann.lee@example.com", "+49 30 901820", "4111 1111 1111 1111", "DE89370400440532013000", "ghp_" + "a1B2" * 9)


def planted(n: int) -> SessionRecord:
    """A session with personal data in everything that an application can fill in."""
    mail, phone, card, iban, token = PLANTS
    at = 1_790_000_000_000_000
    graph = {
        "nodes": {
            "q": {"content": f"{n}: who is {mail}?"},
            mail: {"content": f"call {phone} {n}", "parent": "q", "author": mail},
            "b": {"content": f"pay {card} {n}", "parent": "q"},
            token: {"content": f"then {iban}", "parent": mail},
        },
        "title": mail,
    }
    acts = [
        Interaction(at + 9, "prune", "b", None, None, json.dumps({"over": mail, "note": phone})),
        Interaction(
            at + 10, "inject", phone, f"send {iban} {n}", None, json.dumps({"parent_id": "q", "replaces": "b"})
        ),
        *(
            Interaction(at + 11, "feedback", node, mail, "correct", json.dumps({"context": card}))
            for node in (mail, token)
        ),
    ]
    return replace(
        reasoning(n), session_id=f"{mail}/{n}", user_id=f"{mail}-{n}", language=phone, graph_state=json.dumps(graph),
        messages=(Message("user", f"{n}: who is {mail}?", at), Message("assistant", f"ask {phone} {token}", at + 1),
                  Message(card, f"{iban}", at + 2), Message("assistant", "done", at + 3)),
        interactions=tuple(acts), metadata=json.dumps({"mail": mail, iban: [token]}),
    )  # fmt: skip


def byte_strings(path: Path) -> Iterator[bytes]:
    """Everything readable in a file: its bytes, and those of its decompressed content."""
    body = path.read_bytes()
    yield body
    if path.suffix == ".gz":
        yield gzip.decompress(body)
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield json.dumps(table.to_pylist(), ensure_ascii=False).encode()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="none", use_dictionary=False)
        yield sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", SETS)
def test_no_personal_data_in_any_file(name: str, tmp_path: Path) -> None:
    store = filled(tmp_path, [planted(n) for n in range(60)])
    report = export(store, name)
    assert report.n_rows >= 50
    assert report.redactions["IDENTIFIER"] >= report.n_rows
    for file in directory(store, report).iterdir():
        for content in byte_strings(file):
            assert [plant for plant in PLANTS if plant.encode() in content] == [], file.name
    published = rows(store, report)
    assert any("<EMAIL_1>" in json.dumps(row) for row in published)
    if name == "preferences":
        chosen = {row["chosen_node"] for row in published if row["pair_kind"] == "survivor_over_pruned"}
        assert len(chosen) == 1
        assert chosen.pop().startswith("id-")
    raw = export(store, name, exports={"redact": False})
    assert raw.redactions == {}
    assert any(PLANTS[0] in json.dumps(row) for row in rows(store, raw))


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.timeout(1200)
def test_real_sessions(tmp_path: Path) -> None:
    real = [record for record, _ in real_records("sessions")]
    store = filled(tmp_path, real[::3])
    for name in SETS:
        report = export(store, name)
        assert report.n_rows > 400
        assert violations(name, directory(store, report)) == {}
