"""Run a part of the tests with each Python that is installed, and check the types as each of them has them.

    python .ci/matrix.py [VERSION ...]

It runs in the environment of `make test`, which is taken for this Python's tests. Others get environments of their own
in `.venv-matrix`, with what the tests need. The exit status is 1 if something fails; a Python that is not there is no
failure, and is named.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TESTS = ("public", "names", "service_contract", "local_target", "manifest", "verify", "results", "callback", "aio")
"""Of `tests/test_NAME.py`: the ways in, storing, recording and reading back."""


def main(versions: list[str]) -> int:
    """Go through them; returns the exit status."""
    told = {version: f"{_types(version)}, {_tests(version)}" for version in versions}
    print("\nPython")
    for version, what in told.items():
        print(f"  {version}: {what}")
    return 1 if any("FAIL" in what for what in told.values()) else 0


def _types(version: str) -> str:
    """What type checking for a version says; it needs no such Python."""
    return "types fail: FAILED" if _run(sys.executable, "-m", "mypy", "--python-version", version) else "types pass"


def _tests(version: str) -> str:
    """What the tests say with a version."""
    python = _python(version)
    if python is None:
        return f"tests not run, since there is no python{version} here"
    tests = [f"tests/test_{name}.py" for name in TESTS]
    failed = _run(python, "-m", "pytest", "-q", "-n", "3", "--dist", "worksteal", *tests)
    return "tests FAILED" if failed else "tests pass"


def _python(version: str) -> str | None:
    """The interpreter of an environment with what the tests need; None if there is no such Python."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        return None
    folder = ROOT / ".venv-matrix" / version
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([found, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*install, "-e", ".[dev]"], check=True, cwd=ROOT)
    subprocess.run([*install, "--no-deps", "lighter"], check=True, cwd=ROOT)
    return python


def _run(*command: str) -> bool:
    """Run a command; returns whether it failed."""
    print("+", *command, flush=True)
    return subprocess.run(command, cwd=ROOT).returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(VERSIONS)))
