# `make` alone lists the targets. Each goes through the environment in .venv, which is made when it is missing.
PYTHON ?= python3
UV_VERSION = 0.13.8
BIN = .venv/bin
export VIRTUAL_ENV = $(CURDIR)/.venv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PAGE = reports/simulated-murmur.html

.DEFAULT_GOAL = help
.PHONY: help run serve test test-thorough test-fast check picture env lock lock-demo clean
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: env ## Train, judge and promote a model on the demo corpus; ends with the path of its report
	$(BIN)/dvc pull --quiet data.dvc
	$(BIN)/heartml retrain

serve: env ## Show Prefect, MLflow and a worker on this machine; ARGS="--help" says more
	$(BIN)/python -m flows.serve $(ARGS)

test: .venv/.test ## The whole suite (about 20 minutes on two cores)
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

test-thorough: .venv/.test ## The suite with two random moments for each fault, and every stage killed (an hour)
	HEARTML_FAULT_ROUNDS=2 $(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

test-fast: .venv/.test ## The tests that need no server and kill nothing (under three minutes)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

check: .venv/.test ## Lint, import contracts and types (under a minute)
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

picture: env ## Make docs/images/report.webp, the README's picture, from PAGE=reports/simulated-murmur.html
	$(BIN)/python docs/make_picture.py $(PAGE)

env: .venv/.run ## Install the locked environment into .venv (about 6 GB)

.venv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "HeartML needs Python 3.11 or newer; try: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.run: requirements.lock pyproject.toml | .venv/bin/uv
	@echo "Installing the locked environment into .venv (about 6 GB; a minute with a quick network) ..."
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/.test: tests/requirements.lock .venv/.run
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r tests/requirements.lock
	touch $@

# No registry host goes into the files.
COMPILE = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock-demo: env ## Train the demo anew for its dvc.lock and metrics in git, after a change of the code
	$(BIN)/dvc pull --quiet data.dvc
	$(BIN)/dvc repro
	$(BIN)/python -m heartml.pipeline.lock_demo

lock: | .venv/bin/uv ## Resolve the locks anew, after a change of pyproject.toml
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra test -c requirements.lock -o tests/requirements.lock

clean: ## Remove the environment, outputs, caches and reports (data stay)
	rm -rf .venv artifacts .heartml reports
