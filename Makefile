# Every target does all its own set-up: Python 3.11, make and git are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-trainers check bench docs record lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.run: requirements.lock pyproject.toml
	@echo "setting up $(VENV) from requirements.lock"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "setting up $(VENV) from requirements-dev.lock"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.run  ## sessions, feedback, archive, tables and a training set, in one directory
	@$(BIN)/sessionlake demo

test: $(VENV)/.dev  ## the quick suite
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(VENV)/.dev  ## the quick suite and the slow one: crashes, storms, races
	$(BIN)/python -m pytest -n auto

test-trainers:  ## train two steps with TRL on every export (installs torch in a venv of its own)
	$(MAKE) -C tests/trainers PYTHON="$(PYTHON)"

check: $(VENV)/.dev  ## formatting, lint, types, import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## reproduce every performance claim, peers side by side
	$(BIN)/sessionlake bench all

docs: $(VENV)/.dev  ## rewrite the generated pages, build the site into build/site
	$(BIN)/python docs/generate.py
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

record:  ## record the pages again, each in a fresh clone and an empty environment, and how long it takes
	$(PYTHON) tests/support/clean_machine.py README.md docs/index.md docs/howto/*.md

lock:  ## rewrite the hash-pinned locks from pyproject.toml (needs uv)
	printf 'hatchling\neditables\n' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock pyproject.toml -
	printf 'hatchling\neditables\n' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml -

clean:  ## remove what the targets made
	rm -rf $(VENV) demo build dist
