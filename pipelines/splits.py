"""Which split a session belongs to: a pure function of its user, so that no user is in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
SPLITS: Final = (TRAIN, VALIDATION, TEST)
_TRAIN_BELOW: Final = 9000
_VALIDATION_BELOW: Final = 9500
_BUCKETS: Final = 10_000


def split_of(user_id: str | None, session_uid: str, salt: str) -> str:
    """The split of a user, or of a session without one: 90 % train, 5 % validation, 5 % test.

    A function of its arguments only, so sessions added later move nobody.
    """
    return SPLITS[int(_splits_of([user_id or session_uid], salt)[0])]


def split_column(user_ids: pa.Array, session_uids: pa.Array, salt: str) -> pa.Array:
    """:func:`split_of` for columns of equal length; one digest per user, or session without one."""
    owners = pc.if_else(pc.equal(user_ids, ""), None, user_ids).fill_null(session_uids)
    codes = owners.dictionary_encode()
    splits = _splits_of(codes.dictionary.to_pylist(), salt)
    return pa.array(SPLITS).take(pa.array(splits).take(codes.indices))


def _splits_of(owners: Sequence[str], salt: str) -> npt.NDArray[np.int64]:
    """Positions in SPLITS: the first 64 bits of each owner's digest, modulo _BUCKETS, say where they fall."""
    digests = [hashlib.sha256(f"{salt}\x1f{owner}".encode()).digest() for owner in owners]
    buckets = np.frombuffer(b"".join(digests), ">u8")[::4] % np.uint64(_BUCKETS)
    found: npt.NDArray[np.int64] = np.searchsorted((_TRAIN_BELOW, _VALIDATION_BELOW), buckets, "right")
    return found
