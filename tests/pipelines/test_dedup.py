from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import dedup, near

ROWS = pa.schema([pa.field("row_id", pa.string()), *dedup.KEY_COLUMNS])


def row(
    row_id: str, split: str = "train", *, content: str = "", claim: str | None = None,
    side: str | None = None, prompts: str = "",
) -> dict[str, object]:  # fmt: skip
    digests = {"content_": content or row_id, "claim_": claim, "side_": side}
    return {
        "row_id": row_id, "split_": split, "bands_": [], "prompts_": [key(p) for p in prompts],
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
    prompts = [{"prompt": key(p), "split": split, "bands": []} for p, split in (evaluation or {}).items()]
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


LONG = (
    "A farmer has seventeen sheep and buys {} more of them on the market day before the long winter comes to the valley"
)


def signed(text: str) -> dict[str, object]:
    signature = near.Signer().signature(text)
    return {"signature_": signature, "bands_": near.bands(signature)}


def test_nearly_equal_prompts_leak_too(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    rows = [
        row("a") | signed(LONG.format("nine") + " again"),
        row("b") | signed("An entirely different question about the weather in the north of the country"),
        row("c", "test") | signed(LONG.format("nine")),
        row("d") | signed("short"),
    ]
    files = (tmp_path / "rows.parquet", tmp_path / "evaluation.parquet")
    pq.write_table(pa.Table.from_pylist(rows, ROWS), files[0])
    keys = {"signature": rows[2]["signature_"], "bands": rows[2]["bands_"]}
    pq.write_table(pa.Table.from_pylist([{"prompt": key("p"), "split": "test", **keys}], dedup.EVALUATION), files[1])
    with duckdb.connect() as connection:
        dedup.decide(connection, dedup.Sources(files[:1], files[1:]))
        assert connection.execute("SELECT * FROM dropped").fetchall() == [("a", "near_leakage")]


def test_shingles_of_scripts_without_spaces() -> None:
    assert near.shingles("one two three four five six") == ["one two three four five", "two three four five six"]
    assert near.shingles("one two") == []
    assert len(near.shingles("这是一个没有空格的很长的中文句子用来测试相似度计算方法")) == 20


def test_signatures_agree_about_as_much_as_the_texts() -> None:
    pytest.importorskip("rensa")
    signer = near.Signer()
    texts = [" ".join(f"word{i}" for i in range(start, start + 100)) for start in (0, 10, 60)]
    first, close, far = (signer.signature(text) or [] for text in texts)
    assert sum(a == b for a, b in zip(first, close, strict=True)) / near.PERMUTATIONS == pytest.approx(0.83, abs=0.1)
    assert sum(a == b for a, b in zip(first, far, strict=True)) / near.PERMUTATIONS < 0.45
    assert set(near.bands(first)) & set(near.bands(close))
    assert signer.signature("short") is None
    assert near.bands(None) == []
