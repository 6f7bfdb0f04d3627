"""Headless Chromium over a made-up lake: pages opened from a file, every request and console message noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import showcase

from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import exports
from pipelines.report.page import report

CHROMIUM = Path("/usr/bin/chromium")
SETTINGS = Settings(runner={"workers": 1})


@dataclass
class Opened:
    """A page in the browser and everything it did that it should not."""

    page: Any
    troubles: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM} (Debian package chromium)")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Open a page's bytes; ``fragment``, width, theme and other settings of the browser are options."""
    contexts = []

    def open_(content: bytes, *, width: int = 1024, theme: str = "light", fragment: str = "", **options: Any) -> Opened:
        path = tmp_path / f"page-{len(contexts)}.html"
        path.write_bytes(content)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.troubles.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.troubles.append(f"error: {error}"))
        opened.page.on("request", lambda request: opened.troubles.extend(_elsewhere(request.url, path)))
        opened.page.goto(f"file://{path}{fragment}")
        return opened

    yield open_
    for context in contexts:
        context.close()


def _elsewhere(url: str, path: Path) -> list[str]:
    return [] if url.startswith((f"file://{path}", "data:")) else [f"request: {url}"]


@pytest.fixture(scope="session")
def lake_store(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    """Two hundred made-up sessions over ten days, two training sets exported."""
    store = DirectoryStore(tmp_path_factory.mktemp("browser") / "lake")
    showcase.build(store, showcase.records(200, days=10))
    for name in ("sft", "preferences"):
        exports.export(store, SETTINGS, name, now_us=showcase.NOW_US)
    return store


@pytest.fixture(scope="session")
def report_page(lake_store: DirectoryStore) -> bytes:
    return report(lake_store, SETTINGS, now_us=showcase.NOW_US)
