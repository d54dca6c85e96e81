# Two commands: `make run` trains and promotes a model on the demo corpus, `make test` runs the whole suite.
# `make serve` shows Prefect, MLflow and a worker on this machine; ARGS="--help" says more.
PYTHON ?= python3
UV_VERSION = 0.13.8
BIN = .venv/bin
export VIRTUAL_ENV = $(CURDIR)/.venv
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run test serve env lock clean
run: env
	$(BIN)/dvc pull --quiet data.dvc
	$(BIN)/heartml retrain

serve: env
	$(BIN)/python -m flows.serve $(ARGS)

test: .venv/.test
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

env: .venv/.run

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

# Resolve anew after a change of pyproject.toml. No registry host goes into the files.
COMPILE = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: | .venv/bin/uv
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra test -c requirements.lock -o tests/requirements.lock

clean:
	rm -rf .venv artifacts .heartml reports
