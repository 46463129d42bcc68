# Two commands: `make run` and `make test`. Needs Python 3.11 or later; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := build/audit
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
           --no-header --no-emit-index-url --no-emit-find-links --only-binary :all: --emit-build-options

unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP VIRTUAL_ENV

.PHONY: help run test lint types bench fuzz soak lock sbom audit defences clean

help:
	@echo "make run    the service with a local Sigstore on http://localhost:8080 (PORT=… chooses another)"
	@echo "make test   the suite, without what takes minutes (LONG=1: all of it)"
	@echo "make lint   ruff and mypy     make bench  measure, and write docs/performance.md"
	@echo "make fuzz   a million cases   make soak   15 minutes of 80 clients, with a plot"
	@echo "make lock   pins with hashes  make clean  what was made here, but never .tlogistry/"
	@echo "make sbom   what is deployed  make audit  known vulnerabilities in it"
	@echo "make defences  take each defence out, and see which tests notice"

# What can be wrong on this machine is said before anything is installed.
run:
	@$(PYTHON) -m lib check
	@$(MAKE) -s --no-print-directory $(VENV)/runtime
	@exec $(BIN)/python -m lib run

# LONG=1 for all of it, as in CI. TESTS="tests/oci -k digest" passes arguments to pytest instead.
test: $(VENV)/development
	@$(BIN)/python -m $(if $(TESTS),pytest $(TESTS),tests $(if $(LONG),--long))

lint: $(VENV)/development
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/development
	@$(BIN)/python -m tests.bench

# FUZZ_CASES=100000 FUZZ_SEED=2 choose how many and which; what fails is kept in tests/fuzz/corpus/ and said.
fuzz: $(VENV)/development
	@$(BIN)/python -m tests.fuzz

# SOAK="--seconds 300 --out soak.png" are its arguments.
soak: $(VENV)/development
	@$(BIN)/python -m tests.bench.soak $(SOAK)

# Keeps the pins that still fit; delete the two files first to get the newest of everything.
lock: $(VENV)/development
	@$(COMPILE) pyproject.toml --output-file requirements.txt
	@$(COMPILE) --group dev --constraint requirements.txt --output-file requirements-dev.txt
	@$(COMPILE) --group audit --output-file requirements-audit.txt

# What is deployed, for tools that watch for vulnerabilities: every pin of requirements.txt with its hashes, as CycloneDX.
sbom: $(AUDIT)/ready
	@mkdir -p build
	@$(AUDIT)/bin/python -W ignore::UserWarning -m cyclonedx_py requirements --output-reproducible --of JSON \
	  --pyproject pyproject.toml --output-file build/sbom.cdx.json requirements.txt
	@echo build/sbom.cdx.json

# Exit code 0: nothing known; 1: vulnerabilities, one a line; 3: the database could not be asked.
audit: $(AUDIT)/ready
	@$(AUDIT)/bin/python scripts/audit.py requirements.txt

# Takes each defence out of a copy of the tree, and says which tests notice. A quarter of an hour.
defences: $(VENV)/development
	@$(BIN)/python -m tests.attacks.defences $(DEFENCES)

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

# Tools that only look at the locks: an environment of their own, so that nothing of theirs is among what is tested.
$(AUDIT)/ready: requirements-audit.txt
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.txt \
	  || { echo "tlogistry: the packages could not be installed, for the reason above" >&2; exit 2; }
	@touch $@

$(VENV)/development: requirements-dev.txt $(VENV)/runtime
	@echo "setting up $(VENV) for tests: once, about a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt \
	  || { echo "tlogistry: the packages could not be installed, for the reason above" >&2; exit 2; }
	@touch $@
