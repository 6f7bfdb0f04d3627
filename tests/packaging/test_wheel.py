"""The wheel, installed into an empty environment without the sources, on every supported Python that is here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def interpreter(version):
    """A Python of that version: this one, one on the PATH that starts, or one of pyenv's."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    candidates = [shutil.which(f"python{version}")]
    candidates += sorted(str(p) for p in Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "pass"], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip(f"no Python {version} on this machine")


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT)
    return next(directory.glob("*.whl"))


@pytest.fixture(params=VERSIONS)
def installed(request, wheel, tmp_path):
    environment = tmp_path / "venv"
    run(interpreter(request.param), "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", ROOT / "requirements.lock")
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    return python


def test_the_demo_and_the_documented_imports_run_without_the_sources(installed, tmp_path):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SESSIONLAKE_"))}
    where = run(installed, "-c", "import archiver, pipelines; print(archiver.__file__)", cwd=tmp_path, env=clean)
    assert str(tmp_path) in where
    out = run(installed.parent / "sessionlake", "demo", "--sessions", "40", cwd=tmp_path, env=clean)
    assert "1. Live      40 sessions" in out
    assert "Try next" in out
    run(installed.parent / "sessionlake", "report", "--storage", "file:demo/lake", cwd=tmp_path, env=clean)
    assert (tmp_path / "report.html").stat().st_size > 50_000
    look = "import archiver, pathlib; print((pathlib.Path(archiver.__file__).parent / 'py.typed').exists())"
    assert run(installed, "-c", look, cwd=tmp_path, env=clean).strip() == "True"


def test_the_wheel_holds_nothing_but_the_two_packages(wheel):
    import zipfile

    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"archiver", "pipelines"}
