"""The built-in rules: what personal data and secrets look like, and how a look-alike is told apart.

A text first passes plain searches that together cost far less than the patterns; nearly every text
ends there. Then each rule whose own signs are in the text runs its pattern, and a checksum or a
plausibility test has the last word. Digits of every script count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

VERSION: Final = "1"


class Finding(NamedTuple):
    """A stretch of a text that must not be published."""

    start: int
    end: int
    kind: str


class _Rule(NamedTuple):
    """A pattern; ``check`` returns how much of a match counts, 0 for none.

    A group ``value`` in the pattern limits the finding to that group; ``before`` must match what ends where it starts.
    """

    kind: str
    pattern: str
    check: Callable[[str], int] = len
    before: str = ""


class _Compiled(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], int]
    before: re.Pattern[str] | None
    group: int | str


def find(text: str) -> list[Finding]:
    """Findings in order, without overlaps."""
    if not text.isascii() and _FOREIGN_DIGIT.search(text):
        text = text.translate(_TO_ASCII_DIGITS)  # character for character: positions stay
    findings = [finding for rule in _suspicions(text) for finding in _apply(rule, text, 0, len(text))]
    if _DIGIT_RUN.search(text):
        findings += [f for start, end in _windows(text) for rule in _NUMBERS for f in _apply(rule, text, start, end)]
    return without_overlaps(findings) if findings else findings


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Stretches around runs of digits, with room for the letters that numbers of some kinds begin and end with."""
    start = end = 0
    for run in _DIGIT_RUN.finditer(text):
        if run.start() - _WINDOW_CHARS > end:
            if end:
                yield start, end
            start = run.start() - _WINDOW_CHARS
        end = run.end() + _WINDOW_CHARS
    if end:
        yield max(0, start), end


