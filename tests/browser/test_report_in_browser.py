"""The report as people meet it: right numbers under every filter, no network, no markup from data, usable by all."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import showcase
from archived import put, session

from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, lake
from pipelines.report.page import report

Open = Callable[..., Any]
SETTINGS = Settings(runner={"workers": 1})
WIDTHS = (320, 390, 1024, 1920)
THEMES = ("light", "dark")


@dataclass(frozen=True)
class Choice:
    """What somebody chose in the filters."""

    language: str | None = None
    actor_kind: str | None = None
    action: str | None = None
    level: str | None = None
    since: dt.date | None = None
    until: dt.date | None = None

    def allows(self, day: dt.date, language: str, **values: str) -> bool:
        if (self.since and day < self.since) or (self.until and day > self.until):
            return False
        given = {"language": language, **values}
        return all(getattr(self, name) in (None, value) for name, value in given.items())


FIRST = dt.date(2026, 6, 1)
CHOICES = (
    Choice(),
    Choice(language="de"),
    Choice(language="und", level="step"),
    Choice(actor_kind="model"),
    Choice(action="prune"),
    Choice(action="feedback", actor_kind="human", level="answer"),
    Choice(since=FIRST + dt.timedelta(3), until=FIRST + dt.timedelta(5)),
    Choice(language="ar", actor_kind="human", since=FIRST + dt.timedelta(4)),
    Choice(language="hi", until=FIRST),
)


def expected(store: DirectoryStore, choice: Choice) -> dict[str, Any]:
    """The headline numbers, counted row by row in plain Python."""
    sessions = lake.scan(store, "sessions").to_pylist()
    language = {s["session_uid"]: s["language"] or "und" for s in sessions}
    chosen = [s for s in sessions if choice.allows(s["dt"], language[s["session_uid"]])]
    verdicts = [
        f["label"]
        for f in lake.scan(store, "feedback").to_pylist()
        if f["is_latest"]
        and choice.allows(
            f["dt"], f["language"] or "und", actor_kind=f["actor_kind"], action=f["action_type"], level=f["level"]
        )
    ]
    acts = [
        i["action_type"]
        for i in lake.scan(store, "interactions").to_pylist()
        if choice.allows(i["dt"], language[i["session_uid"]], actor_kind=i["actor_kind"], action=i["action_type"])
    ]
    nodes = [n for n in lake.scan(store, "nodes").to_pylist() if choice.allows(n["dt"], language[n["session_uid"]])]
    return {
        "Nodes": f"{len(nodes):,}",
        "Sessions": f"{len(chosen):,}",
        "Messages": f"{sum(s['n_messages'] for s in chosen):,}",
        "Verdicts": f"{len(verdicts):,}",
        "Correct": f"{100 * verdicts.count('correct') / len(verdicts):.1f} %" if verdicts else "–",
        **{f"{name.capitalize()}s": f"{acts.count(name):,}" for name in ("prune", "inject", "resurrect")},
        "interval": interval(verdicts.count("correct"), len(verdicts)),
    }


def interval(k: int, n: int) -> str:
    """Wilson's 95 % interval by its textbook formula."""
    if n == 0:
        return "no verdicts"
    z = 1.959963984540054
    p = k / n
    root = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((p + z * z / (2 * n) + sign * root) / (1 + z * z / n) for sign in (-1, 1))
    return f"95 %: {100 * low:.1f} – {100 * high:.1f} %"


def choose(page: Any, choice: Choice) -> None:
    for name in ("language", "actor_kind", "action", "level"):
        value = getattr(choice, name)
        options = page.locator(f"select[name={name}] option")
        texts = options.all_text_contents()
        wanted = 0 if value is None else next(i for i, t in enumerate(texts) if t == value or t.endswith(f"({value})"))
        page.locator(f"select[name={name}]").select_option(index=wanted)
    for name, day in (("from", choice.since), ("to", choice.until)):
        if day is not None:
            page.locator(f"input[name={name}]").fill(day.isoformat())


