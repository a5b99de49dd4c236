#!/usr/bin/env bash
# All that needs a GPU: the tests that other machines skip, then the figures. It takes about five minutes.
#
#     benchmarks/gpu.sh [FOLDER]
#
# What they tell and the figures (gpu.json) go to the folder, by default bench-output. They run with $PYTHON, or with
# .venv's, or with the system's, which needs torch, pytest and what the package depends on.
set -u
cd "$(dirname "$0")/.." || exit 1
output=${1:-bench-output}
mkdir -p "$output" || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

"$PYTHON" -c '
import sys
try:
    import torch
except ImportError:
    sys.exit(f"{sys.executable} has no torch; PYTHON=... says which one has")
if not torch.cuda.is_available():
    sys.exit(f"{sys.executable} with torch {torch.__version__} sees no CUDA device")
print(torch.cuda.get_device_name(), "torch", torch.__version__)' || exit 1

timeout 300 "$PYTHON" -m pytest -p no:cacheprovider -q -rs --durations 5 tests/gpu 2>&1 | tee "$output/gpu-tests.txt"
tests=${PIPESTATUS[0]}
timeout 300 "$PYTHON" benchmarks/gpu.py --json "$output/gpu.json" | tee "$output/gpu.md"
figures=${PIPESTATUS[0]}
[ "$tests" = 0 ] && [ "$figures" = 0 ]
