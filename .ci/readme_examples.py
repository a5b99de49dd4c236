"""Run the Python examples of a document, each by itself in an empty folder, with the package that is installed.

    python .ci/readme_examples.py README.md

An example that needs a package which is not installed is left out, and named.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 300
_MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'", re.MULTILINE)


def main(document: Path) -> int:
    """Run them; returns the exit status."""
    examples = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    ran, failed = 0, 0
    for number, code in enumerate(examples):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-I", "-W", "ignore", "-c", code],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        missing = _MISSING.findall(done.stderr)
        if done.returncode and missing and not missing[-1].startswith("lighter_async"):
            print(f"example {number} of {document} is left out, since it needs {missing[-1]}")
        elif done.returncode:
            failed += 1
            print(f"example {number} of {document} fails:\n{code}\n{done.stderr}", file=sys.stderr)
        else:
            ran += 1
    print(f"{ran} of {len(examples)} examples of {document} work")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
