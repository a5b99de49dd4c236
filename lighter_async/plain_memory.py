"""Tensors' elements as plain memory, for encoders that need no more than that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "EncodedRows", "Rows"]


@dataclass(frozen=True, slots=True)
class Block:
    """The elements of one dense tensor, in C order and the machine's byte order.

    Attributes:
        dtype: torch's name for the type of an element, without ``torch.``: ``"float32"``, ``"bfloat16"``.
        shape: The tensor's shape; of at least one element, except inside a container (`Encoder.encode_blocks`).
        memory: The elements' bytes: 1-d, uint8, not to be changed.
    """

    dtype: str
    shape: tuple[int, ...]
    memory: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rows:
    """The elements of some tensors, or arrays, of one dtype and shape, in C order and the machine's byte order.

    Attributes:
        dtype: As of `Block`; of arrays numpy's name.
        shape: Of each of them; of at least one element.
        memory: The elements' bytes: 2-d, uint8, a row for each, not to be changed.
        is_tensor: Whether they are tensors; else they are arrays.
    """

    dtype: str
    shape: tuple[int, ...]
    memory: NDArray[np.uint8]
    is_tensor: bool


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The bytes of some samples, of equal size, to be made where they are wanted.

    Attributes:
        nbytes: The size of each.
        fill: Writes them into an array of shape ``(samples, nbytes)``, uint8, whose rows are contiguous. It may be
            called again.
        memory: The same bytes where they lie already: of that shape, one row behind the other, not to be changed. None
            where they have to be made.
    """

    nbytes: int
    fill: Callable[[NDArray[np.uint8]], None]
    memory: NDArray[np.uint8] | None = None
