# Everything sets itself up: a fresh machine needs Python 3.10 to 3.13 (with venv) and git.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
# With it, which many container images set, each process compiles all that it imports: twice the time.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/.ready

.PHONY: help setup demo test quick check e2e bench lock clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv from constraints.txt, and fill uv's cache for the tests

$(READY): pyproject.toml constraints.txt .ci/setup tests/e2e/formats.txt $(wildcard templates/project/*/steps/*/requirements.txt templates/project/*/serving/requirements.txt)
	@.ci/setup

demo: $(READY) ## From nothing to a served model, a better one, a worse one, and a rollback
	$(BIN)/python examples/mnist/demo.py

test: $(READY) ## Unit, contract and integration tests; COVERAGE=1 prints lines and branches covered
	$(BIN)/pytest -n 3 --dist loadfile $(if $(COVERAGE),--cov --cov-report=term:skip-covered) \
	  tests/unit tests/contracts tests/integration $(wildcard tests/conformance)

quick: $(READY) ## Lint, types and unit tests: under a minute, while writing code
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile tests/unit

check: $(READY) ## Format, lint, types, architecture, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	.ci/lint-workflows

e2e: $(READY) ## Tests that walk the whole way, with real servers
	@$(BIN)/pytest -n 2 --dist loadfile tests/e2e || { code=$$?; if [ $$code -eq 5 ]; then \
	  echo "e2e: tests/e2e holds no tests: nothing was checked end to end"; else exit $$code; fi; }

bench: $(READY) ## Print the figures, with the peers that are installed
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

lock: $(READY) ## Resolve constraints.txt anew, for Python 3.10 to 3.13
	$(BIN)/uv pip compile -q --upgrade pyproject.toml constraints.in --all-extras --group dev \
	  --universal --python-version 3.10 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links -o constraints.txt

clean: ## Remove what was made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
