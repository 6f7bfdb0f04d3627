"""Personal data and secrets out of texts: typed placeholders, stable within a session, counted by type.

The built-in rules find e-mail addresses, phone numbers, payment cards (Luhn), IBANs, IP addresses,
national ids with a check digit or a fixed form, API keys and tokens, private keys, assigned secrets
and credentials in URLs. They do not find names or postal addresses; a :class:`Redactor` that does
(:class:`PresidioRedactor`, extra ``presidio``) can be added.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from pipelines.redact import rules
from pipelines.redact.rules import Finding


class Redactor(Protocol):
    """Finds what must go. ``name`` identifies rules and version: it is part of an export's identity."""

    @property
    def name(self) -> str:
        """Rules and their version."""
        ...

    def find(self, text: str) -> list[Finding]:
        """Findings in order, without overlaps."""
        ...


class RuleRedactor:
    """The built-in rules, see :mod:`pipelines.redact.rules`."""

    name = f"rules-{rules.VERSION}"

    def find(self, text: str) -> list[Finding]:
        """Findings in order, without overlaps."""
        return rules.find(text)


class NoRedactor:
    """Finds nothing: texts stay as they are."""

    name = "none"

    def find(self, text: str) -> list[Finding]:  # noqa: ARG002  the protocol's signature
        """Nothing."""
        return []


class PresidioRedactor:
    """Names, places and more, by Presidio's analyzer (extra ``presidio``; slow: about 0.3 MB/s)."""

    def __init__(self, analyzer: Any, *, language: str = "en", score: float = 0.6) -> None:
        self._analyzer, self._language, self._score = analyzer, language, score
        self.name = f"presidio-{language}-{score}"

    def find(self, text: str) -> list[Finding]:
        """Findings in order, without overlaps."""
        found = self._analyzer.analyze(text, self._language, score_threshold=self._score)
        return rules.without_overlaps([Finding(item.start, item.end, item.entity_type) for item in found])


class Redactors:
    """Several redactors as one; of overlapping findings the first and longest stays."""

    def __init__(self, parts: Sequence[Redactor]) -> None:
        self._parts = parts
        self.name = "+".join(part.name for part in parts)

    def find(self, text: str) -> list[Finding]:
        """Findings of all parts in order, without overlaps."""
        return rules.without_overlaps([finding for part in self._parts for finding in part.find(text)])


class SessionRedaction:
    """Redacts the strings of one session: the same value becomes the same placeholder in all of them.

    Values are numbered in the order of ``order``, the texts of the session, whatever the order in which
    they are redacted; it is read once, when the first value needs a number. What is not in it comes after.

    Attributes:
        counts: Placeholders in the texts returned so far, by type; a replaced identifier counts as IDENTIFIER.
    """

    def __init__(self, redactor: Redactor, key: bytes, order: Iterable[str] = ()) -> None:
        self._redactor, self._key = redactor, key
        self._order: Iterable[str] = order
        self._numbers: dict[str, dict[str, int]] = {}
        self._known: dict[str, tuple[str, list[Finding]]] = {}
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """The text with placeholders such as ``<EMAIL_1>``; numbers follow the first appearance in the session."""
        known = self._known.get(text)
        if known is None:
            findings = self._redactor.find(text)
            known = self._known[text] = (self._replace(text, findings) if findings else text, findings)
        for finding in known[1]:
            self.counts[finding.kind] += 1
        return known[0]

    def identifier(self, value: str) -> str:
        """The id, or a keyed hash of it if it holds anything to redact; equal for equal ids of all sessions."""
        if not self._redactor.find(value):
            return value
        self.counts["IDENTIFIER"] += 1
        return hidden_identifier(value, self._key)

    def json_text(self, text: str) -> str:
        """JSON text with every string in it redacted, keys too; text that is no JSON is redacted as text."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text)
        clean = self._value(value)
        if clean == value:
            return text
        escaped = "\\u" in text  # perhaps half a surrogate pair, which UTF-8 cannot hold
        return json.dumps(clean, ensure_ascii=escaped, separators=(",", ":"))

    def _value(self, value: Any) -> Any:
        """A decoded JSON value with redacted strings. json.loads bounds the depth of what can arrive here."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._value(item) for key, item in value.items()}
        if isinstance(value, int) and not isinstance(value, bool) and self._redactor.find(str(value)):
            return self.text(str(value))
        return value

    def _replace(self, text: str, findings: list[Finding]) -> str:
        parts, end = [], 0
        for finding in findings:
            number = self._number(finding.kind, text[finding.start : finding.end])
            parts += [text[end : finding.start], f"<{finding.kind}_{number}>"]
            end = finding.end
        return "".join([*parts, text[end:]])

    def _number(self, kind: str, value: str) -> int:
        order, self._order = self._order, ()
        for text in order:
            for finding in self._redactor.find(text):
                self._number(finding.kind, text[finding.start : finding.end])
        numbers = self._numbers.setdefault(kind, {})
        return numbers.setdefault(value, len(numbers) + 1)


def strings_in(value: Any) -> Iterator[str]:
    """All strings of a decoded JSON value, keys too, in the order of the text; deep values cost no stack."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [part for pair in reversed(item.items()) for part in reversed(pair)]
        elif isinstance(item, list):
            pending += reversed(item)


def hidden_identifier(value: str, key: bytes) -> str:
    """A keyed hash that stands for an identifier: equal ids stay equal, nobody without the key can test a guess."""
    return f"id-{hashlib.blake2b(value.encode(), key=key, digest_size=12).hexdigest()}"


def identifier_key(salt: str) -> bytes:
    """The key of :func:`hidden_identifier` that belongs to a salt of the settings."""
    return hashlib.sha256(f"sessionlake identifiers\x1f{salt}".encode()).digest()
