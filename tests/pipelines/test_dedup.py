from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import dedup

ROWS = pa.schema([pa.field("row_id", pa.string()), *dedup.KEY_COLUMNS])


def row(
    row_id: str, split: str = "train", *, content: str = "", claim: str | None = None,
    side: str | None = None, prompts: str = "",
) -> dict[str, object]:  # fmt: skip
    digests = {"content_": content or row_id, "claim_": claim, "side_": side}
    return {
        "row_id": row_id, "split_": split, "prompts_": [key(p) for p in prompts],
        **{name: None if text is None else key(text) for name, text in digests.items()},
    }  # fmt: skip


def key(text: str) -> bytes:
    return dedup.digest(text)


def decide(tmp_path: Path, rows: list[dict[str, object]], evaluation: dict[str, str] | None = None) -> dict[str, str]:
    """Dropped rows and why; the rows lie in two files."""
    files = []
    for number, part in enumerate((rows[::2], rows[1::2])):
        files.append(tmp_path / f"rows-{number}.parquet")
        pq.write_table(pa.Table.from_pylist(part, ROWS), files[-1])
    prompts = [{"prompt": key(p), "split": split} for p, split in (evaluation or {}).items()]
    pq.write_table(pa.Table.from_pylist(prompts, dedup.EVALUATION), tmp_path / "evaluation.parquet")
    with duckdb.connect() as connection:
        dedup.decide(connection, dedup.Sources(tuple(files), (tmp_path / "evaluation.parquet",)))
        kept = [r for split in ("train", "validation", "test") for r in ids(connection, split)]
        dropped = dict(connection.execute("SELECT row_id, reason FROM dropped").fetchall())
    assert sorted([*kept, *dropped]) == sorted(str(r["row_id"]) for r in rows)
    return dropped


def ids(connection: duckdb.DuckDBPyConnection, split: str) -> list[str]:
    found = [
        r for batch in dedup.kept_rows(connection, ["row_id"], split, batch_rows=2) for r in batch["row_id"].to_pylist()
    ]
    assert found == sorted(found)
    return found


def test_the_smallest_row_id_of_equal_rows_stays(tmp_path: Path) -> None:
    rows = [row("c", content="x"), row("a", content="x"), row("b", content="x"), row("d", content="y")]
    assert decide(tmp_path, rows) == {"b": "duplicate", "c": "duplicate"}


def test_copies_in_other_splits_are_leaks_not_duplicates(tmp_path: Path) -> None:
    rows = [row("a", content="x", prompts="p"), row("b", "test", content="x", prompts="p")]
    assert decide(tmp_path, rows, {"p": "test"}) == {"a": "leakage"}


def test_all_copies_of_a_contradiction_go(tmp_path: Path) -> None:
    rows = [
        row("a", claim="x", side="0", content="x0"), row("b", claim="x", side="1"), row("c", claim="y", side="0"),
        row("d", claim="x", side="0", content="x0"), row("e", "test", claim="x", side="1"),
    ]  # fmt: skip
    assert decide(tmp_path, rows) == dict.fromkeys("abde", "contradiction")


def test_the_later_split_wins(tmp_path: Path) -> None:
    rows = [row(f"{split} {p}", split, prompts=p) for split in ("train", "validation", "test") for p in "vtbn"]
    found = decide(tmp_path, rows, {"v": "validation", "t": "test", "b": "test"})
    assert found == dict.fromkeys(("train v", "train t", "train b", "validation t", "validation b"), "leakage")


def test_any_prompt_of_a_chat_leaks(tmp_path: Path) -> None:
    assert decide(tmp_path, [row("a", prompts="xyz"), row("b", prompts="")], {"z": "test", "y": "test"}) == {
        "a": "leakage"
    }


def test_no_rows_at_all() -> None:
    with duckdb.connect() as connection:
        dedup.decide(connection, dedup.Sources((), ()))
        assert ids(connection, "train") == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("a  b\n", "a b", True), ("e\u0301", "é", True), ("a", "A", False), ("ab", "a b", False), ("", " ", True)],
)
def test_normal_form(one: str, other: str, same: bool) -> None:
    assert (dedup.digest(one) == dedup.digest(other)) is same


def test_borders_and_roles_count() -> None:
    assert dedup.digest("a", "b") != dedup.digest("ab")
    assert dedup.chat_digest((("user", "x"),)) != dedup.chat_digest((("system", "x"),))
    assert dedup.join(b"a", b"b") != dedup.join(b"b", b"a")


def test_prompts_are_what_the_user_asked() -> None:
    chat = (
        ("system", "be nice"),
        ("user", "one"),
        ("assistant", "1"),
        ("user", "two"),
        ("assistant", "2"),
        ("user", "three"),
    )
    asked = [
        dedup.prompt_digest((("user", "one"),)),
        dedup.prompt_digest((("user", "one"), ("assistant", "x"), ("user", "two"))),
    ]
    assert dedup.prompt_digests(chat) == asked
