"""Documents are part of the product: what they show runs, what they name exists, what is generated is current."""

import importlib.util
import json
import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in ROOT.glob("docs/**/*.md") if not p.is_symlink())])


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_current(generate):
    assert (ROOT / "docs" / "TABLES.md").read_text() == generate.tables_page(), "run make docs"
    assert (ROOT / "docs" / "CLI.md").read_text() == generate.cli_page(), "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert dead_links(page, page.read_text()) == []


def test_a_dead_link_is_noticed():
    page = ROOT / "docs" / "index.md"
    text = "[a](nowhere.md) [b](OPERATIONS.md#nowhere) [c](OPERATIONS.md#readers) [d](#here)\n\n## Here\n"
    assert dead_links(page, text) == ["nowhere.md", "OPERATIONS.md#nowhere"]


def dead_links(page, text):
    """Targets within the repository that are not there: files, and headings of pages."""
    found = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith(("http:", "https:", "mailto:"))]
    return [target for target in found if not leads_somewhere(page, text, *target.partition("#")[::2])]


def leads_somewhere(page, text, name, anchor):
    path = page.parent / name if name else page
    if not path.exists():
        return False
    return not anchor or anchor in anchors(path.read_text() if name else text)


def anchors(text):
    """Headings as the site and code hosts name them in links."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["local.toml", "s3.toml", "dask.toml"])
def test_every_configuration_loads(name):
    from archiver.settings import load_settings

    path = ROOT / "configs" / name
    settings = load_settings(path)
    for section, values in tomllib.loads(path.read_text()).items():
        assert set(values) <= set(getattr(settings, section).model_dump()), name


def test_the_local_configuration_shows_the_defaults(monkeypatch):
    from archiver.settings import Settings, load_settings

    for name in [n for n in os.environ if n.startswith("SESSIONLAKE_")]:
        monkeypatch.delenv(name)
    assert load_settings(ROOT / "configs" / "local.toml") == Settings()


def test_json_configurations_are_json():
    for path in (ROOT / "configs").rglob("*.json"):
        assert json.loads(path.read_text()), path
