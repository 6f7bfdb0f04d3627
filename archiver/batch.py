"""What a process may set for itself that does nothing but one batch of work; no library call does it for its host."""

from __future__ import annotations

import gc
from typing import Final

_NEW_OBJECTS: Final = 10_000
_YOUNGER_COLLECTIONS: Final = 20


def collect_rarely() -> None:
    """Let the garbage collector look less often.

    Batches make and drop many small tuples, none of them in cycles. At Python's usual 700 new objects a
    collection an archiver spends a tenth of its time on looking at them.
    """
    gc.set_threshold(_NEW_OBJECTS, _YOUNGER_COLLECTIONS, _YOUNGER_COLLECTIONS)
