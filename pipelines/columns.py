"""Columns that say the same for many rows: what a session has once, for each of its events or nodes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


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