def shown(page: Any) -> dict[str, str]:
    tiles = page.evaluate(
        """() => [...document.querySelectorAll("#tiles > div")].map((tile) =>
            [tile.querySelector("dt").textContent, tile.querySelector("dd").firstChild.textContent,
             tile.querySelector("small").textContent])"""
    )
    found = {name: value for name, value, _ in tiles}
    return found | {"interval": next(note for name, _, note in tiles if name == "Correct")}


def test_it_loads_without_errors_or_requests(open_page: Open, report_page: bytes) -> None:
    opened = open_page(report_page)
    opened.page.locator("#tiles dd").first.wait_for()
    assert opened.page.locator("canvas").count() == 6
    assert opened.troubles == []


def test_a_request_would_have_been_noticed(open_page: Open, report_page: bytes) -> None:
    opened = open_page(report_page)
    opened.page.evaluate("() => { new Image().src = 'https://sessionlake.invalid/x.png'; }")
    opened.page.wait_for_timeout(200)
    assert any("Content Security Policy" in trouble for trouble in opened.troubles)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_filters_give_the_numbers_of_the_tables(
    open_page: Open, report_page: bytes, lake_store: DirectoryStore, choice: Choice
) -> None:
    page = open_page(report_page).page
    choose(page, choice)
    assert shown(page) == expected(lake_store, choice)


def test_clearing_the_filters_brings_everything_back(
    open_page: Open, report_page: bytes, lake_store: DirectoryStore
) -> None:
    page = open_page(report_page).page
    choose(page, Choice(language="de", actor_kind="auto", since=FIRST + dt.timedelta(2)))
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("() => !location.hash.includes('language')")
    assert shown(page) == expected(lake_store, Choice())


def test_a_filtered_view_has_an_address(open_page: Open, report_page: bytes, lake_store: DirectoryStore) -> None:
    choice = Choice(language="ja", actor_kind="human", until=FIRST + dt.timedelta(6))
    page = open_page(report_page).page
    choose(page, choice)
    fragment = page.evaluate("() => location.hash")
    again = open_page(report_page, fragment=fragment).page
    assert shown(again) == expected(lake_store, choice)


def test_an_address_of_another_report_is_read_as_far_as_it_goes(open_page: Open, report_page: bytes) -> None:
    opened = open_page(report_page, fragment="#language=xx&actor_kind=%3Cb%3E&from=never&rate=1&level=answer")
    assert opened.page.locator("select[name=language]").input_value() == ""
    assert opened.page.locator("select[name=level] option:checked").text_content() == "answer"
    assert opened.troubles == []


@pytest.mark.parametrize("measure", ["correct", "partial", "incorrect"])
def test_rates_by_actor_kind_are_the_tables_rates(
    open_page: Open, report_page: bytes, lake_store: DirectoryStore, measure: str
) -> None:
    page = open_page(report_page).page
    page.get_by_role("radio", name=measure.capitalize(), exact=True).check()
    feedback = [f for f in lake.scan(lake_store, "feedback").to_pylist() if f["is_latest"]]
    rows = []
    for kind in {f["actor_kind"] for f in feedback}:
        labels = [f["label"] for f in feedback if f["actor_kind"] == kind]
        k = labels.count(measure)
        rows.append((-len(labels), kind, f"{len(labels):,}", f"{100 * k / len(labels):.1f} %",
                     interval(k, len(labels)).removeprefix("95 %: ")))  # fmt: skip
    found = page.evaluate(
        """() => [...document.querySelectorAll("#rates-actor_kind tbody tr")].map((row) => [
            row.querySelector("th").textContent, row.children[1].textContent,
            row.querySelector(".rate").textContent, row.querySelector("small").textContent])"""
    )
    assert found == [list(row[1:]) for row in sorted(rows)]


def test_an_interval_is_drawn_where_its_numbers_are(open_page: Open, report_page: bytes) -> None:
    page = open_page(report_page).page
    plot = page.locator("#rates-actor_kind tbody tr svg").first
    label = plot.get_attribute("aria-label")
    rate, low, high = (float(part.split()[0]) for part in label.replace("interval ", "").replace("–", ",").split(","))
    at = {name: plot.locator(".span").get_attribute(name) for name in ("x1", "x2")}
    assert abs(float(at["x1"].rstrip("%")) - low) < 0.06
    assert abs(float(at["x2"].rstrip("%")) - high) < 0.06
    assert abs(float(plot.locator("circle").get_attribute("cx").rstrip("%")) - rate) < 0.06


