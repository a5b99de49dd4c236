"""Whether two values are equal, to the last bit of their tensors and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["is_equal"]


def is_equal(one: Any, other: Any) -> bool:
    """Whether two values are equal: dtypes, shapes and elements of tensors and arrays, NaN with NaN, and containers.

    A tensor is equal to an array of its elements, since a decoder may give either.
    """
    if _is_array(one) or _is_array(other):
        return _is_array(one) and _is_array(other) and _are_equal_arrays(one, other)
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping) and one.keys() == other.keys() and all(is_equal(one[k], other[k]) for k in one)
        )
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, (list, tuple))
            and len(one) == len(other)
            and all(is_equal(mine, yours) for mine, yours in zip(one, other, strict=True))
        )
    if hasattr(one, "__dict__") and type(one) is type(other) and "__eq__" not in vars(type(one)):
        return is_equal(vars(one), vars(other))
    return bool(one == other) or bool(one != one and other != other)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "layout")


def _are_equal_arrays(one: Any, other: Any) -> bool:
    if _is_tensor(one) and _is_tensor(other):
        import torch

        if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
            return False
        if one.layout is not torch.strided or one.is_nested or one.is_quantized:
            return (
                bool(torch.equal(one.to_dense(), other.to_dense())) if one.is_sparse else bool(torch.equal(one, other))
            )
        return _bytes_of(one) == _bytes_of(other)
    mine, yours = (value.detach().cpu().numpy() if _is_tensor(value) else value for value in (one, other))
    return bool(mine.dtype == yours.dtype and mine.shape == yours.shape and mine.tobytes() == yours.tobytes())


def _bytes_of(tensor: Any) -> bytes:
    import torch

    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
