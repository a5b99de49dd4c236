"""What a tensor's values mean as pixels: on the host, with and without PyTorch, and on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.plain_memory import Block
from lighter_async.writers.dense import check_not_masked
from lighter_async.writers.scaling import Scale, black_and_span, checked_scale, finite_extremes, precision_of, scaled

__all__ = ["Mode", "as_tensor", "pixels_of_block", "reduced", "to_pixels"]

Mode = Literal["L", "LA", "RGB", "RGBA", "I;16"]

_FLOATS = ("bfloat16", "float16", "float32", "float64")
_INTEGERS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")

# Values that are converted at once, few enough to stay in a core's cache.
_PIECE = 1 << 17


def to_pixels(tensor: Any, *, mode: Mode | None = None, scale: Scale = "unit") -> Any:
    """Pixel values as uint8, or uint16 for mode ``"I;16"``, of the same shape.

    Floats are clamped to [0, 1] and scaled to [0, 255], exactly as ``(x.float().clamp(0, 1) *
    255).to(torch.uint8)``; uint8 stays as it is, so that label maps survive; bool becomes 0 and 255.

    For mode ``"I;16"`` they are scaled to [0, 65535], exactly as ``(x.double().clamp(0, 1) * 65535).to(torch.int32)``
    (in double, where the product is exact); uint16 stays as it is; bool becomes 0 and 65535. NaN becomes 0 in both.

    With another scale, real numbers of any other dtype become ``((x - low) / (high - low)).clamp(0, 1)`` first, and
    are then scaled likewise: in float32, or in double where that has too few digits for the dtype or the mode.

    Args:
        tensor: A tensor or a numpy array, of any shape: one sample.
        mode: Pillow's name for the kind of image.
        scale: What becomes black and what white, as of `encode_image_2d`.

    Raises:
        TypeError: The dtype is another integer type or complex, or the value is not a dense tensor or array.
        ValueError: It is no scale.
    """
    import torch

    tensor = as_tensor(tensor)
    wide = mode == "I;16"
    if tensor.dtype is (torch.uint16 if wide else torch.uint8):
        return tensor
    if (scale := checked_scale(scale)) != "unit" and not tensor.dtype.is_complex:
        if not tensor.numel():
            return tensor.to(torch.uint16 if wide else torch.uint8)
        values = tensor.detach().to(getattr(torch, precision_of(_name_of(tensor.dtype), wide=wide)))
        pixels = scaled(values, scale, 65535 if wide else 255, tuple(range(tensor.ndim)), own=False)
        return pixels.to(torch.int32).to(torch.uint16) if wide else pixels.to(torch.uint8)
    if tensor.dtype is torch.bool:
        return (tensor.to(torch.int32) * 65535).to(torch.uint16) if wide else tensor.to(torch.uint8) * 255
    if tensor.dtype.is_complex:
        raise TypeError(f"an image cannot hold {tensor.dtype}; write tensor.abs(), tensor.real or tensor.angle()")
    if not tensor.dtype.is_floating_point:
        highest, kind = (65535, "uint16") if wide else (255, "uint8")
        raise TypeError(
            f"an image of dtype {tensor.dtype} could mean labels or intensities; convert labels up to {highest} with "
            f".to(torch.{kind}), and intensities with tensor / maximum to floats in [0, 1], or by scale=(low, high)"
            + ("" if wide else '; mode="I;16" of image_2d writes one channel of torch.uint16 as it is')
        )
    if wide:
        return (tensor.double().clamp(0, 1) * 65535).to(torch.int32).to(torch.uint16)
    return (tensor.float().clamp(0, 1) * 255).to(torch.uint8)


def pixels_of_block(block: Block, mode: Mode | None = None, scale: Scale = "unit") -> NDArray[Any] | None:
    """`to_pixels` of a block, without a tensor; None if its dtype has to be refused, which `to_pixels` does."""
    wide = mode == "I;16"
    pixel, highest = (np.uint16, 65535) if wide else (np.uint8, 255)
    scale = checked_scale(scale)
    if block.dtype == pixel.__name__:  # also what an accelerator has scaled
        return block.memory.view(pixel)
    if scale == "unit":
        if block.dtype == "bool":
            ones: NDArray[Any] = block.memory.view(np.bool_).astype(pixel)  # True may be any byte but 0
            scaled: NDArray[Any] = ones * pixel(highest)
            return scaled
        if block.dtype not in _FLOATS:
            return None
        precision = "float64" if wide else "float32"
    elif block.dtype in _FLOATS or block.dtype in _INTEGERS:
        precision = precision_of(block.dtype, wide=wide)
    else:
        return None
    values = block.memory.view(np.uint16 if block.dtype == "bfloat16" else block.dtype)
    pixels = np.empty(values.size, pixel)
    out = np.empty(min(_PIECE, values.size), precision)
    # As torch does silently: a value too large for float32 becomes infinite, and NaN becomes 0.
    with np.errstate(over="ignore", invalid="ignore"):
        if scale != "unit" and values.size:
            low, high = finite_extremes(_pieces(values, block.dtype, out)) if scale == "minmax" else scale
            black, span = black_and_span(low, high, precision)
        start = 0
        for piece in _pieces(values, block.dtype, out):
            floats = out[: piece.size]
            if scale != "unit":
                np.subtract(piece, black, out=floats)
                piece = np.divide(floats, span, out=floats)
            np.clip(piece, 0, 1, out=floats)
            np.multiply(floats, highest, out=floats)
            pixels[start : start + piece.size] = floats
            start += piece.size
    return pixels


def _pieces(values: NDArray[Any], dtype: str, out: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Pieces of a block's values in the dtype of `out`: views, or converted into it."""
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE]
        if dtype == "bfloat16":  # the upper half of a float32
            piece = (piece.astype(np.uint32) << 16).view(np.float32)
        if piece.dtype != out.dtype:
            out[: piece.size] = piece
            piece = out[: piece.size]
        yield piece