def test_the_table_behind_the_charts_adds_up(open_page: Open, report_page: bytes, lake_store: DirectoryStore) -> None:
    page = open_page(report_page).page
    page.get_by_text("The same numbers as a table").click()
    rows = page.evaluate(
        """() => [...document.querySelectorAll("#table-time tbody tr")].map((row) =>
            [...row.children].slice(1).map((cell) => Number(cell.textContent.replaceAll(",", ""))))"""
    )
    sums = [sum(column) for column in zip(*rows, strict=True)]
    total = expected(lake_store, Choice())
    assert sums[0] == int(total["Sessions"])
    assert sums[1] == int(total["Messages"])
    assert sum(sums[2:5]) == int(total["Verdicts"].replace(",", ""))
    assert sums[5] == int(total["Prunes"])


def test_sessions_by_language_follow_dates(open_page: Open, report_page: bytes, lake_store: DirectoryStore) -> None:
    page = open_page(report_page).page
    choice = Choice(since=FIRST + dt.timedelta(8), actor_kind="model")
    choose(page, choice)
    chosen = [s for s in lake.scan(lake_store, "sessions").to_pylist() if s["dt"] >= choice.since]
    found = page.evaluate(
        """() => [...document.querySelectorAll("#sessions-language tbody tr")].map((row) =>
            [row.querySelector(".code").textContent, row.children[2].textContent, row.children[3].textContent,
             row.children[4].textContent])"""
    )
    counted = {code: [s["n_messages"] for s in chosen if (s["language"] or "und") == code] for code, *_ in found}
    assert sum(len(messages) for messages in counted.values()) == len(chosen)
    assert found == [
        [code, f"{len(messages)}", f"{100 * len(messages) / len(chosen):.1f} %", f"{sum(messages)}"]
        for code, messages in counted.items()
    ]


def test_the_funnel_names_reasons_and_how_to_make_the_missing_sets(open_page: Open, report_page: bytes) -> None:
    text = open_page(report_page).page.locator("#training").inner_text()
    assert "answer_incorrect" in text
    assert "sessionlake export stepwise" in text


# Looks


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(open_page: Open, report_page: bytes, width: int) -> None:
    page = open_page(report_page, width=width).page
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_charts_follow_the_width(open_page: Open, report_page: bytes) -> None:
    page = open_page(report_page, width=1400).page
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("() => document.querySelector('#chart-sessions .uplot').clientWidth < 390")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("theme", THEMES)
def test_the_system_decides_the_theme_until_somebody_chooses(open_page: Open, report_page: bytes, theme: str) -> None:
    page = open_page(report_page, theme=theme).page
    background = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    assert (sum(int(part) for part in before[4:-1].split(",")) > 380) == (theme == "light")
    page.get_by_role("button", name="Switch to the").click()
    assert page.evaluate(background) != before
    page.reload()
    assert page.evaluate(background) != before


# Everybody


