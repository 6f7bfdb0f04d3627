from __future__ import annotations

import json

import pytest
from replays import real_records

from pipelines.redact import (
    Finding,
    NoRedactor,
    PresidioRedactor,
    Redactors,
    RuleRedactor,
    SessionRedaction,
    identifier_key,
    strings_in,
)

PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq\n-----END RSA PRIVATE KEY-----"
PLANTS = {
    "EMAIL": ["anna.schmidt+x@example.co.uk", "юля@пример.рф", "li.wei@qq.com", "ΑΝΝΑ@παράδειγμα.gr", "a_b@x.io"],
    "PHONE": [
        "+1 (415) 555-0132", "+49 30 901820", "020 7946 0958", "+972-50-123-4567", "(415) 555-0132", "415-555-0132",
        "06 12 34 56 78", "(11) 91234-5678", "138 0013 8000", "0049 30 901820", "+٩٧١ ٥٠ ١٢٣ ٤٥٦٧", "+९१ ९८७६५ ४३२१०",
        "+８１ ９０ １２３４ ５６７８", "+৮৮০ ১৭১১ ১২৩৪৫৬", "+๖๖ ๒ ๑๒๓ ๔๕๖๗",
    ],
    "CARD": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011000990139424"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606"],
    "IP": ["203.0.113.77", "2001:db8:85a3::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"],
    "NATIONAL_ID": [
        "536-90-4399", "529.982.247-25", "2341 2341 2346", "11010519491231002X", "12345678Z", "X1234567L",
        "1 84 12 76 451 089 46", "900101-1234567", "RSSMRA85T10A562S", "AB 12 34 56 C",
    ],
    "TOKEN": [
        "AKIAIOSFODNN7EXAMPLZ", "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8", "github_pat_" + "a1B2" * 6, "glpat-" + "x1" * 10,
        "sk-proj-" + "a1b2" * 8, "sk_live_" + "a1b2" * 6, "xoxb-123456789012-abcdef", "AIza" + "a1B2c" * 7,
        "hf_" + "aB3" * 11, "npm_" + "aB3" * 12, "SG." + "a1" * 11 + "." + "b2" * 20, "shpat_" + "0f" * 16,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ],
    "PRIVATE_KEY": [PRIVATE_KEY, PRIVATE_KEY.replace("RSA ", "")],
}  # fmt: skip
INSIDE = {
    "URL_CREDENTIALS": [("https://bob:s3cretpw@db.example.com/x", "bob:s3cretpw")],
    "SECRET": [
        ("api_key = 'a1b2c3d4e5f6'", "a1b2c3d4e5f6"),
        ("password: hunter2hunter2", "hunter2hunter2"),
        ('"client_secret": "Zx81kk22PP"', "Zx81kk22PP"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ],
    "TOKEN": [("Authorization: Bearer abcdefghijklmnop1234", "abcdefghijklmnop1234")],
}
CARRIERS = {
    "Latin": "Please write to {} today.",
    "Cyrillic": "Пишите на {} сегодня.",
    "Greek": "Γράψτε στο {} σήμερα.",
    "Arabic": "اكتب إلى {} اليوم",
    "Hebrew": "כתבו אל {} היום",
    "Devanagari": "आज {} पर लिखें",
    "Bengali": "আজ {} এ লিখুন",
    "Thai": "เขียนถึง {} วันนี้",
    "Chinese": "请联系 {} 谢谢",
    "Chinese, unspaced": "请联系：{}，谢谢",
    "Japanese": "「{}」までご連絡ください",
    "Korean": "오늘 {} 로 연락하세요",
}
LOOKALIKES = [
    "3.14159265358979323846", "1234567890123456", "4111 1111 1111 1112", "DE89370400440532013001", "v1.2.3.4.5",
    "127.0.0.1", "999.1.1.1", "12:30:45", "std::vector<int>::iterator", "a::b", "2026-10-03T10:00:00",
    "8618bae8-45a4-414b-80a5-85b927265e47", "x = f(12345678, 9)", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "000-12-3456", "529.982.247-26", "12345678A", "@decorator", "user @ host", "token = get_token()",
    "password = input()", "sk-learn", "1,234,567.89", "100000 200000", "https://example.com:8080/path", "1984-1985",
    "0.5 1000 2000", "phone", "+1", "a+12345678",
]  # fmt: skip


def found(text: str) -> list[tuple[str, str]]:
    return [(f.kind, text[f.start : f.end]) for f in RuleRedactor().find(text)]


@pytest.mark.parametrize("script", CARRIERS)
def test_plants_are_found_in_every_script(script: str) -> None:
    for kind, plants in PLANTS.items():
        for plant in plants:
            assert found(CARRIERS[script].format(plant)) == [(kind, plant)]


def test_plants_between_other_numbers_go_whole() -> None:
    for plant in (plant for kind in ("PHONE", "CARD", "IBAN", "NATIONAL_ID", "IP") for plant in PLANTS[kind]):
        assert any(plant in value for _, value in found(f"1234 {plant} 5 6")), plant


@pytest.mark.parametrize("script", CARRIERS)
def test_only_the_secret_part_goes(script: str) -> None:
    for kind, plants in INSIDE.items():
        for plant, secret in plants:
            assert found(CARRIERS[script].format(plant)) == [(kind, secret)]


@pytest.mark.parametrize("text", LOOKALIKES)
def test_lookalikes_stay(text: str) -> None:
    assert found(text) == []
    assert found(f"Well, {text} it is.") == []


@pytest.mark.realdata
def test_nothing_is_flagged_in_real_texts_but_what_is_there() -> None:
    texts = [m.content or "" for record, _ in real_records("sessions") for m in record.messages]
    flagged = {i: {value for _, value in found(text)} for i, text in enumerate(texts) if found(text)}
    assert len(texts) == 25_947
    assert {next(iter(values)).rpartition(".")[0].rpartition("@")[2] for values in flagged.values()} <= {
        "192.168.1", "192.168.2", "255.255.0", "255.255.255", "10.20.123", "mysite", "jetbrains", "company",
        "corporate", "firm", "smartenergygrid", "socialgameplatform",
    }  # fmt: skip
    assert len(flagged) == 5
    clean = [text for i, text in enumerate(texts) if i not in flagged][::25]
    assert len(clean) > 1000
    assert [text for text in clean if found(text)] == []


def test_a_key_without_its_end_takes_the_rest() -> None:
    assert found(f"key: {PRIVATE_KEY.partition('-----END')[0]} and more")[0][1].endswith("and more")


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "1" * 200_000, "1 " * 100_000, ":" * 99_999, "a@" * 50_000, "A1" * 99_999, "=" * 99_999,
             "-----BEGIN " * 9_999, "eyJ" * 50_000, "password" * 20_000, "+1" * 50_000],
)  # fmt: skip
def test_hostile_texts_end(text: str) -> None:
    assert len(RuleRedactor().find(text)) < 50_001