def as_tensor(value: Any) -> Any:
    """A dense tensor as it is, or an array as a tensor.

    Raises:
        TypeError: It is neither, or PyTorch has no such dtype.
    """
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_nested or value.layout is not torch.strided:
            kind = "nested" if value.is_nested else f"{value.layout}"
            remedy = "write its parts one by one" if value.is_nested else "write tensor.to_dense()"
            raise TypeError(f"an image is a dense tensor, not a {kind} one; {remedy}")
        if value.is_quantized:
            raise TypeError(f"an image is no quantised tensor ({value.dtype}); write tensor.dequantize()")
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"an image is a tensor or a numpy array, not {type(value).__name__}: {shown(value)}")
    check_not_masked(value)
    try:
        # A copy in the machine's byte order and without negative strides, which tensors cannot have; nor can they be
        # read-only, as arrays in a slot are.
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C", subok=False))
    except TypeError as error:
        raise TypeError(f"an image cannot hold numpy's {value.dtype}; convert it to float32 or uint8") from error


def reduced(tensor: Any, rank: int, *, mode: Mode | None = None, scale: Scale = "unit", **options: Any) -> Any:
    """`to_pixels` on an accelerator, which leaves a quarter of a float32's bytes to copy.

    Args:
        tensor: A sample or a batch.
        rank: How many dimensions a sample has.
        mode, scale: As for `to_pixels`.
        options: The writer's other ones.
    """
    import torch

    if mode == "I;16" or not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_nested:
        return tensor  # it has few bytes already, or is refused later, when that fails only its sample
    scale = checked_scale(scale)
    if scale != "unit" and (
        precision_of(_name_of(tensor.dtype), wide=False) != "float32"  # which some devices do not have
        or tensor.ndim not in (rank, rank + 1)
        or not tensor.numel()
    ):
        return tensor
    tensor = tensor.detach()
    values = tensor.float()
    # In place if it is our own tensor: the model needs the device's memory.
    own = values is not tensor
    if scale != "unit":
        return scaled(values, scale, 255, tuple(range(-rank, 0)), own=own).to(torch.uint8)
    values = values.clamp_(0, 1) if own else values.clamp(0, 1)
    return values.mul_(255).to(torch.uint8)


def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
