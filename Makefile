# Everything runs in .venv, made on first use. Another Python beside it: make test VENV=.venv312 PYTHON=python3.12
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help lab test check format constraints clean

VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready
NOTEBOOKS := $(shell find notebooks -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' 2>/dev/null | sort)

# The first that starts, is new enough and can make a venv: a shim on PATH may stand for a Python that is not there.
FIT := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c '$(FIT)' >/dev/null 2>&1 && echo "$$p" && break; done)
PYTHONS ?= python3.11 python3.12 python3.13

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(READY)  ## open JupyterLab on the notebooks
	@$(BIN)/qml-nb lab

test: $(READY)  ## run every test: on real servers, in a browser, all notebooks, all doctests
	$(BIN)/pytest -n 2 --dist loadfile tests
	$(BIN)/pytest --doctest-modules qml_nb widgets
	$(if $(NOTEBOOKS),$(BIN)/pytest --nbval-lax --nbval-current-env $(NOTEBOOKS))

check: $(READY)  ## formatting, lint, types, layers, stripped notebooks
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify $(NOTEBOOKS))

format: $(READY)  ## format, fix what ruff can fix, strip notebooks
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(if $(NOTEBOOKS),$(BIN)/nbstripout $(NOTEBOOKS))

constraints:  ## resolve constraints.txt anew on the three Pythons
	$(firstword $(PYTHONS)) .ci/constraints.py $(PYTHONS) > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove the environment, caches and builds (never runs/)
	rm -rf .venv* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "no Python 3.11, 3.12 or 3.13 with venv and ensurepip found" \
		"(Debian: apt-get install python3-venv); or name one: make PYTHON=/path/to/python" >&2; exit 1; fi
	@"$(PYTHON)" -c '$(FIT)' || { echo "PYTHON=$(PYTHON) must run, be 3.11, 3.12 or 3.13, and have venv and ensurepip" \
		"(Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -c '$(FIT)' 2>/dev/null || { echo "making $(VENV) with $$("$(PYTHON)" --version)"; \
		"$(PYTHON)" -m venv --clear $(VENV); }
	@echo "installing into $(VENV), a minute or two the first time; a dot is a package"
	@set -o pipefail; $(BIN)/python -m pip install -c constraints.txt -e '.[lab,servers,fast,test]' 2>&1 \
		| tee $(VENV)/install.log | awk '/^ *(Collecting|Processing) / { printf "."; fflush() } END { print "" }' \
		|| { cat $(VENV)/install.log >&2; exit 1; }
	@touch $@
