# On a machine with make and Python 3.11 or later, `make run` and `make test` need nothing else: the first one makes
# .venv and installs what conf/lock/ names, by hash; the next ones start at once.
#   make run      a gateway to try, on port 8700          make lint    what CI checks before the tests
#   make test     every test; ARGS="-k name" picks some   make bench   the benchmarks
#   make torture  kill -9 for 1,000 times, the store away for a minute: half an hour, and its figures; KILLS=, OUTAGE= (seconds)
#   make fuzz     the parsers, for SECONDS=60 each and as long as nothing is found; TARGETS= picks some (tests/fuzz)
#   make lock     resolve conf/lock/ anew                 make clean   caches and builds; .venv and var/ stay
#   make docs     the parts of docs/ that are made from code

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := install
.DELETE_ON_ERROR:
.PHONY: install install-run run test torture fuzz bench lint format docs lock clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input -q
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
PORT ?= 8700
# How many processes run the tests: one a core; JOBS=0 for none beside pytest's own, to debug in.
JOBS ?= auto
ARGS ?=

install: $(VENV)/.dev $(VENV)/.own  ## everything: to run, to test, to lint
install-run: $(VENV)/.run $(VENV)/.own  ## only what the gateway itself needs

run: install-run
	$(VENV)/bin/aurixel dev --port $(PORT) $(ARGS)

test: install
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Half of the kills on each store. It may take longer than a test may hang; what is missing fails here as it does in CI.
KILLS ?= 1000
OUTAGE ?= 60
TORTURE := tests/flow/test_kill.py tests/flow/test_outage.py
torture: install
	AURIXEL_TEST_KILLS=$$(( $(KILLS) / 2 )) AURIXEL_TEST_OUTAGE=$(OUTAGE) AURIXEL_TEST_REQUIRE=mongodb $(PY) -m pytest -q -o faulthandler_timeout=0 $(TORTURE) $(ARGS)

# atheris has wheels for few machines and belongs to no lock: it is fetched here and nowhere else.
SECONDS := $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),60)
TARGETS ?=
fuzz: install
	@$(PY) -c 'import atheris' 2>/dev/null || $(PIP) install --no-deps 'atheris>=3,<4'
	$(PY) -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

bench: install
	@if [ -e tests/bench/__main__.py ]; then $(PY) -m tests.bench $(ARGS); else echo "bench: there is none yet (tests/bench/)"; fi

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

format: install
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: install
	$(PY) -m tests.docs.settlement_page
	$(PY) -m tests.docs.compatibility_page

# The lock is resolved on the oldest Python we support; its wheels' hashes cover the later ones too.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/pip-compile -q --generate-hashes --no-emit-options --allow-unsafe --strip-extras
lock: install
	@$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "make lock: .venv must be of Python 3.11"; exit 1; }
	$(COMPILE) $(ARGS) -o conf/lock/run.txt pyproject.toml conf/lock/plugins.in conf/lock/build.in
	$(COMPILE) $(ARGS) --extra dev -c conf/lock/run.txt -o conf/lock/dev.txt pyproject.toml conf/lock/plugins.in conf/lock/build.in

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find aurixel plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps, so that a second `make` is instant. Third parties and our own packages have one each: a change of
# pyproject.toml costs a second, not a download.
$(VENV)/bin/python:
	@for python in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	  if $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making .venv with $$($$python --version)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "Python 3.11 or later with its venv module is needed (on Debian: apt-get install python3 python3-venv)," \
	     "or say which: make PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.run: conf/lock/run.txt | $(VENV)/bin/python
	$(PIP) install --require-hashes -r $<
	@touch $@

$(VENV)/.dev: conf/lock/dev.txt $(VENV)/.run
	$(PIP) install --require-hashes -r $<
	@touch $@

# Hashes refuse editables, and an isolated build would fetch unlocked tools: hence two steps, and this one offline.
$(VENV)/.own: pyproject.toml $(PLUGINS) $(VENV)/.run
	$(PIP) install --no-deps --no-build-isolation $(patsubst %/pyproject.toml,-e ./%,./pyproject.toml $(PLUGINS))
	@touch $@
