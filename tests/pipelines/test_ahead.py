"""Calls made ahead of the use of their results: in order, bounded, and ended when the caller ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from archived import continued, put, session

from archiver.objects import DirectoryStore, Tail
from archiver.settings import Settings
from pipelines import compaction
from pipelines.ahead import ahead

NOW_US = 1_790_900_000_000_000


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_if_even(n: int) -> int:
        time.sleep(0.01 if n % 2 == 0 else 0)
        return n * n

    assert list(ahead(slow_if_even, range(25), most=4)) == [n * n for n in range(25)]
    assert list(ahead(slow_if_even, [])) == []


def test_items_are_taken_no_further_ahead_than_allowed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(20):
            taken.append(n)
            yield n

    results = ahead(lambda n: n, items(), most=3)
    for used in range(1, 18):
        assert next(results) == used - 1
        assert len(taken) <= used + 3
    assert len(list(results)) == 3


def test_an_exception_comes_in_its_turn_and_what_had_not_begun_is_left() -> None:
    begun: list[int] = []

    def fails_at_three(n: int) -> int:
        begun.append(n)
        if n == 3:
            raise ValueError("three")
        return n

    results = ahead(fails_at_three, range(100), most=2)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert max(begun) <= 5


def test_whoever_stops_waits_for_what_is_under_way() -> None:
    ended: list[int] = []

    def slow(n: int) -> int:
        time.sleep(0.05)
        ended.append(n)
        return n

    results = ahead(slow, range(100), most=2)
    next(results)
    results.close()
    count = len(ended)
    time.sleep(0.2)
    assert len(ended) == count <= 4


class MeetingStore(DirectoryStore):
    """Notes in which calls two were under way at a time; the first of a kind waits a while for a second."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.met: dict[str, threading.Event] = {"get": threading.Event(), "stage": threading.Event()}
        self.together: set[str] = set()
        self._inside = {"get": 0, "stage": 0}
        self._counting = threading.Lock()

    def get(self, key: str) -> bytes:
        """Segments meet."""
        if key.startswith("archive/") and key.endswith(".parquet"):
            self._meet("get")
        return super().get(key)

    def stage(self, key: str, data: bytes | Path) -> str:
        """Data files meet."""
        self._meet("stage")
        return super().stage(key, data)

    def _meet(self, name: str) -> None:
        with self._counting:
            self._inside[name] += 1
            if self._inside[name] == 2:
                self.together.add(name)
                self.met[name].set()
        self.met[name].wait(5)
        self.met[name].set()
        with self._counting:
            self._inside[name] -= 1


def test_a_compaction_asks_for_segments_and_brings_files_side_by_side(tmp_path: Path) -> None:
    """Across a network a request takes longer than what it brings: one after another they took most of a run's time."""
    store = MeetingStore(tmp_path)
    for sequence in (1, 2):
        put(store, sequence, [session(10 * sequence + n) for n in range(10)])
    report = compaction.compact(store, Settings(runner={"workers": 1}), now_us=NOW_US)
    assert report.rows_added["sessions"] == 20
    assert store.together == {"get", "stage"}


class AskedStore(DirectoryStore):
    """Counts the requests that bring bytes of a table's data file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: Counter[str] = Counter()

    def get(self, key: str) -> bytes:
        """Count."""
        self.asked[key] += 1
        return super().get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Count."""
        self.asked[key] += 1
        return super().get_range(key, start, length)

    def get_tail(self, key: str, length: int) -> Tail:
        """Count."""
        self.asked[key] += 1
        return super().get_tail(key, length)


def test_a_small_file_is_rewritten_with_one_request_for_it(tmp_path: Path) -> None:
    store, settings = AskedStore(tmp_path), Settings(runner={"workers": 1})
    records = [session(n, n_messages=3) for n in range(40)]
    put(store, 1, records)
    compaction.compact(store, settings, now_us=NOW_US)
    put(store, 2, [continued(record) for record in records[:20]])
    store.asked.clear()
    compaction.compact(store, settings, now_us=NOW_US)
    asked = {key: count for key, count in store.asked.items() if "/data/" in key}
    assert {key.split("/")[1] for key in asked} >= {"sessions", "nodes", "feedback"}
    assert all(count == 1 for key, count in asked.items() if "/sessions/" not in key)
    assert all(count == 2 for key, count in asked.items() if "/sessions/" in key)  # planning looked at it, too
