"""Texts as the derivation reads them: JSON decoded, words in the form in which they are compared."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Final

from archiver.errors import InputError
from archiver.events import canonical_json

_DECODER: Final = json.JSONDecoder(parse_constant=lambda _: None)
_HALF_ESCAPED: Final = re.compile(r"\\u[dD][89a-fA-F]")


def decode(text: str) -> Any:
    """The value of a JSON text, as ``json.loads`` gives it; raises ValueError or RecursionError.

    What neither JSON nor UTF-8 can hold becomes what they can: NaN and the infinities null, half a surrogate
    pair U+FFFD. This program archives no such text, others may.
    """
    try:
        value, end = _DECODER.raw_decode(text)  # twice as fast for short texts: no search for white space around it
    except ValueError:
        value, end = None, -1
    if end != len(text):
        value = _DECODER.decode(text)
    return _without_halves(value) if "\\u" in text and _HALF_ESCAPED.search(text) else value


def encode(value: Any) -> str:
    """JSON text of a decoded value; numbers beyond the range of floats, which JSON may hold, become null."""
    try:
        return canonical_json(value)
    except InputError:
        return canonical_json(_DECODER.decode(json.dumps(value)))  # which writes them as Infinity


def _without_halves(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    return _DECODER.decode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def norm_text(text: str | None) -> str:
    """The form in which texts are compared: NFC, runs of white space as one space, stripped."""
    if not text:
        return ""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())
