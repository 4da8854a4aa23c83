# Every target prepares .venv by itself; nothing else has to be installed but Python and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_FOR_ALL := $(VENV)/.ready-for-all
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

ANOMALIB := .venv-anomalib
READY_FOR_ANOMALIB := $(ANOMALIB)/.ready

.PHONY: help demo test test-all test-anomalib check clean
.DELETE_ON_ERROR:

help: ## say what there is
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 15

demo: $(READY) ## train, score and report on the embedded photographs: runs/demo/report.html
	$(BIN)/advrad demo --out runs/demo

test: $(READY) ## the tests that take seconds
	$(BIN)/python -m pytest

test-all: $(READY_FOR_ALL) ## the slow tests too, and those against other libraries
	$(BIN)/python -m pytest -m "not gpu"

test-anomalib: $(READY_FOR_ANOMALIB) ## attacks on models of anomalib, in an environment of its own
	$(ANOMALIB)/bin/python -m pytest -W default -p no:cacheprovider tests/interop_anomalib

check: $(READY) ## ruff, and mypy in strict mode
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src

clean: ## remove the environment, runs and caches
	rm -rf $(VENV) $(ANOMALIB) runs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "advrad needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)." \
	         "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "'$(PYTHON)' cannot make virtual environments: install its venv package" \
	         "(Debian, Ubuntu: python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[data,report,dev]'
	@touch $@

$(READY_FOR_ALL): $(READY)
	$(INSTALL) -e '.[test]'
	@touch $@

$(READY_FOR_ANOMALIB): $(READY) constraints-anomalib.txt
	$(PYTHON) -m venv $(ANOMALIB)
	$(ANOMALIB)/bin/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt -c constraints-anomalib.txt -e . anomalib pytest hypothesis
	@touch $@
