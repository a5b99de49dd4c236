"""A tensor's elements as plain memory, for encoders that need no more than that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block"]


@dataclass(frozen=True, slots=True)
class Block:
    """The elements of one dense tensor, in C order and the machine's byte order.

    Attributes:
        dtype: torch's name for the type of an element, without ``torch.``: ``"float32"``, ``"bfloat16"``.
        shape: The tensor's shape; of at least one element.
        memory: The elements' bytes: 1-d, uint8, not to be changed.
    """

    dtype: str
    shape: tuple[int, ...]
    memory: NDArray[np.uint8]
