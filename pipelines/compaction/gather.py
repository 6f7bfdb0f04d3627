"""Rows of nested columns in another order, at the speed of copying.

Arrow's own take copies a list of structs text by text. Here the texts of one session, which lie side by
side, are taken as one value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


def take(batch: pa.RecordBatch, order: pa.Array) -> pa.RecordBatch:
    """The batch's rows in the given order; lists of structs of texts and fixed-width values fast, others by Arrow."""
    columns = [
        _take_lists(column, order) if pa.types.is_list(column.type) and not column.null_count else column.take(order)
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _take_lists(lists: pa.ListArray, order: pa.Array) -> pa.ListArray:
    starts = lists.offsets.to_numpy().astype(np.int64)
    starts -= starts[0]
    rows = order.to_numpy().astype(np.int64)
    lengths = np.diff(starts)[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    events = np.repeat(starts[:-1][rows] - ends[:-1], lengths) + np.arange(ends[-1])
    values = lists.flatten()
    children = [
        _take_texts(values.field(i), starts, order, events)
        if pa.types.is_string(field.type)
        else values.field(i).take(pa.array(events))
        for i, field in enumerate(values.type)
    ]
    taken = pa.StructArray.from_arrays(children, fields=list(values.type))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), taken, type=lists.type)


def _take_texts(texts: pa.StringArray, starts: Ints, order: pa.Array, events: Ints) -> pa.StringArray:
    """Texts of the events; ``starts`` says where each row's events begin."""
    _, offset_buffer, data = texts.buffers()
    if offset_buffer is None or data is None:
        return texts.take(pa.array(events))
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    per_row = pa.py_buffer(np.ascontiguousarray(offsets[starts]))
    joined = pa.BinaryArray.from_buffers(pa.binary(), len(starts) - 1, [None, per_row, data]).take(order)
    lengths = np.diff(offsets)[events]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    valid = texts.is_valid().take(pa.array(events)).buffers()[1] if texts.null_count else None
    return pa.StringArray.from_buffers(len(events), pa.py_buffer(ends), joined.buffers()[2], valid)


def unchanged(order: pa.Array, n_rows: int) -> bool:
    """Whether an order of ``n_rows`` rows is theirs already."""
    return len(order) == n_rows and bool(np.array_equal(order.to_numpy(), np.arange(n_rows)))
