.PHONY: test

.venv/.dev: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

test: .venv/.dev
	.venv/bin/python -m pytest -q
