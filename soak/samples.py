"""Samples that follow from their index, so that of every file it is known what it has to hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["content", "index_of", "look", "row", "same", "torn_of", "value"]

_SEED = 20
_MANIFEST = ".lighter-async"
_COLUMNS = 4096


def content(index: int, largest: int = 1 << 20) -> NDArray[np.uint8]:
    """The sample of an index: bytes, most often a few, at times up to `largest`."""
    random = np.random.default_rng([_SEED, index])
    size = int(2 ** random.uniform(0, np.log2(largest)))
    return random.integers(0, 256, size, dtype=np.uint8)


def row(index: int) -> NDArray[np.float32]:
    """The row of an index in an array: 16 KiB, since all rows are alike."""
    return np.random.default_rng([_SEED, index]).random(_COLUMNS, np.float32)


def value(index: int, largest: int = 1 << 20) -> torch.Tensor:
    """The content of an index as a tensor."""
    import torch  # here, so that jobs without tensors start in a third of the time

    return torch.from_numpy(content(index, largest))


def same(path: Path, index: int, largest: int = 1 << 20) -> bool:
    """Whether a ``.pt`` file holds the sample of an index, whole and with nothing beside it."""
    import torch

    try:
        return torch.equal(torch.load(path, weights_only=True), value(index, largest))
    except Exception:
        return False  # what `torch.load` raises of half an archive is of many types


def index_of(name: str) -> int:
    """The index that a sample is named by, below any folder."""
    return int(name.rpartition("/")[2].partition(".")[0])


def look(folder: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """The files of samples with their indices, and what else lies there under a final name."""
    found, strange = [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(_MANIFEST) for part in path.relative_to(folder).parts):
            continue
        if path.stem.isdecimal():
            found.append((path, int(path.stem)))
        else:
            strange.append(str(path))
    return found, strange


def torn_of(files: list[tuple[Path, int]], is_right: Callable[[Path, int], bool] = same) -> list[int]:
    """The indices of those files that do not hold their sample."""
    return [index for path, index in files if not is_right(path, index)]
