# gridtally: two commands do everything. `make demo` shows it at work, `make test` tests it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= gridtally-data
STAMP := $(VENV)/.ready
STAMP_DEV := $(VENV)/.ready-dev

.PHONY: help setup demo test test-faults check bench docs clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Create .venv with everything that running needs

$(STAMP): requirements/run.txt pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" sh deploy/setup.sh run

$(STAMP_DEV): requirements/dev.txt pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" sh deploy/setup.sh dev

demo: $(STAMP) ## Start everything with a small demo utility; Ctrl-C stops it
	@$(BIN)/gridtally demo --data-dir "$(DATA)"

test: $(STAMP_DEV) ## Run the tests, with real components
	@$(BIN)/python -m pytest -m "not long"

test-faults: $(STAMP_DEV) ## Run the long fault tests
	@$(BIN)/python -m pytest tests/faults --timeout 1800

check: $(STAMP_DEV) ## Lint, types, layers
	@$(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(STAMP_DEV) ## Measure; prints min/median/max and writes bench/results
	@$(BIN)/python -m bench

docs: $(STAMP) ## Write docs/schemas and docs/reference.md from the code
	@$(BIN)/python -m schemas.message docs/schemas
	@$(BIN)/python -m schemas.tariff docs/schemas
	@$(BIN)/python -m gridtally.reference docs/reference.md

clean: ## Remove the environment, not the data
	rm -rf "$(VENV)"
