# Each target makes its own .venv and installs what is missing; a second run skips what is there.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
# One torch thread a process: two threads on two busy cores can be far slower than one.
export OMP_NUM_THREADS ?= 1
SEED ?= 0
DEMO := .demo

.PHONY: demo test test-long bench claims check audit lint format docs wheel clean

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; install one or name it: make PYTHON=/path/to/python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 6 GB with torch; once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/merge-advisor demo --out $(DEMO) --seed $(SEED)

test: $(VENV)/.installed lint
	@$(BIN)/python -m pytest -q -m "not slow"

test-long: $(VENV)/.installed
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check: lint audit

# bandit reads the source for known kinds of holes; pip-audit asks the package index for known ones in dependencies
audit: $(VENV)/.installed
	@$(BIN)/bandit --quiet --recursive --severity-level medium advisor estimators studies app
	@$(BIN)/pip-audit --skip-editable

bench: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(BIN)/python -m benchmarks.judge --out benchmarks/results/judge.json

# verdicts on the theory's claims from the stored tables (docs/claims.md); claims 1, 3 and 5 measured afresh, small
claims: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(BIN)/python -m benchmarks.claims verdicts
	@$(BIN)/python -m benchmarks.claims small

# the site of docs/, strict: a dead link or an unlisted page fails
docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "site/index.html"

wheel: $(VENV)/.installed
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) $(DEMO) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
