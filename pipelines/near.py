"""Near-duplicate prompts by MinHash (extra ``dedup``): signatures that agree about as much as the texts do."""

from __future__ import annotations

import importlib
import zlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from pipelines.derive import norm_text

PERMUTATIONS: Final = 120
BAND_ROWS: Final = 6
"""20 bands of 6: two texts with Jaccard similarity 0.8 share a band in 99.8 % of cases, with 0.5 in 27 %."""
SIMILARITY: Final = 0.8
_SHINGLE_WORDS: Final = 5
_SHINGLE_CHARS: Final = 8


def engine() -> str | None:
    """Name and version of the MinHash library; None where the extra is not installed."""
    try:
        return f"rensa-{version('rensa')}"
    except PackageNotFoundError:
        return None


class Signer:
    """Makes signatures; remembers the last text, because rows of one session share their prompt."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("rensa") if engine() else None
        self._last: tuple[str, list[int] | None] = ("", None)

    def signature(self, text: str) -> list[int] | None:
        """PERMUTATIONS numbers; None for a text too short to resemble another, and without the library."""
        if self._library is None:
            return None
        if text != self._last[0]:
            found = shingles(text)
            self._last = (text, self._sign(found) if found else None)
        return self._last[1]

    def _sign(self, found: list[str]) -> list[int]:
        minhash = self._library.RMinHash(num_perm=PERMUTATIONS, seed=42)
        minhash.update(found)
        return list(minhash.digest())


def shingles(text: str) -> list[str]:
    """Runs of five words; of eight characters where a script puts no spaces between words."""
    text = norm_text(text)
    words = text.split()
    if len(words) * 20 < len(text):
        return [text[i : i + _SHINGLE_CHARS] for i in range(len(text) - _SHINGLE_CHARS + 1)]
    return [" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(len(words) - _SHINGLE_WORDS + 1)]


def bands(signature: list[int] | None) -> list[int]:
    """Numbers of which similar signatures share at least one."""
    if signature is None:
        return []
    return [
        i << 32 | zlib.crc32(repr(signature[i : i + BAND_ROWS]).encode()) for i in range(0, PERMUTATIONS, BAND_ROWS)
    ]
