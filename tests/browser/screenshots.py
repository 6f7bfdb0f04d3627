"""Makes docs/screenshots/: the report and a session's page, at three widths, in both themes.

Run it by hand from the repository after a change of the pages, and look at what it made:
``PYTHONPATH=.:tests/support python tests/browser/screenshots.py``. Needs Chromium, playwright and pillow.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import showcase
from PIL import Image
from playwright.sync_api import sync_playwright

from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import exports
from pipelines.report.page import report
from pipelines.report.session_page import session_page
from pipelines.schema import EXPORTS

TARGET: Final = Path("docs/screenshots")
WIDTHS: Final = (390, 1024, 1920)
SETTINGS: Final = Settings(runner={"workers": 1})
COLOURS: Final = 192
"""A palette keeps a picture of a whole page below 300 KB."""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, content in _pages(Path(directory)).items():
            path = Path(directory) / f"{name}.html"
            path.write_bytes(content)
            for width in WIDTHS:
                for theme in ("light", "dark"):
                    _take(browser, path, TARGET / f"{name}-{width}-{theme}.png", width, theme)
        browser.close()


def _pages(directory: Path) -> dict[str, bytes]:
    store = DirectoryStore(directory / "lake")
    sessions = list(showcase.records(1_500))
    showcase.build(store, sessions)
    for name in tuple(EXPORTS)[:-1]:
        exports.export(store, SETTINGS, name, now_us=showcase.NOW_US)
    busiest = max(
        (s for s in sessions if s.language == "de"),
        key=lambda s: (len({i.action_type for i in s.interactions}), len(s.interactions)),
    )
    page = report(store, SETTINGS, now_us=showcase.NOW_US).replace(store.url.encode(), b"file:///srv/lake")
    return {"report": page, "session": session_page(busiest)}


def _take(browser: Any, path: Path, target: Path, width: int, theme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    page.goto(f"file://{path}")
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    _few_colours(picture).save(target, optimize=True)
    context.close()


def _few_colours(picture: Image.Image) -> Image.Image:
    """The same with COLOURS colours: common and vivid ones stay exact, only the edges of letters give way."""
    pixels = np.asarray(picture)
    flat = pixels.reshape(-1, 3).astype(np.int32)
    found, where, counts = np.unique(flat @ [65_536, 256, 1], return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    vividness = colours.max(axis=1) - colours.min(axis=1)
    kept = colours[np.argsort(-counts * (1 + vividness), kind="stable")[:COLOURS]]
    nearest = ((colours[:, None, :] - kept[None, :, :]) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    drawn = Image.fromarray(nearest[where].reshape(pixels.shape[:2]), "P")
    drawn.putpalette(kept.astype(np.uint8).tobytes())
    return drawn


if __name__ == "__main__":
    main()
