from __future__ import annotations

from collections import Counter

import pyarrow as pa

from pipelines.splits import SPLITS, split_column, split_of


def test_shares() -> None:
    counts = Counter(split_of(f"u{i}", "", "v1") for i in range(20_000))
    assert 0.89 < counts["train"] / 20_000 < 0.91
    assert 0.045 < counts["validation"] / 20_000 < 0.055
    assert 0.045 < counts["test"] / 20_000 < 0.055
    assert set(counts) == set(SPLITS)


def test_a_user_is_in_one_split_whatever_the_session() -> None:
    assert len({split_of("ann", uid, "v1") for uid in map(str, range(200))}) == 1


def test_without_a_user_the_session_decides() -> None:
    assert {split_of(None, uid, "v1") for uid in map(str, range(200))} == set(SPLITS)
    assert all(split_of("", uid, "v1") == split_of(None, uid, "v1") for uid in map(str, range(200)))


def test_splits_are_fixed_for_ever() -> None:
    found = [split_of(f"u{i}", "", "v1") for i in range(60)]
    assert [i for i, split in enumerate(found) if split == "validation"] == VALIDATION
    assert [i for i, split in enumerate(found) if split == "test"] == TEST


def test_the_salt_deals_anew() -> None:
    assert [split_of(f"u{i}", "", "v1") for i in range(100)] != [split_of(f"u{i}", "", "v2") for i in range(100)]


def test_a_column_is_the_function_of_each_row() -> None:
    users, uids = [None, "ann", "", "bob"], ["1", "2", "3", "4"]
    column = split_column(pa.array(users), pa.array(uids), "v1")
    assert column.type == pa.string()
    assert column.to_pylist() == [split_of(u, s, "v1") for u, s in zip(users, uids, strict=True)]
    assert len(split_column(pa.array([], pa.string()), pa.array([], pa.string()), "v1")) == 0


VALIDATION = [10]
TEST = [15]
