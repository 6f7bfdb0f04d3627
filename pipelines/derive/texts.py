"""Texts as the derivation reads them: JSON decoded, words in the form in which they are compared."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Final

_DECODER: Final = json.JSONDecoder()


def decode(text: str) -> Any:
    """The value of a JSON text, as ``json.loads`` gives it; raises ValueError or RecursionError."""
    try:
        value, end = _DECODER.raw_decode(text)  # twice as fast for short texts: no search for white space around it
    except ValueError:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def norm_text(text: str | None) -> str:
    """The form in which texts are compared: NFC, runs of white space as one space, stripped."""
    if not text:
        return ""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())
