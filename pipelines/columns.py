"""Columns that say the same for many rows: what a session has once, for each of its events or nodes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def repeated(values: pa.Array, rows: pa.Array) -> pa.DictionaryArray:
    """``values.take(rows)``, as a dictionary that holds each value that occurs, once: no text is copied.

    Parquet writes a dictionary as it comes: an entry of a session without rows would outlive its erasure,
    and for a second entry of the same text it reserves bytes that it never fills.
    """
    at = rows.to_numpy()
    occurs = np.zeros(len(values), bool)
    occurs[at] = True
    codes = values.filter(pa.array(occurs)).dictionary_encode()
    position = np.cumsum(occurs, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(codes.indices.take(pa.array(position[at])), codes.dictionary)


def compacted(table: pa.Table) -> pa.Table:
    """The same rows; dictionaries that were cut with them hold what still occurs, as :func:`repeated` makes them."""
    columns = [_compacted(c.combine_chunks()) if pa.types.is_dictionary(c.type) else c for c in table.columns]
    return pa.table(columns, names=table.column_names)


def _compacted(column: pa.DictionaryArray) -> pa.DictionaryArray:
    codes = column.indices
    occurs = np.zeros(len(column.dictionary), bool)
    occurs[codes.drop_null().to_numpy()] = True
    if occurs.all():
        return column
    position = pa.array(np.cumsum(occurs, dtype=np.int32) - 1, pa.int32())
    return pa.DictionaryArray.from_arrays(position.take(codes), column.dictionary.filter(pa.array(occurs)))


def rows_of(keys: pa.ChunkedArray, sessions: pa.Array) -> pa.Array:
    """For each key the row it has among ``sessions``; keys may be a dictionary, and are looked up once each then."""
    column = keys.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        return pc.index_in(column, value_set=sessions)
    return pc.index_in(column.dictionary, value_set=sessions).take(column.indices)
