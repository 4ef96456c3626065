# The command surface. Every target does its own set-up; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo

.PHONY: help demo test check bench clean
help:            ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+: +##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,bench]'
	@touch $@

demo: $(VENV)/.stamp   ## simulate a session, run it through the loop, backtest it, write the report
	$(BIN)/tickrt demo --out $(OUT)

test: $(VENV)/.stamp-dev   ## the test suite
	$(BIN)/python -m pytest

check: $(VENV)/.stamp-dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.stamp-bench ## the CPU benchmarks; JSON into benchmarks/results/
	$(BIN)/python -m benchmarks

clean:           ## remove the environment and what the commands wrote
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
