# SPDX-License-Identifier: Apache-2.0
# Every need has one command, and every command begins with `setup`: git, make and Python >= 3.11 are enough.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
BIN := .venv/bin
STAMP := .venv/.installed-from
# The installer is locked like everything else, so that a fresh machine and CI resolve with the same one.
UV_PINNED := $(shell sed -n 's/^\(uv==[^ ;]*\).*/\1/p' requirements/dev.txt)

# A shell that forbids .pyc files would make each of Airflow's processes compile everything again.
unexport PYTHONDONTWRITEBYTECODE
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: help
help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make .venv with the locked versions (a second call costs nothing)

.venv/bin/python:
	@python=$$(scripts/find-python) && echo "setup: .venv from $$python" && "$$python" -m venv .venv

$(STAMP): requirements/dev.txt pyproject.toml | .venv/bin/python
	@echo "setup: installing $$(grep -c '^[a-z0-9].*==' requirements/dev.txt) packages (about 1.9 GB; one to three minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(UV_PINNED)'
	@began=$$(date +%s); test -t 2 || quiet=--quiet; \
	  $(BIN)/uv pip install $$quiet --python $(BIN)/python --compile-bytecode -r requirements/dev.txt && \
	  echo "setup: $$(du -sm .venv | cut -f1) MB in $$(( $$(date +%s) - began )) s"
	@touch $@

.PHONY: demo
demo: setup ## The main job: a feed becomes videos, in a real Airflow and a real Dagster (see demo-output/)
	@$(BIN)/ugen demo

.PHONY: airflow
airflow: setup ## An Airflow with its pages open: the example DAGs, a connection to the local U-Gen
	@$(BIN)/ugen demo airflow

.PHONY: dagster
dagster: setup ## `dagster dev` with example_dagster/ on the local U-Gen
	@$(BIN)/ugen demo dagster

.PHONY: test
test: setup ## All tests, on all cores (PYTEST="tests/core -k name" picks some, on one)
	@$(BIN)/pytest $(or $(PYTEST),-n logical --maxprocesses 8 --dist loadscope --no-loadscope-reorder)

.PHONY: torture
torture: setup ## End real processes at every step, and check that none paid twice (slow)
	@mkdir -p .torture
	@rm -f .torture/*.xml
	@UGEN_TORTURE_RUNS=$${UGEN_TORTURE_RUNS:-10000} $(BIN)/pytest -q tests/torture tests/hostile tests/principals \
	  tests/core/jobs/test_switches.py tests/core/jobs/test_purchase.py tests/batch/test_kill.py \
	  --junitxml=.torture/orders.xml || failed=1; \
	$(BIN)/pytest -m torture $(PYTEST) -o junit_family=xunit1 --junitxml=.torture/systems.xml || failed=1; \
	$(BIN)/python scripts/reliability.py .torture/orders.xml .torture/systems.xml; exit $${failed:-0}

.PHONY: test-matrix
test-matrix: setup ## Tests against each supported Airflow, Dagster and Python that is here (MATRIX="airflow-3.0.6 --list")
	@$(BIN)/python scripts/test_matrix.py $(MATRIX)

.PHONY: compat
compat: setup ## The oldest versions of every dependency, and each extra alone (COMPAT="extra-media")
	@$(BIN)/python scripts/test_matrix.py --compat $(COMPAT)

.PHONY: release-check
release-check: setup ## Build wheel and sdist, and look whether they are what a stranger should get, the demo included
	@$(BIN)/python scripts/release_check.py $(RELEASE)

CHECKS := check-format check-lint check-mypy check-pyright check-imports check-scripts
.PHONY: check $(CHECKS)
check: setup ## Everything that CI asks beside the tests: format, lint, types, architecture, generated code
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going $(CHECKS)
	@echo "check: all good"

check-format: setup
	@$(BIN)/ruff format --check --quiet .
check-lint: setup
	@$(BIN)/ruff check --quiet .
check-mypy: setup
	@$(BIN)/mypy
check-pyright: setup
	@$(BIN)/pyright
check-imports: setup
	@$(BIN)/lint-imports --no-cache >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
check-scripts: setup
	@for script in scripts/check_*.py scripts/public_api.py; do $(BIN)/python "$$script" || failed=1; done; exit $${failed:-0}

.PHONY: format
format: setup ## Format, sort imports, and repair what the linter can repair
	@$(BIN)/python scripts/unasync.py
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet . || true

.PHONY: lock
lock: setup ## Resolve requirements/*.in again (UPGRADE=--upgrade takes newer versions)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --no-header --generate-hashes $(UPGRADE) requirements/dev.in --output-file requirements/dev.txt
	@sed -n 's/^\([^ #-][^ ]*==[^\\]*\).*/\1/p' requirements/dev.txt >.venv/locked.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --no-header --no-annotate --generate-hashes --constraints .venv/locked.txt $(UPGRADE) requirements/bench.in \
	  --output-file requirements/bench.txt

.PHONY: peers
peers: setup ## Make .peers, with the packages that `make bench` measures beside (a second call costs nothing)
	@$(BIN)/python scripts/make_peers.py

.PHONY: bench
bench: setup ## Measure beside the real peers, and write docs/performance.md (BENCH=--smoke only shows that it works)
	@case " $(BENCH) " in *" --smoke "*) ;; *) $(BIN)/python scripts/make_peers.py ;; esac
	@$(BIN)/python scripts/performance.py $(BENCH)

.PHONY: docs
docs: setup ## Build the documentation into site/, strictly
	@$(BIN)/python scripts/docs_tables.py --check
	@$(BIN)/python scripts/check_readability.py
	@$(BIN)/python scripts/docs_site.py && echo "docs: site/index.html"

.PHONY: clean
clean: ## Forget what the demo bought and made, and all caches
	@rm -rf demo-output .airflow .dagster site dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