def redaction(*order: str) -> SessionRedaction:
    return SessionRedaction(RuleRedactor(), identifier_key("v1"), order)


def test_the_same_value_is_the_same_placeholder() -> None:
    session = redaction()
    assert session.text("a@x.io, b@x.io and a@x.io") == "<EMAIL_1>, <EMAIL_2> and <EMAIL_1>"
    assert session.text("b@x.io") == "<EMAIL_2>"
    assert session.text("nothing") == "nothing"
    assert session.counts == {"EMAIL": 4}


def test_numbers_follow_the_order_of_the_session() -> None:
    session = redaction("first a@x.io", "then b@x.io")
    assert session.text("b@x.io c@x.io") == "<EMAIL_2> <EMAIL_3>"
    assert session.text("a@x.io") == "<EMAIL_1>"


def test_identifiers_become_keyed_hashes() -> None:
    session, other = redaction(), redaction()
    hidden = session.identifier("ann@example.com")
    assert hidden == other.identifier("ann@example.com")
    assert hidden.startswith("id-")
    assert hidden != SessionRedaction(RuleRedactor(), identifier_key("v2")).identifier("ann@example.com")
    assert session.identifier("node-7") == "node-7"
    assert session.counts == {"IDENTIFIER": 1}


def test_every_string_of_json_is_redacted() -> None:
    text = json.dumps(
        {"nodes": {"ann@x.io": {"content": ["call +49 30 901820", 4111111111111111]}}, "n": 1.5, "b": True}
    )
    clean = redaction().json_text(text)
    assert json.loads(clean) == {
        "nodes": {"<EMAIL_1>": {"content": ["call <PHONE_1>", "<CARD_1>"]}}, "n": 1.5, "b": True,
    }  # fmt: skip
    assert redaction().json_text('{"a":  1}') == '{"a":  1}'
    assert redaction().json_text("no json a@x.io") == "no json <EMAIL_1>"
    assert redaction().json_text('"\\u0061@x.io"') == '"<EMAIL_1>"'


def test_strings_in_order_and_without_recursion() -> None:
    assert list(strings_in({"a": ["b", {"c": "d"}], "e": 1})) == ["a", "b", "c", "d", "e"]
    deep: list[object] = ["end"]
    for _ in range(50_000):
        deep = [deep]
    assert list(strings_in(deep)) == ["end"]


class _Names:
    name = "names"

    def find(self, text: str) -> list[Finding]:
        start = text.find("Ann")
        return [Finding(start, start + 3, "PERSON")] if start >= 0 else []


def test_redactors_combine() -> None:
    both = Redactors([RuleRedactor(), _Names()])
    assert both.name == "rules-1+names"
    session = SessionRedaction(both, b"k")
    assert session.text("Ann, ann@x.io") == "<PERSON_1>, <EMAIL_1>"
    assert SessionRedaction(NoRedactor(), b"k").text("ann@x.io") == "ann@x.io"


def test_presidio_is_a_redactor() -> None:
    class Result:
        start, end, entity_type = 0, 3, "PERSON"

    class Analyzer:
        def analyze(self, text: str, language: str, *, score_threshold: float) -> list[Result]:
            assert (language, score_threshold) == ("de", 0.5)
            return [Result()]

    redactor = PresidioRedactor(Analyzer(), language="de", score=0.5)
    assert redactor.find("Ann kam") == [Finding(0, 3, "PERSON")]
