"""Run a part of the tests with each Python that is installed, and check the types as each of them has them.

    python .ci/matrix.py [--types] [VERSION ...]

Types are checked for all versions, without their interpreters; `--types` does no more. The tests are run in the
environment of `make test` with its Python, and with others, which are looked for on the path and among those of pyenv,
in environments of their own in `.venv-matrix`, of 6 GB each, as torch may come with CUDA's libraries. The exit status
is 1 if something fails. A Python that is not there is no failure, and is named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TESTS = ("public", "names", "service_contract", "local_target", "manifest", "verify", "results", "callback", "aio")
"""Of `tests/test_NAME.py`: the ways in, storing, recording and reading back."""
PACKAGES = (
    *("-e", ".[lightning,parquet,tiff]", "aiofiles", "hypothesis", "lightning", "matplotlib", "nibabel"),
    *("pandas", "psutil", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "safetensors", "trio"),
)
"""What those tests need."""


def main() -> int:
    """Go through the versions; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--types", action="store_true", help="only check the types")
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    options = parser.parse_args()
    told = {}
    for version in options.versions:
        told[version] = _types(version) if options.types else f"{_types(version)}, {_tests(version)}"
    print("\nPython")
    for version, what in told.items():
        print(f"  {version}: {what}")
    return 1 if any("FAIL" in what for what in told.values()) else 0


def _types(version: str) -> str:
    """What type checking for a version says; it needs no such Python."""
    return "types FAIL" if _fails(sys.executable, "-m", "mypy", "--python-version", version) else "types pass"


def _tests(version: str) -> str:
    """What the tests say with a version."""
    found = _interpreter(version)
    if found is None:
        return f"tests not run, since there is no Python {version} here"
    python = sys.executable if found == sys.executable else _environment(version, found)
    tests = [f"tests/test_{name}.py" for name in TESTS]
    failed = _fails(python, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *tests)
    return "tests FAIL" if failed else "tests pass"


def _interpreter(version: str) -> str | None:
    """The path of an interpreter; None if there is none."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    for candidate in candidates:
        # One of pyenv's on the path may only say that it is not switched on.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return str(candidate)
    return None


def _environment(version: str, interpreter: str) -> str:
    """The interpreter of an environment that has what the tests need."""
    folder = ROOT / ".venv-matrix" / version
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*install, *PACKAGES], check=True, cwd=ROOT)
    return python


def _fails(*command: str) -> bool:
    """Run a command; returns whether it fails."""
    print("+", *command, flush=True)
    return subprocess.run(command, cwd=ROOT).returncode != 0


if __name__ == "__main__":
    sys.exit(main())
