"""Tensors as ``.pt`` files, PyTorch's own archive."""

from __future__ import annotations

import io
import pickle
from typing import Any

from lighter_async.writers.base import Encoder
from lighter_async.writers.pt_archive import Archives
from lighter_async.writers.pt_reading import Readings

__all__ = ["decode_tensor", "encode_tensor", "write_tensor"]


def encode_tensor(tensor: Any) -> memoryview:
    """What `torch.save` writes for a tensor of any shape and dtype, or for any object that it can save.

    Only the tensor's own elements are stored, even if it is a view of a larger tensor. A sparse, quantised or
    subclassed tensor is stored as such. Gradients and the device are not part of a prediction: `torch.load` gives a
    CPU tensor without them. Tensors and plain containers of tensors load as they are; numpy arrays, subclasses and
    other objects load with ``torch.load(path, weights_only=False)``.

    Raises:
        TypeError: The tensor is in oneDNN's layout, which cannot be saved.
        Exception: What `torch.save` raises for an object that it cannot save.
    """
    import torch

    if isinstance(tensor, torch.Tensor):
        if tensor.layout is torch._mkldnn:  # type: ignore[attr-defined]
            raise TypeError("a tensor of layout torch._mkldnn cannot be saved; write tensor.to_dense()")
        tensor = tensor.detach().cpu()
        if _is_part_of_larger(tensor):
            tensor = tensor.clone()
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getbuffer()


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
