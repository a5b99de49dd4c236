"""Dense tensors and arrays as numpy arrays, for formats that hold one array of elements.

A tensor may also come as a `Block`, its plain memory, which needs no PyTorch.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.npy import numpy_dtype
from lighter_async.plain_memory import Block

__all__ = ["array_of", "block_of", "check_not_masked", "is_tensor", "without_class"]

_ATOMS = frozenset({float, int, str, bool, bytes, type(None)})
_MOST_LOOKED_AT = 256  # items of a container


def is_tensor(value: Any) -> bool:
    """Whether it is a PyTorch tensor."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(value, kind)


def array_of(value: Any, what: str, *, widen: bool = False, in_c_order: bool = True) -> NDArray[Any]:
    """A tensor, an array or a `Block` as an array; elements that are there already are not copied.

    Args:
        value: The tensor, array, numpy number or `Block`.
        what: The format in error messages, such as ``"a numpy file"``.
        widen: Whether floats that numpy lacks (bfloat16, float8) become float32; else they are refused.
        in_c_order: Whether its elements are to lie in C order.

    Raises:
        TypeError: It is none of them, or numpy cannot hold it.
    """
    if type(value) is Block:
        return _array_of_block(value, what, widen=widen)
    if isinstance(value, (np.ndarray, np.generic)):
        check_not_masked(value)
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError("an array of objects is pickled, and that is not written; convert it to numbers or texts")
        if array.dtype.kind == "V" and array.dtype.fields is None:
            numpy_dtype(str(array.dtype), what)
        return array if array.flags.c_contiguous or not in_c_order else np.ascontiguousarray(array)
    plain = _plain_tensor(value, what)
    plain = plain.contiguous() if in_c_order else plain
    name = str(plain.dtype).removeprefix("torch.")
    if widen and name.startswith(("bfloat16", "float8")):
        plain = plain.float()
    else:
        numpy_dtype(name, what)
    return np.asarray(plain.numpy())


def check_not_masked(array: Any) -> None:
    """Refuse an array of which a mask says that some elements do not count: in a file they would, and be any numbers.

    Raises:
        TypeError: It is a masked array, with at least one element masked.
    """
    if _is_masked(array):
        raise TypeError(
            "a masked array would lose its mask here; write array.filled(value), with the value that means 'none', or "
            "array.data and numpy.ma.getmaskarray(array) apart"
        )


def _is_masked(array: Any) -> bool:
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(array, masked.MaskedArray) and bool(masked.is_masked(array))


def _has_plain_rows(kind: type) -> bool:
    """Whether the rows of an array's class are those of a plain array, as `numpy.matrix` has others."""
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", np.ndarray)
    item = getattr(kind, "__getitem__", None)
    return item in (np.ndarray.__getitem__, np.memmap.__getitem__, masked.__getitem__)


def block_of(value: Any, what: str) -> Block:
    """A tensor, of any dtype, or an array as plain memory: its dtype's name, its shape and its bytes in C order.

    Raises:
        TypeError: It is neither, or not dense.
    """
    if type(value) is Block:
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        array = array_of(value, what)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return Block(str(array.dtype), array.shape, _memory_of(array))
    plain = _plain_tensor(value, what).contiguous()
    torch = sys.modules["torch"]
    name = str(plain.dtype).removeprefix("torch.")
    if not plain.numel():
        return Block(name, tuple(plain.shape), np.empty(0, np.uint8))
    return Block(name, tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy())


def without_class(value: Any, *, is_batch: bool = False, **options: Any) -> Any:
    """A value whose dense tensors and arrays of a class of their own are plain ones of the same memory, also inside.

    As `Encoder.prepare`, for formats in which the class has no place. What a class keeps beside the elements is left
    out, but for the mask of a masked array, which is to be refused; a class that computes its elements
    (``__torch_dispatch__``) stays. Long containers are not looked into: what is in them keeps its class, which changes
    no file.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if is_tensor(value):
        torch = sys.modules["torch"]
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            return value
        if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            return value
        with torch._C.DisableTorchFunctionSubclass():
            return value.detach().as_subclass(torch.Tensor)
    if isinstance(value, np.ndarray):
        if kind is np.ndarray or value.dtype.kind == "V" or value.dtype.hasobject:
            return value
        if is_batch and value.ndim and (_is_masked(value) or not _has_plain_rows(kind)):
            return [without_class(row) for row in value]
        return value if _is_masked(value) else np.asarray(value)
    if (kind is list or kind is tuple) and len(value) <= _MOST_LOOKED_AT:
        made = [without_class(item) for item in value]
        return value if all(one is other for one, other in zip(made, value, strict=True)) else kind(made)
    if kind is dict and len(value) <= _MOST_LOOKED_AT:
        found = {key: without_class(item) for key, item in value.items()}
        return value if all(found[key] is item for key, item in value.items()) else found
    return value


def _array_of_block(block: Block, what: str, *, widen: bool) -> NDArray[Any]:
    if widen and block.dtype == "bfloat16":  # the upper half of a float32
        wide = (block.memory.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return wide.reshape(block.shape)
    if widen and block.dtype.startswith("float8"):
        import torch

        memory = torch.from_numpy(block.memory.copy()).view(getattr(torch, block.dtype))
        return np.asarray(memory.float().numpy()).reshape(block.shape)
    dtype = numpy_dtype(block.dtype, what)
    return block.memory.view(dtype).reshape(block.shape) if block.memory.size else np.empty(block.shape, dtype)


def _plain_tensor(value: Any, what: str) -> Any:
    """A dense tensor on the host, without its class.

    Raises:
        TypeError: It is none.
    """
    if not is_tensor(value):
        raise TypeError(
            f"a tensor or a numpy array can be written here, not {type(value).__name__}; numpy.asarray(value) makes "
            "one of numbers and lists of them"
        )
    torch = sys.modules["torch"]
    if value.is_nested:
        raise TypeError(f"{what} is one dense array, not a nested tensor; write its parts one by one")
    if value.is_quantized:
        raise TypeError(f"{what} has no quantised arrays ({value.dtype}); write tensor.dequantize()")
    if value.layout is not torch.strided:
        raise TypeError(f"{what} is one dense array, not a {value.layout} tensor; write tensor.to_dense()")
    return value.detach().cpu().resolve_conj().resolve_neg().as_subclass(torch.Tensor)


def _memory_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
