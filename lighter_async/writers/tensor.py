"""Tensors as ``.pt`` files, PyTorch's own archive."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from contextlib import suppress
from typing import Any

from lighter_async.writers.base import Encoder
from lighter_async.writers.pt_archive import Archives
from lighter_async.writers.pt_reading import Readings

__all__ = ["decode_tensor", "encode_tensor", "write_tensor"]


def encode_tensor(tensor: Any) -> memoryview:
    """What `torch.save` writes for a tensor of any shape and dtype, or for any object that it can save.

    Only the tensor's own elements are stored, even if it is a view of a larger tensor, such as a row of a batch; so it
    is with tensors in lists, tuples and dicts. A sparse, quantised or
    subclassed tensor is stored as such. Gradients and the device are not part of a prediction: `torch.load` gives a
    CPU tensor without them. Tensors and plain containers of tensors load as they are; numpy arrays, subclasses and
    other objects load with ``torch.load(path, weights_only=False)``.

    Raises:
        TypeError: The tensor is in oneDNN's layout, which cannot be saved.
        Exception: What `torch.save` raises for an object that it cannot save.
    """
    import torch

    with suppress(RecursionError):  # what is nested that deep is left to PyTorch
        tensor = _with_own_elements(tensor)
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getbuffer()


def _with_own_elements(value: Any, known: dict[int, Any] | None = None) -> Any:
    """A value whose tensors, also in plain containers, are on the host, have no gradients, and are no part of others.

    Args:
        value: The value.
        known: What was made of its parts already, by their ids: a part may be there many times.
    """
    known = {} if known is None else known
    if id(value) not in known:
        known[id(value)] = _made_own(value, known)
    return known[id(value)]


def _made_own(value: Any, known: dict[int, Any]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        if value.layout is torch._mkldnn:  # type: ignore[attr-defined]
            raise TypeError("a tensor of layout torch._mkldnn cannot be saved; write tensor.to_dense()")
        tensor = value.detach().cpu()
        return tensor.clone() if _is_part_of_larger(tensor) else tensor
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([_with_own_elements(item, known) for item in value])
    if (kind is dict or kind is OrderedDict) and not getattr(value, "__dict__", None):
        return kind((key, _with_own_elements(item, known)) for key, item in value.items())
    return value


def _is_part_of_larger(tensor: Any) -> bool:
    import torch

    if tensor.layout is not torch.strided or tensor.is_nested:
        return True  # its parts may be, and cannot be checked easily
    return bool(tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size())


def decode_tensor(data: bytes | memoryview, *, trust: bool = False) -> Any:
    """What `torch.load` reads: tensors and plain containers of them, on the CPU, as they were written.

    Args:
        data: The file's content.
        trust: Whether to unpickle numpy arrays, subclasses of tensors and other objects, which runs any code that the
            file names.

    Raises:
        TypeError: The file holds such objects, and is not trusted.
        Exception: What `torch.load` raises.
    """
    tensor = _readings.read(data)
    if tensor is not None:
        return tensor
    import torch

    if trust:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    try:
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(
            "it holds more than tensors and plain containers of them, such as a numpy array or an object, and "
            "unpickling those runs code that the file names; open_results(..., trust=True) does, if nobody but those "
            "whom you trust can write to the directory"
        ) from error
    _readings.remember(data, value)
    return value


_archives = Archives()
_readings = Readings()


write_tensor = Encoder(
    encode_tensor,
    suffix=".pt",
    name="tensor",
    encode_block=_archives.encode,
    encode_rows=_archives.rows,
    templates=_archives,
    decode=decode_tensor,
)
"""``write_tensor(path, tensor, *, suffix=".pt")``: write what `torch.load` reads back."""
