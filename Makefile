# The command surface. Every target does its own set-up and says what it does and about how long it
# takes (on two cores, with a quick package index); `make help` lists them.
SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo

# Package by package, so that a minute of installing is not a minute of silence; errors pass.
INSTALL = $(BIN)/python -u -m pip install --disable-pip-version-check --progress-bar off
NAMES   = 2> >(grep -v ^WARNING >&2) | sed -un -e 's/^Collecting \([^ ]*\).*/      \1/p' \
	-e 's/^Installing collected.*/      unpacking all of these …/p' -e '/^ERROR/p'

.PHONY: help demo test check docs bench clean
help:            ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+: +##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.stamp: pyproject.toml
	@echo "==> environment in $(VENV) (about 5 s)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> installing tickrt with numba, ONNX Runtime, hftbacktest, … (about a minute)"
	@$(INSTALL) -e . $(NAMES)
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	@echo "==> installing the tools for tests and checks (about a minute)"
	@$(INSTALL) -e '.[dev]' $(NAMES)
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	@echo "==> installing what benchmarks compare with (about a minute)"
	@$(INSTALL) -e '.[dev,bench]' $(NAMES)
	@touch $@

demo: $(VENV)/.stamp   ## simulate a session, run it through the loop, backtest it, write the report
	@echo "==> demo into $(OUT) (about a minute the first time, when the loop is compiled; then 15 s)"
	@$(BIN)/tickrt demo --out $(OUT) --force

test: $(VENV)/.stamp-dev   ## the test suite
	@echo "==> tests (ten minutes or more; the first time Numba compiles the kernels)"
	@$(BIN)/python -m pytest

check: $(VENV)/.stamp-dev  ## lint and types
	@echo "==> lint and types (about 20 s)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/.stamp-dev   ## the documentation as a site, in out/site; warnings are errors
	@echo "==> documentation into out/site (about 5 s)"
	@$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.stamp-bench ## the CPU benchmarks; JSON into benchmarks/results/
	@echo "==> benchmarks (about half an hour)"
	@$(BIN)/python -m benchmarks

clean:           ## remove the environment and what the commands wrote
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
