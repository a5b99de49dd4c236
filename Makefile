# `make demo` and `make test` set up everything they need in .venv, once; later runs start at once.

PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench-memory clean

demo: .venv/.demo
	$(BIN)/lighter-async demo

test: .venv/.dev
	$(BIN)/python -m pytest -q

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-memory: .venv/.demo
	$(BIN)/python benchmarks/memory.py

clean:
	rm -rf .venv build dist *.egg-info demo-output

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

# Whoever has the test extras has the demo's too.
.venv/.demo: .venv/.made pyproject.toml constraints.txt
	test -e .venv/.dev || $(INSTALL) -e ".[demo]"
	touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	touch $@ .venv/.demo
