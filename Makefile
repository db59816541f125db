# `make demo` and `make test` are all that a new user needs; see README.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# A setting that some environments have makes every start several seconds slower.
unexport PYTHONDONTWRITEBYTECODE
unexport UV_PROJECT_ENVIRONMENT

PYTHON := .venv/bin/python
READY := .venv/.ready

.PHONY: help setup demo test test-fast lint bench clean

help: ## Shows this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Installs uv if it is missing, and the locked environment with compiled bytecode

$(READY): pyproject.toml uv.lock .python-version infra/setup.sh
	@infra/setup.sh
	@touch $@

demo: ## Runs the digits pipeline and shows its result
	@started=$$SECONDS; \
	$(MAKE) --silent --no-print-directory setup; \
	status=0; $(PYTHON) -m pipelines run digits || status=$$?; \
	echo "make demo took $$((SECONDS - started)) s, setup included"; \
	exit $$status

test: setup ## Runs all tests
	@$(PYTHON) -m pytest

test-fast: setup ## Runs the tests that take seconds
	@$(PYTHON) -m pytest -m "not slow"

lint: setup ## Checks format, style, types and the direction of imports
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup ## Times the demo, component by component, into build/bench/demo.json
	@$(PYTHON) -m infra.bench.demo

clean: ## Removes what runs and builds left; keeps the environment
	@rm -rf runs build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
