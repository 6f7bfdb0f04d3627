"""Gathering sessions in another order gives what Arrow's own take gives, for any rows and slices."""

from __future__ import annotations

import pyarrow as pa
import pytest
from archived import session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver import segments
from pipelines.compaction import gather

BATCH = segments.records_to_batch([session(n) for n in range(40)])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_equals_arrows_take(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, BATCH.num_rows))
    part = BATCH.slice(start, data.draw(st.integers(0, BATCH.num_rows - start)))
    rows = st.lists(st.integers(0, part.num_rows - 1), max_size=30) if part.num_rows else st.just([])
    order = pa.array(data.draw(rows), pa.int64())
    found = gather.take(part, order)
    found.validate(full=True)
    assert found.equals(part.take(order))


@pytest.mark.parametrize(("order", "same"), [([0, 1, 2], True), ([0, 1], False), ([0, 2, 1], False), ([], False)])
def test_an_order_that_changes_nothing_is_seen(order: list[int], same: bool) -> None:
    assert gather.unchanged(pa.array(order, pa.int64()), 3) is same
