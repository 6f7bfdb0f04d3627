"""Documents are part of the product: what they show runs, what they name exists, what is generated is current."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in ROOT.glob("docs/**/*.md") if not p.is_symlink())])
README = (ROOT / "README.md").read_text()


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


def test_the_readme_is_short_and_its_first_screen_is_the_demo(generate):
    lines = README.splitlines()
    assert len(lines) <= 150
    assert lines.index("$ make demo") < 20


def masked(text):
    """Without what differs from run to run: times, rates, sizes, and digests of times."""
    text = re.sub(r"[\d,.]+ (s|appends a second|KiB)\b", r"N \1", text)
    return re.sub(r"v\d{6}-[0-9a-f]+", "VERSION", text)


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory, generate):
    directory = tmp_path_factory.mktemp("readme")
    return directory, generate.demo_output(directory)


def test_the_readme_shows_what_the_demo_prints(after_demo):
    shown = README.split("<!-- demo -->")[1].split("<!-- /demo -->")[0].strip().removeprefix("```text\n")
    assert masked(shown.removesuffix("\n```")) == masked(after_demo[1])


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(block):
    """Commands of a console block: lines after ``$``, with their continuation lines."""
    return [c.strip() for c in re.split(r"^\$ ", block, flags=re.MULTILINE) if c.strip()]


def test_every_block_of_the_readme_runs(after_demo):
    directory, _ = after_demo
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    script = 'set -e\nexport SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS=0\nsessionlake() { python -m pipelines "$@"; }\n'
    for block in blocks(README, "console"):
        script += "".join(f"{c}\n" for c in commands(block) if not c.startswith("make"))
    first, second = blocks(README, "python")
    ran = subprocess.run(
        [sys.executable, "-c", first], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "What is 6 × 7?"), ran.stderr
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 session archived in 1 segment" in done.stdout
    version = re.search(r"exports/preferences/(v\d+-[0-9a-f]+)", done.stdout)[1]
    ran = subprocess.run(
        [sys.executable, "-c", second.replace("VERSION", version)],
        env={**environment, "HF_HOME": str(directory / "hf")},
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "'prompt', 'chosen', 'rejected'" in ran.stdout
    assert (directory / "demo" / "report.html").stat().st_size > 10_000


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
