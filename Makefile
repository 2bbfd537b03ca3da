# Two commands need nothing but python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test torture check fix bench pictures browser clean

demo: $(VENV)/demo.stamp  ## Index the standard library's docstrings, compare the modes, serve the inspector.
	@$(BIN)/m3retriever demo $(ARGS)

test: $(VENV)/dev.stamp browser  ## Style, types and all tests, the browser's included.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

torture: $(VENV)/dev.stamp  ## The long form of the tests of reliability; about two hours on two cores.
	@rm -f build/torture.json
	@$(BIN)/python -m pytest -n 2 --dist loadfile torture $(ARGS)
	@$(BIN)/python -m torture.table

check: $(VENV)/dev.stamp  ## Style and types only.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

fix: $(VENV)/dev.stamp  ## Format and mend what can be mended.
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(VENV)/dev.stamp $(VENV)/bench.stamp  ## Ratios against other ways to do the same, and growth; writes docs/benchmarks.md.
	@$(BIN)/python -m benchmarks $(ARGS)

pictures: $(VENV)/dev.stamp browser  ## Take the README's pictures of the inspector anew.
	@M3_PICTURES=1 $(BIN)/python -m pytest tests/inspector/test_browser_pictures.py

browser:
	@$(PYTHON) tests/install_browser.py

clean:
	@rm -rf $(VENV) build dist .m3-demo *.egg-info src/*.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "m3retriever needs Python 3.10 or newer; got " + sys.version.split()[0] + ": make demo PYTHON=python3.12")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip

$(VENV)/%.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing, 1 of 2: torch"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	@echo "installing, 2 of 2: m3retriever[$*] and what it stands on (some minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@
