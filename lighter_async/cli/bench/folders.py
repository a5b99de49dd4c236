"""A folder for files that are measured, removed afterwards whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lighter_async.names import RESERVED_PREFIX

__all__ = ["fresh_folder", "insist", "stored_bytes"]

_PREFIX = "lighter-async-bench-"


@contextmanager
def fresh_folder(directory: Path, *, prefix: str = _PREFIX) -> Iterator[Path]:
    """A new folder in `directory`, whose name begins with `prefix`, removed at the end with everything in it.

    Raises:
        OSError: It cannot be made.
    """
    folder = Path(tempfile.mkdtemp(dir=directory, prefix=prefix))
    try:
        yield folder
    finally:
        insist(lambda: shutil.rmtree(folder))


def insist(call: Callable[[], object]) -> None:
    """Clean up, and begin again if Ctrl-C interrupts it: a second Ctrl-C must not leave gigabytes behind.

    Raises:
        KeyboardInterrupt: It was interrupted. Raised once it is done.
    """
    try:
        call()
    except KeyboardInterrupt:
        call()
        raise


def stored_bytes(folder: Path, *, block: int = 1) -> int:
    """The bytes of the results in a folder, each file rounded up to a multiple of `block` bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != RESERVED_PREFIX)
    sizes = (path.stat().st_size for path in files)
    return sum(-(-size // block) * block for size in sizes)