@pytest.mark.parametrize(
    ("width", "theme"),
    [(390, "dark"), (1024, "light"), pytest.param(1024, "dark", marks=pytest.mark.slow),
     pytest.param(390, "light", marks=pytest.mark.slow)],
)  # fmt: skip
def test_no_violations_of_the_accessibility_rules(open_page: Open, report_page: bytes, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = open_page(report_page, theme=theme, width=width, bypass_csp=True).page
    found = axe.run(page).response["violations"]
    assert [(v["id"], [node["target"] for node in v["nodes"]][:3]) for v in found] == []


def test_the_keyboard_reaches_the_filters_and_changes_them(open_page: Open, report_page: bytes) -> None:
    page = open_page(report_page).page
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the numbers"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    page.locator("select[name=language]").focus()
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = page.locator("#status").text_content()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("(before) => document.querySelector('#status').textContent !== before", arg=before)


def test_without_scripts_the_page_says_what_it_needs(open_page: Open, report_page: bytes) -> None:
    page = open_page(report_page, java_script_enabled=False).page
    assert "allow its scripts" in page.locator("noscript").inner_text()


# Odd lakes


def test_no_tables_and_no_sessions_say_what_to_do(open_page: Open, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    before = open_page(report(store, SETTINGS, now_us=showcase.NOW_US))
    assert "There are no tables yet." in before.page.locator("main").inner_text()
    put(store, 1, [session(1, metadata='{"consent": "none"}')])
    compaction.compact(store, SETTINGS, now_us=showcase.NOW_US)
    after = open_page(report(store, SETTINGS, now_us=showcase.NOW_US))
    assert "The tables hold no session yet." in after.page.locator("main").inner_text()
    assert not after.page.locator("#filters").is_visible()
    assert before.troubles == after.troubles == []


def test_one_session_without_verdicts(open_page: Open, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    put(store, 1, [session(1, interactions=(), language=None, graph_state=None)])
    compaction.compact(store, SETTINGS, now_us=showcase.NOW_US)
    opened = open_page(report(store, SETTINGS, now_us=showcase.NOW_US))
    found = shown(opened.page)
    assert (found["Sessions"], found["Verdicts"], found["Correct"]) == ("1", "0", "–")
    assert opened.troubles == []


def test_a_gap_in_the_archive_stands_first_among_the_findings(open_page: Open, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    for sequence in (1, 3):
        put(store, sequence, [session(sequence)])
    compaction.compact(store, SETTINGS, now_us=showcase.NOW_US)
    findings = open_page(report(store, SETTINGS, now_us=showcase.NOW_US)).page.locator("#findings li")
    assert "segment 2 of its sequence is missing" in findings.first.inner_text()
    assert "No gap" not in " ".join(findings.all_inner_texts())


HOSTILE = (
    "<script>window.pwned=1</script>", "<img src=x onerror=pwned=1>", "\u202eesrever", "👩‍👩‍👧",
    "a" * 1_000_000, "", "EN-us-x", "constructor", "__proto__",
)  # fmt: skip


def test_hostile_languages_and_actions_are_shown_as_text(open_page: Open, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "lake")
    hostile = []
    for n, text in enumerate(HOSTILE):
        made = session(n, language=text)
        acts = tuple(act._replace(action_type=text or "x", feedback="correct") for act in made.interactions)
        hostile.append(replace(made, interactions=acts))
    put(store, 1, hostile)
    compaction.compact(store, SETTINGS, now_us=showcase.NOW_US)
    opened = open_page(report(store, SETTINGS, now_us=showcase.NOW_US))
    page = opened.page
    assert page.evaluate("() => [typeof window.pwned, document.querySelectorAll('main img, main script').length]") == [
        "undefined", 0,
    ]  # fmt: skip
    labels = page.locator("select[name=language] option").all_text_contents()
    assert "<script>window.pwned=1</script>" in labels
    assert "(empty)" in labels
    for text in ("__proto__", "constructor", "<img src=x onerror=pwned=1>"):
        page.locator("select[name=language]").select_option(label=text)
        assert shown(page)["Sessions"] == "1"
    assert opened.troubles == []


def test_markup_made_of_text_would_be_refused(open_page: Open, report_page: bytes) -> None:
    page = open_page(report_page).page
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>'; return false; } catch (e) { return e instanceof TypeError; } }"
    )
    assert refused


@pytest.mark.parametrize("years", [1, *(pytest.param(years, marks=pytest.mark.slow) for years in (0, 30, 4000))])
def test_any_stretch_of_time_can_be_drawn(open_page: Open, tmp_path: Path, years: int) -> None:
    store = DirectoryStore(tmp_path / "lake")
    year_us = 365 * showcase.DAY_US
    first = session(1)
    put(store, 1, [first, session(2, created_at_us=first.created_at_us + years * year_us)])
    compaction.compact(store, SETTINGS, now_us=showcase.NOW_US)
    opened = open_page(report(store, SETTINGS, now_us=showcase.NOW_US), width=390)
    assert shown(opened.page)["Sessions"] == "2"
    assert opened.page.locator("#chart-sessions canvas").count() == 1
    cells = opened.page.locator("#table-time tbody tr td:nth-child(2)").all_text_contents()
    assert sum(int(cell) for cell in cells) == 2, "days fold into longer bars and none is lost"
    assert opened.troubles == []
