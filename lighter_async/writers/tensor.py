"""Tensors as ``.pt`` files, PyTorch's own archive."""

from __future__ import annotations

import io
from typing import Any

from lighter_async.writers.base import Encoder

__all__ = ["encode_tensor", "write_tensor"]


def encode_tensor(tensor: Any) -> memoryview:
    """What `torch.save` writes for a tensor of any shape and dtype, or for any object that it can save.

    Only the tensor's own elements are stored, even if it is a view of something larger; a sparse, quantised or
    subclassed tensor is stored as what it is. Gradients and the device are not part of a prediction: `torch.load`
    gives a CPU tensor without them.

    Raises:
        Exception: What `torch.save` raises for an object that it cannot save.
    """
    import torch

    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().cpu()
        if _is_part_of_larger(tensor):
            tensor = tensor.clone()
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getbuffer()


def _is_part_of_larger(tensor: Any) -> bool:
    import torch

    if tensor.layout is not torch.strided or tensor.is_nested:
        return False
    return bool(tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size())


write_tensor = Encoder(encode_tensor, suffix=".pt", name="tensor")
"""``write_tensor(path, tensor, *, suffix=".pt")``: write what `torch.load` reads back."""