def without_overlaps(findings: list[Finding]) -> list[Finding]:
    """Findings in order; of those that overlap the first stays, of those with one start the longest."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def _apply(rule: _Compiled, text: str, start: int, end: int) -> Iterator[Finding]:
    for match in rule.pattern.finditer(text, start, end):
        if rule.before and not rule.before.search(text, max(0, match.start() - _BEFORE_CHARS), match.start()):
            continue
        length = rule.check(match[rule.group])
        if length:
            first = match.start(rule.group)
            yield Finding(first, first + length, rule.kind)


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdecimal())


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(c), 10)) for c in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


_CARD_LENGTHS: Final = {"2": (16,), "3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": (16, 17, 18, 19)}
"""Digits of a card by its first one."""


def _card(text: str) -> int:
    digits = _digits(text)
    return len(text) if len(digits) in _CARD_LENGTHS.get(digits[0], ()) and _luhn(digits) else 0


def _iban(text: str) -> int:
    """The longest start of the match that is an IBAN: the words after it may look like more groups of it."""
    ends = [match.end() for match in re.finditer(r"[A-Z0-9](?![A-Z0-9])", text)]
    for end in reversed(ends):
        compact = re.sub(r"[ -]", "", text[:end])
        if 15 <= len(compact) <= 34:
            number = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
            if int(number) % 97 == 1:
                return end
    return 0


def _ipv4(text: str) -> int:
    octets = [int(octet) for octet in text.split(".")]
    local = octets[0] in (0, 127) or octets == [255] * 4
    return len(text) if max(octets) < 256 and not local else 0


def _ipv6(text: str) -> int:
    first = text.partition(":")[0]
    if text.count(":") < 3 and not (len(first) >= 3 and any(c.isdigit() for c in first)):
        return 0
    try:
        IPv6Address(text)
    except AddressValueError:
        return 0
    return len(text)


def _phone(text: str) -> int:
    digits = _digits(text)
    return len(text) if 8 <= len(digits) <= 15 and len(set(digits[-6:])) > 1 else 0


def _secret(text: str) -> int:
    has_digit, has_letter = any(c.isdigit() for c in text), any(c.isalpha() for c in text)
    return len(text) if has_digit and has_letter else 0


def _ssn(text: str) -> int:
    area, group, serial = text.split("-")
    valid = area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"
    return len(text) if valid else 0


def _cpf(text: str) -> int:
    digits = [int(c) for c in _digits(text)]
    for length in (9, 10):
        remainder = sum(d * (length + 1 - i) for i, d in enumerate(digits[:length])) * 10 % 11 % 10
        if remainder != digits[length]:
            return 0
    return len(text)


_VERHOEFF_D: Final = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_P: Final = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def _aadhaar(text: str) -> int:
    check = 0
    for i, digit in enumerate(reversed(_digits(text))):
        check = int(_VERHOEFF_D[check][int(_VERHOEFF_P[i % 8][int(digit)])])
    return len(text) if check == 0 else 0


def _chinese_id(text: str) -> int:
    month, day = int(text[10:12]), int(text[12:14])
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = "10X98765432"[sum(int(d) * w for d, w in zip(text[:17], weights, strict=True)) % 11]
    return len(text) if 1 <= month <= 12 and 1 <= day <= 31 and text[17].upper() == check else 0


def _spanish_id(text: str) -> int:
    compact = text.replace("-", "")
    number = compact[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return len(text) if "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == compact[-1] else 0


def _french_id(text: str) -> int:
    digits = _digits(text)
    return len(text) if 97 - int(digits[:13]) % 97 == int(digits[13:]) else 0


def _korean_id(text: str) -> int:
    month, day = int(text[2:4]), int(text[4:6])
    return len(text) if 1 <= month <= 12 and 1 <= day <= 31 else 0


def _italian_id(text: str) -> int:
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    values = [int(c) if c.isdigit() else ord(c) - 65 for c in text[:15]]
    total = sum(odd[value] if i % 2 == 0 else value for i, value in enumerate(values))
    return len(text) if chr(65 + total % 26) == text[15] else 0


_ZEROS: Final = (
    "\u0660\u06f0\u07c0\u0966\u09e6\u0a66\u0ae6\u0b66\u0be6\u0c66\u0ce6\u0d66\u0e50\u0ed0\u0f20\u1040\u17e0\u1810\uff10"
)
_DIGIT_RUN: Final = re.compile(r"[0-9](?:(?:[ ().\-\xa0]{0,2}[0-9]){5,}|[0-9][A-EHLMPRST][0-9]{2}[A-Z][0-9]{3})")
"""Six digits that belong together, or the middle of an Italian tax code."""
_WINDOW_CHARS: Final = 24
_FOREIGN_DIGIT: Final = re.compile("[" + "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in _ZEROS) + "]")
_COLONS: Final = re.compile(r":[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}")
_TO_ASCII_DIGITS: Final = {ord(zero) + digit: str(digit) for zero in _ZEROS for digit in range(10)}
_ASSIGNED: Final = re.compile(r"[=:][ \"']{0,3}[A-Za-z0-9_+\-]{4}")


_BEFORE: Final = r"(?<![A-Za-z0-9_])"
_AFTER: Final = r"(?![A-Za-z0-9_])"
_NO_NUMBER_BEFORE: Final = r"(?<![A-Za-z0-9_+])(?<![A-Za-z0-9][.,-])"

_TOKENS: Final = (
    r"gh[pousr]_[A-Za-z0-9]{30,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    r"sk-[A-Za-z0-9_-]{20,}",
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"xox[abeprs]-[A-Za-z0-9-]{10,}",
    r"A(?:KIA|SIA)[A-Z0-9]{16}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"hf_[A-Za-z0-9]{30,}",
    r"npm_[A-Za-z0-9]{30,}",
    r"pypi-[A-Za-z0-9_-]{40,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"shpat_[A-Za-z0-9]{32}",
    r"dop_v1_[A-Za-z0-9]{40,}",
)
_PHONES: Final = (
    r"(?<![A-Za-z0-9_.+])[+＋][0-9][0-9 ()\xa0.-]{6,18}[0-9]",
    _NO_NUMBER_BEFORE + r"00[1-9][0-9]{0,2}[ -][0-9]{2,4}[ -]?[0-9]{3,4}[ -]?[0-9]{2,4}" + _AFTER,
    _BEFORE + r"\([0-9]{2,4}\)[ -]?[0-9]{3,5}[ -][0-9]{4}" + _AFTER,
    _NO_NUMBER_BEFORE + r"[2-9][0-9]{2}([-.])[2-9][0-9]{2}\1[0-9]{4}(?![A-Za-z0-9_-])",
    _NO_NUMBER_BEFORE + r"0[1-9][0-9]{0,3}[ -][0-9]{3,4}[ -][0-9]{3,4}" + _AFTER,
    _NO_NUMBER_BEFORE + r"0[1-9][0-9]{1,3}[ -][0-9]{6,8}" + _AFTER,
    _NO_NUMBER_BEFORE + r"0[1-9](?:[ .-][0-9]{2}){4}" + _AFTER,
    _NO_NUMBER_BEFORE + r"1[3-9][0-9](?:[ -][0-9]{4}){2}" + _AFTER,
)
_EMAILS: Final = (
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]{1,64}[@＠](?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z])",
    r"(?<![\w.+\-])[\w.+\-]{1,64}[@＠](?:[\w-]{1,63}\.){1,8}[\w-]{2,63}",
)
_PRIVATE_KEY: Final = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
    r"(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_KEY_WORDS: Final = (
    r"(?i:api[_-]?key|access[_-]?key|(?:access|auth|api|bot|refresh)[_-]?token|secret(?:[_-]?key)?"
    r"|passw(?:or)?d|pwd)[\"']? {0,2}$"
)
_ASSIGNED_VALUE: Final = r"(?:=>?|:) {0,2}[\"']?(?P<value>[A-Za-z0-9_+/\-!#$%^&*=]{8,256})(?![(\[.])"
_CARDS: Final = (
    r"[0-9]{13,19}",
    r"[0-9]{4}(?:[ -][0-9]{4}){3}",
    r"[0-9]{4}(?:[ -][0-9]{4}){3}[ -][0-9]{1,3}",
    r"[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5}",
)


def _any_start(before: str, pattern: str) -> str:
    """The pattern at every start, also inside a match that failed its check: other digits may stand before."""
    return f"{before}(?=(?P<value>{pattern}))"


_ITALIAN_ID: Final = r"(?<![A-Za-z0-9])[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z](?![A-Za-z0-9])"
_NUMBER_RULES: Final = (
    _Rule("NATIONAL_ID", _ITALIAN_ID, _italian_id),
    _Rule("IBAN", _any_start(_BEFORE, r"[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?"), _iban),
    _Rule("NATIONAL_ID", _NO_NUMBER_BEFORE + r"[0-9]{3}-[0-9]{2}-[0-9]{4}(?![A-Za-z0-9_-])", _ssn),
    _Rule("NATIONAL_ID", _NO_NUMBER_BEFORE + r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}" + _AFTER, _cpf),
    _Rule("NATIONAL_ID", _NO_NUMBER_BEFORE + r"[2-9][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}" + _AFTER, _aadhaar),
    _Rule("NATIONAL_ID", _BEFORE + r"[1-9][0-9]{5}(?:19|20)[0-9]{9}[0-9Xx]" + _AFTER, _chinese_id),
    _Rule("NATIONAL_ID", _BEFORE + r"(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-Z]" + _AFTER, _spanish_id),
    _Rule(
        "NATIONAL_ID",
        _BEFORE + r"[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}" + _AFTER,
        _french_id,
    ),
    _Rule("NATIONAL_ID", _NO_NUMBER_BEFORE + r"[0-9]{6}-[1-4][0-9]{6}(?![A-Za-z0-9_-])", _korean_id),
    _Rule("NATIONAL_ID", _BEFORE + r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:[0-9]{2} ?){3}[A-D]" + _AFTER),
    *(_Rule("CARD", _any_start(_NO_NUMBER_BEFORE, card + _AFTER), _card) for card in _CARDS),
    _Rule("IP", r"(?<![A-Za-z0-9_.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9_-]|\.[0-9])", _ipv4),
    _Rule("PHONE", "|".join(f"(?:{phone})" for phone in _PHONES[:3]), _phone),
    _Rule("PHONE", _PHONES[3], _phone),
    _Rule("PHONE", "|".join(f"(?:{phone})" for phone in _PHONES[4:]), _phone),
)
_IPV6: Final = r"(?<![A-Za-z0-9_:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![A-Za-z0-9_:])"
_JWT: Final = _BEFORE + r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}"
_USER_INFO: Final = r"(?<=://)(?:[^\s/:@]{1,256}:[^\s/@]{1,256}|[^\s/:@]{16,256})(?=@)"


def _compile(*rules: _Rule) -> tuple[_Compiled, ...]:
    return tuple(
        _Compiled(
            rule.kind,
            re.compile(rule.pattern),
            rule.check,
            re.compile(rule.before) if rule.before else None,
            "value" if "(?P<value>" in rule.pattern else 0,
        )
        for rule in rules
    )


_BEFORE_CHARS: Final = 40
_NUMBERS: Final = _compile(*_NUMBER_RULES)
_RULES: Final = {
    "private key": _compile(_Rule("PRIVATE_KEY", _PRIVATE_KEY)),
    "web token": _compile(_Rule("TOKEN", _JWT)),
    "token": _compile(_Rule("TOKEN", f"{_BEFORE}(?:{'|'.join(_TOKENS)})")),
    "bearer": _compile(_Rule("TOKEN", r"[Bb]earer (?P<value>[A-Za-z0-9._~+/-]{16,}=*)", _secret)),
    "url": _compile(_Rule("URL_CREDENTIALS", _USER_INFO)),
    "assigned": _compile(_Rule("SECRET", _ASSIGNED_VALUE, _secret, _KEY_WORDS)),
    "at": _compile(_Rule("EMAIL", _EMAILS[0]), _Rule("EMAIL", _EMAILS[1])),
    "colons": _compile(_Rule("IP", _IPV6, _ipv6)),
}


def _suspicions(text: str) -> Iterator[_Compiled]:
    """The rules whose own signs are in the text; rare characters are looked for before what they are part of."""
    if "@" in text or "＠" in text:
        yield from _RULES["at"]
    if ":" in text or "=" in text:
        if _ASSIGNED.search(text):
            yield from _RULES["assigned"]
        if "://" in text:
            yield from _RULES["url"]
        if _COLONS.search(text):
            yield from _RULES["colons"]
    yield from _key_suspicions(text)


def _key_suspicions(text: str) -> Iterator[_Compiled]:
    if _has_key_prefix(text):
        yield from _RULES["token"]
    if "eyJ" in text:
        yield from _RULES["web token"]
    if "earer " in text:
        yield from _RULES["bearer"]
    if "-----BEGIN " in text:
        yield from _RULES["private key"]


def _has_key_prefix(text: str) -> bool:
    if "_" in text and _WITH_UNDERSCORE.search(text):
        return True
    if "-" in text and ("sk-" in text or "xox" in text or "glpat-" in text or "pypi-" in text):
        return True
    return "AKIA" in text or "ASIA" in text or "AIza" in text or "SG." in text or "ya29." in text


_WITH_UNDERSCORE: Final = re.compile(r"(?<=gh[pousr])_|(?<=[srhp][kf])_|_pat_|npm_|_v1_|shpat_")
