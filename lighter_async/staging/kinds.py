"""Kinds of values: which tensors and arrays are plain memory, and how many bytes the others take."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "dtype_of",
    "has_attributes",
    "is_bare",
    "is_plain_array",
    "is_plain_tensor",
    "is_tensor",
    "loose_bytes",
    "text_bytes",
]

_QUANTISED = frozenset({"qint8", "quint8", "qint32", "quint4x2", "quint2x4"})


def is_tensor(value: Any) -> bool:
    """Whether it is a PyTorch tensor."""
    # A tensor exists only once torch is imported, which a writer of texts need not do. While another thread imports
    # it, the module may lack its classes, and there is no tensor yet.
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(value, kind)


def is_plain_tensor(tensor: torch.Tensor) -> bool:
    """Whether a tensor consists of its elements alone, as a plain block of memory."""
    torch = sys.modules["torch"]
    return (
        (type(tensor) is torch.Tensor or type(tensor) is torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and dtype_of(tensor.dtype)[0] not in _QUANTISED
        and not tensor.is_meta
    )


@functools.cache
def dtype_of(dtype: torch.dtype) -> tuple[str, int]:
    """The name of a dtype in torch, and the bytes of an element."""
    return str(dtype).removeprefix("torch."), dtype.itemsize


def is_plain_array(array: NDArray[Any]) -> bool:
    """Whether an array consists of its elements alone, as a plain block of memory."""
    return type(array) is np.ndarray and not array.dtype.hasobject


def is_bare(array: NDArray[Any]) -> bool:
    """Whether copying an array loses nothing: its class adds no attributes and no pickling of its own."""
    kind: Any = type(array)
    return not getattr(array, "__dict__", None) and kind.__reduce__ is np.ndarray.__reduce__


def has_attributes(tensor: torch.Tensor) -> bool:
    """Whether a dense tensor of a user's class has attributes, which a clone would lose."""
    torch = sys.modules["torch"]
    kind = type(tensor)
    return (
        kind is not torch.Tensor
        and kind is not torch.nn.Parameter
        and kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and bool(tensor.__dict__)
    )


def loose_bytes(tensor: torch.Tensor) -> int:
    """The bytes of a tensor that is not a plain block of memory."""
    import torch

    if tensor.layout is torch.sparse_coo:
        return int(tensor._values().nbytes + tensor._indices().nbytes)
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return int(tensor.values().nbytes + tensor.crow_indices().nbytes + tensor.col_indices().nbytes)
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return int(tensor.values().nbytes + tensor.ccol_indices().nbytes + tensor.row_indices().nbytes)
    if tensor.is_nested:
        return int(tensor.values().nbytes)
    return int(tensor.numel() * tensor.element_size())


def text_bytes(value: Any) -> int:
    """The bytes of memory that a text or bytes takes."""
    if isinstance(value, str) and not value.isascii():
        return sys.getsizeof(value) - sys.getsizeof("")
    return len(value)
