# Needs GNU make, git and python 3.11 or newer; everything else comes into .venv. Nothing is done twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := -m pip --disable-pip-version-check install --quiet
BENCH := bench/.venv-trl

.PHONY: help setup demo test check bench-setup
help:
	@echo "make setup        set up into $(VENV)"
	@echo "make demo         train and measure a persona on the embedded model; again: goes on from what is done"
	@echo "make test         check, then the test suite"
	@echo "make check        ruff and mypy"
	@echo "make bench-setup  TRL into $(BENCH), for bench/dpo_vs_trl.py and bench/bank_vs_trl.py"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "personalign needs python 3.11 or newer: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (some minutes, once)"
	@$(BIN)/python $(PIP) -r requirements.lock
	@$(BIN)/python $(PIP) --no-deps -e .
	@touch $@

demo: setup
	@$(BIN)/personalign run recipes/demo.yaml

test: check
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench-setup: $(BENCH)/.ready

$(BENCH)/.ready: requirements.lock
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python $(PIP) -r requirements.lock trl==1.16.0
	@touch $@
