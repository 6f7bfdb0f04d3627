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
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


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
