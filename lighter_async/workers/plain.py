"""Values in a form that loads without running code: tensors, arrays, texts, numbers, and containers of them."""

from __future__ import annotations

import io
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
        return value
    if kind is bytes or kind is bytearray:
        return [kind.__name__, torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else None]
    if kind is np.ndarray or (isinstance(value, np.generic) and kind.__module__ == "numpy"):
        dtype = value.dtype
        if not dtype.hasobject and np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype:
            buffer = io.BytesIO()
            np.save(buffer, value, allow_pickle=False)
            content = torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)
            return ["array" if kind is np.ndarray else "scalar", content]
    if kind in (list, tuple):
        return [_CONTAINERS[kind], [to_plain(one) for one in value]]
    if kind in (dict, OrderedDict):
        return [_CONTAINERS[kind], [[to_plain(key), to_plain(one)] for key, one in value.items()]]
    raise NotPlainError(f"a {kind.__module__}.{kind.__qualname__} is stored as a pickle only")


def from_plain(plain: Any) -> Any:
    """The value that `to_plain` was given.

    Raises:
        ValueError, TypeError: It is none that `to_plain` makes.
        RecursionError: It is too deep.
    """
    import numpy as np

    if type(plain) is not list:
        return plain
    kind, content, *more = plain
    if kind == "int":
        return int(content, 16)
    if kind == "complex":
        return complex(content, *more)
    if kind in ("bytes", "bytearray"):
        found = b"" if content is None else content.numpy().tobytes()
        return found if kind == "bytes" else bytearray(found)
    if kind in ("array", "scalar"):
        array = np.load(io.BytesIO(content.numpy().tobytes()), allow_pickle=False)
        return array if kind == "array" else array[()]
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(from_plain(one) for one in content)
    if kind in ("dict", "ordered"):
        return (dict if kind == "dict" else OrderedDict)((from_plain(key), from_plain(one)) for key, one in content)
    raise NotPlainError(f"{kind!r} is no kind of plain value")
