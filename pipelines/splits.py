"""Which split a session belongs to: a pure function of its user, so that no user is in two splits."""

from __future__ import annotations

import hashlib
from typing import Final

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
    digest = hashlib.sha256(f"{salt}\x1f{user_id or session_uid}".encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % _BUCKETS
    if bucket < _TRAIN_BELOW:
        return TRAIN
    return VALIDATION if bucket < _VALIDATION_BELOW else TEST


def split_column(user_ids: pa.Array, session_uids: pa.Array, salt: str) -> pa.Array:
    """:func:`split_of` for columns of equal length; one digest per user, or session without one."""
    owners = pc.if_else(pc.equal(user_ids, ""), None, user_ids).fill_null(session_uids)
    codes = owners.dictionary_encode()
    splits = pa.array([split_of(owner, "", salt) for owner in codes.dictionary.to_pylist()], pa.string())
    return splits.take(codes.indices)
