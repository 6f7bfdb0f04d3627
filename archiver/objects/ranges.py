"""An object as a seekable file that fetches ranges, for readers that need a footer and one part."""

from __future__ import annotations

import io
import os
from collections import deque
from typing import Final

from archiver.objects.base import ObjectStore

TAIL_BYTES: Final = 128 * 1024
_RECENT: Final = 4


class RangeFile(io.RawIOBase):
    """A read-only file over one object: the tail comes with the first request, a prefetched part with one more.

    Every read outside of both is a request of its own, for at least ``request_bytes``; the last few of these stay
    at hand. ObjectNotFoundError if there is no such object.
    """

    def __init__(self, store: ObjectStore, key: str, *, tail_bytes: int = TAIL_BYTES, request_bytes: int = 0) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._request_bytes = request_bytes
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=_RECENT)
        tail, self.size_bytes = store.get_tail(key, tail_bytes)
        self._parts = [(self.size_bytes - len(tail), tail)]
        self._position = 0

    def prefetch(self, start: int, length: int) -> None:
        """Fetch a part that several reads will want; one request, none if it is at hand."""
        if self._at_hand(start, length) is None:
            self._parts.append((start, self._store.get_range(self._key, start, length)))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; no request."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read from what was fetched, else by one request."""
        left = max(0, self.size_bytes - self._position)
        length = left if size is None or size < 0 else min(size, left)
        data = self._fetched(self._position, length) if length else b""
        self._position += len(data)
        return data

    def _fetched(self, start: int, length: int) -> bytes:
        known = self._at_hand(start, length)
        if known is not None:
            return known
        if length >= self._request_bytes:
            return self._store.get_range(self._key, start, length)
        at = max(0, min(start, self.size_bytes - self._request_bytes))
        part = self._store.get_range(self._key, at, self._request_bytes)
        self._recent.append((at, part))
        return part[start - at : start - at + length]

    def _at_hand(self, start: int, length: int) -> bytes | None:
        for at, part in (*self._parts, *self._recent):
            if at <= start and start + length <= at + len(part):
                return part[start - at : start - at + length]
        return None
