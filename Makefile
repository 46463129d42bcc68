# Two commands: `make run` and `make test`. Needs Python 3.11 or later; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
           --no-header --no-emit-index-url --no-emit-find-links

unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP VIRTUAL_ENV

.PHONY: help run test lint types bench lock clean

help:
	@echo "make run    the service with a local Sigstore on http://localhost:8080 (PORT=… chooses another)"
	@echo "make test   the whole suite"
	@echo "make lint   ruff and mypy     make bench  measure, and write docs/performance.md"
	@echo "make lock   pins with hashes  make clean  what was made here, but never .tlogistry/"

# What can be wrong on this machine is said before anything is installed.
run:
	@$(PYTHON) -m lib check
	@$(MAKE) -s --no-print-directory $(VENV)/runtime
	@exec $(BIN)/python -m lib run

# TESTS="-k reference" passes arguments to pytest.
test: $(VENV)/development
	@$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/development
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/development
	@$(BIN)/python -m tests.bench

# Keeps the pins that still fit; delete the two files first to get the newest of everything.
lock: $(VENV)/development
	@$(COMPILE) pyproject.toml --output-file requirements.txt
	@$(COMPILE) --group dev --constraint requirements.txt --output-file requirements-dev.txt

clean:
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "tlogistry: needs Python 3.11 or later (PYTHON=… chooses another)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "tlogistry: this Python has no venv module (on Debian: apt install python3-venv)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: requirements.txt | $(VENV)/bin/python
	@echo "setting up $(VENV): once, about a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt \
	  || { echo "tlogistry: the packages could not be installed, for the reason above" >&2; exit 2; }
	@touch $@

$(VENV)/development: requirements-dev.txt $(VENV)/runtime
	@echo "setting up $(VENV) for tests: once, about a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt \
	  || { echo "tlogistry: the packages could not be installed, for the reason above" >&2; exit 2; }
	@touch $@
