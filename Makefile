# `make demo` and `make test` are all that a new user needs; see README.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# A setting that some environments have makes every start several seconds slower.
unexport PYTHONDONTWRITEBYTECODE
unexport UV_PROJECT_ENVIRONMENT

PYTHON := .venv/bin/python
READY := .venv/.ready
# The uv that `make setup` found or installed.
UV = $(if $(wildcard .uv/bin/uv),.uv/bin/uv,uv)
# What `make audit` does if the database of vulnerabilities cannot be asked: fail or warn.
UNREACHABLE ?= fail
# How long `make fuzz` goes on.
SECONDS_OF_FUZZ ?= 600
# Of how many rounds `make bench-evaluation` shows the fastest.
ROUNDS ?= 1
SCRIPTS := .ci/run $(wildcard infra/*.sh infra/image/*.sh)

.PHONY: help setup demo test test-databases test-extended test-fast test-long test-newest lint image-lint audit sbom clean
.PHONY: bench bench-demo bench-qat bench-architectures bench-channel-spread bench-cifar10 bench-conversion bench-distributed bench-edge-tpu bench-evaluation bench-lineage bench-scale soak fuzz

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

test: setup ## Runs all tests but the extended and the long ones, two files at a time
	@$(PYTHON) -m pytest -m "not extended and not long" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-extended: setup ## Runs the tests that `make test` leaves out for time: kills, hostile files, golden conversions
	@$(PYTHON) -m pytest -m "extended and not long" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: setup ## Runs the tests that take longest: whole runs, kills, Vertex, every layer, nine architectures
	@$(PYTHON) -m pytest -m long --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/components/test_metadata_stores.py

test-databases: setup ## Runs the tests of ML Metadata in PostgreSQL and MariaDB; root installs these if they are missing
	@infra/install_databases.sh
	@$(PYTHON) -m pytest tests/components/test_metadata_stores.py tests/unit/test_metadata_connection.py

test-fast: setup ## Runs the tests that take seconds
	@$(PYTHON) -m pytest -m "not slow and not extended and not long"

test-newest: ## Runs the tests of `make test` on TFX 1.21 and Python 3.13 in a Debian 13 root; needs root
	@infra/newest.sh

fuzz: setup ## Breaks .tflite files for ten minutes, or SECONDS_OF_FUZZ, and audits them
	@$(PYTHON) -W ignore -m infra.fuzz_audit --seconds $(SECONDS_OF_FUZZ)

lint: setup image-lint ## Checks format, style, types, the direction of imports, and the image
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

image-lint: setup ## Checks the Dockerfile and the shell scripts
	@.venv/bin/hadolint infra/Dockerfile
	@.venv/bin/shellcheck $(SCRIPTS)

audit: setup ## Looks up known vulnerabilities of both stacks, into build/audit
	@$(UV) run --quiet --isolated --locked --only-group audit python -m infra.supply_chain.audit --unreachable $(UNREACHABLE)

sbom: setup ## Writes what both stacks consist of, as CycloneDX, into build/sbom
	@$(PYTHON) -m infra.supply_chain.sbom

bench: bench-demo bench-qat bench-conversion bench-evaluation ## Times the demo, training steps, conversions and evaluations

bench-demo: setup ## Times the demo, component by component, into build/bench/demo.json
	@$(PYTHON) -m infra.bench.demo

bench-qat: setup ## Times training steps in floats, with our fake quantization and with tfmot's, into build/bench
	@TF_USE_LEGACY_KERAS=1 $(PYTHON) -W ignore -m infra.bench.qat_steps

bench-conversion: setup ## Times conversions, ours and TensorFlow's, with their memory, into build/bench
	@$(PYTHON) -W ignore -m infra.bench.conversion

soak: setup ## Lets twenty spans arrive, some broken, at a scheduler that is killed, and prints what became of each
	@$(PYTHON) -m pytest tests/e2e/test_retraining.py -m long -rP -q

bench-lineage: setup ## Times lineage in stores of 280 and 2,800 runs, into build/bench/lineage.json
	@$(PYTHON) -W ignore -m infra.bench.lineage

bench-distributed: setup ## Times the digits pipeline on 1 and 2 Beam workers, into build/bench/distributed.json
	@$(PYTHON) -W ignore -m infra.bench.distributed

bench-scale: setup ## Measures how time and memory grow with examples, for `python -m pipelines cost`, into build/bench
	@$(PYTHON) -W ignore -m infra.bench.scale

bench-edge-tpu: setup ## Compares the Edge TPU predictor with compiled models in public, into build/bench
	@$(PYTHON) -W ignore -m infra.bench.edge_tpu_predictor

bench-evaluation: setup ## Times the evaluation of two models, ours, stock TFMA's and a bare loop, into build/bench
	@$(PYTHON) -W ignore -m infra.bench.evaluation --rounds $(ROUNDS)

bench-architectures: setup ## Compares integers with fake quantization in nine architectures, into build/bench
	@$(PYTHON) -W ignore -m infra.bench.architectures

bench-channel-spread: setup ## Compares our quantizer with tfmot's where channels differ in range, into build/bench
	@TF_USE_LEGACY_KERAS=1 $(PYTHON) -W ignore -m infra.bench.channel_spread

bench-cifar10: setup ## Fine-tunes MLPerf Tiny's ResNet8 with three seeds, into build/bench
	@$(PYTHON) -W ignore -m infra.bench.cifar10

clean: ## Removes what runs and builds left; keeps the environment
	@rm -rf runs build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
