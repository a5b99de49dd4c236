"""Values in a form that loads without running code: tensors, arrays, texts, numbers, and containers of them."""

from __future__ import annotations

import io
import math
from collections import OrderedDict
from typing import Any

__all__ = ["NotPlainError", "from_plain", "to_plain"]

_CONTAINERS: dict[type, str] = {list: "list", tuple: "tuple", dict: "dict", OrderedDict: "ordered"}
_MOST = 1 << 63


class NotPlainError(ValueError):
    """A value that only a pickle holds, or what no plain value is stored as."""


def to_plain(value: Any) -> Any:
    """A value as nested lists of tensors, texts and numbers, which ``torch.load(weights_only=True)`` takes.

    Raises:
        NotPlainError: Something in it is of another type.
        RecursionError: It is too deep, or holds itself.
    """
    import numpy as np
    import torch

    kind = type(value)
    if value is None or kind in (bool, float, str) or (kind is int and -_MOST <= value < _MOST):
        return value
    if kind is int:
        return ["int", hex(value)]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind in (torch.Tensor, torch.nn.Parameter) and not value.__dict__:
        return _plain_tensor(value)
    if kind is bytes or kind is bytearray:
        return [kind.__name__, torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else None]
    if kind is np.ndarray or (isinstance(value, np.generic) and kind.__module__ == "numpy"):
        dtype = value.dtype
        if (
            dtype.itemsize
            and not dtype.hasobject
            and np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype
        ):
            buffer = io.BytesIO()
            np.save(buffer, value, allow_pickle=False)
            content = torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)
            return ["array" if kind is np.ndarray else "scalar", content]
    if kind in (list, tuple):
        return [_CONTAINERS[kind], [to_plain(one) for one in value]]
    if kind in (dict, OrderedDict):
        return [_CONTAINERS[kind], [[to_plain(key), to_plain(one)] for key, one in value.items()]]
    raise NotPlainError(f"a {kind.__module__}.{kind.__qualname__} is stored as a pickle only")


def _plain_tensor(value: Any) -> Any:
    """A tensor that is stored with all of its elements, since none that has more than are stored is read back."""
    import torch

    if value.layout is torch.sparse_coo and not value.is_quantized:
        value = value.detach()
        return ["sparse", [value._indices(), value._values(), list(value.shape), value.is_coalesced()]]
    if value.layout is not torch.strided or value.is_quantized or value.is_nested or value.is_meta:
        raise NotPlainError(f"a tensor of layout {value.layout} and dtype {value.dtype} is stored as a pickle only")
    dense = value.resolve_conj().resolve_neg()
    if dense.numel() * dense.element_size() > dense.untyped_storage().nbytes():
        dense = dense.contiguous()
    return torch.nn.Parameter(dense, value.requires_grad) if type(value) is not type(dense) else dense


def from_plain(plain: Any, *, most: float = math.inf) -> Any:
    """The value that `to_plain` was given.

    Args:
        plain: What that has made of it.
        most: Bytes that it was stored in: what refers to one thing again and again may be larger, and is refused.

    Raises:
        ValueError, TypeError: It is none that `to_plain` makes.
        RecursionError: It is too deep.
    """
    import numpy as np

    left = most

    def take(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise NotPlainError("it is larger than what it is stored in")

    def content_of(tensor: Any) -> bytes:
        take(tensor.nbytes)
        found: bytes = tensor.numpy().tobytes()
        return found

    def make(plain: Any) -> Any:
        take(1)
        if type(plain) is not list:
            return plain
        kind, content, *more = plain
        if kind == "int":
            take(len(content))
            return int(content, 16)
        if kind == "complex":
            return complex(content, *more)
        if kind in ("bytes", "bytearray"):
            found = b"" if content is None else content_of(content)
            return found if kind == "bytes" else bytearray(found)
        if kind in ("array", "scalar"):
            array = np.load(io.BytesIO(content_of(content)), allow_pickle=False)
            if array.size * max(1, array.itemsize) > content.nbytes:
                raise NotPlainError("an array is larger than what is stored of it")
            return array if kind == "array" else array[()]
        if kind == "sparse":
            return _sparse(*content)
        if kind in ("list", "tuple"):
            return (list if kind == "list" else tuple)(map(make, content))
        if kind in ("dict", "ordered"):
            return (dict if kind == "dict" else OrderedDict)((make(key), make(one)) for key, one in content)
        raise NotPlainError(f"{kind!r} is no kind of plain value")

    return make(plain)


def _sparse(indices: Any, values: Any, shape: Any, is_coalesced: Any) -> Any:
    import torch

    found = torch.sparse_coo_tensor(indices, values, tuple(shape), check_invariants=True)
    return found.coalesce() if is_coalesced else found
