"""Compare files written in the background with those of a synchronous run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

__all__ = ["differing_files"]


def differing_files(written: Path, expected: Path, names: set[str], tick: Callable[[], None]) -> list[str]:
    """Read the files of two folders back, and compare their pixels or tensors.

    Args:
        written: The folder to check.
        expected: The folder to check it against.
        names: The files, relative to both.
        tick: Called after each file.

    Returns:
        A line for each file that differs, with the reason.
    """
    differing = []
    for name in sorted(names):
        reason = _difference(written / name, expected / name)
        if reason:
            differing.append(f"{name}: {reason}")
        tick()
    return differing


def _difference(written: Path, expected: Path) -> str | None:
    if not expected.is_file():
        return "the synchronous run has no such file"
    if not written.is_file():
        return "it is missing"
    try:
        same = _same_pixels(written, expected) if written.suffix == ".png" else _same_tensors(written, expected)
    except Exception as error:
        return f"it cannot be read back ({type(error).__name__}: {error})"
    return None if same else "it holds something else"


def _same_pixels(written: Path, expected: Path) -> bool:
    with Image.open(written) as ours, Image.open(expected) as theirs:
        return ours.mode == theirs.mode and np.array_equal(np.asarray(ours), np.asarray(theirs))


def _same_tensors(written: Path, expected: Path) -> bool:
    ours, theirs = (torch.load(path, weights_only=True) for path in (written, expected))
    return bool(ours.dtype == theirs.dtype and torch.equal(ours, theirs))
