"""Images as PNG: what a tensor's values mean as pixels. The file itself is `png.py`'s, or Pillow's on request."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lighter_async.block import Block
from lighter_async.writers.base import Encoded, Encoder
from lighter_async.writers.png import encode_png

__all__ = ["encode_image_2d", "encode_image_3d", "to_pixels", "write_image_2d", "write_image_3d"]

Codec = Literal["isal", "pillow"]

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def to_pixels(tensor: Any) -> Any:
    """Pixel values as uint8, of the same shape.

    Floats are clamped to [0, 1] and scaled to [0, 255], exactly as ``(x.float().clamp(0, 1) *
    255).to(torch.uint8)``; uint8 stays as it is, so that label maps survive; bool becomes 0 and 255.

    Args:
        tensor: A tensor or a numpy array, of any shape.

    Raises:
        TypeError: The dtype is another integer type or complex, or it is sparse, nested, quantised, or no tensor.
    """
    import torch

    tensor = _as_tensor(tensor)
    if tensor.dtype is torch.uint8:
        return tensor
    if tensor.dtype is torch.bool:
        return tensor.to(torch.uint8) * 255
    if tensor.dtype.is_complex:
        raise TypeError(f"an image cannot hold {tensor.dtype}; write tensor.abs(), tensor.real or tensor.angle()")
    if not tensor.dtype.is_floating_point:
        raise TypeError(
            f"an image of dtype {tensor.dtype} could mean labels or intensities; convert labels up to 255 with "
            ".to(torch.uint8), and intensities with tensor / maximum to floats in [0, 1]"
        )
    return (tensor.float().clamp(0, 1) * 255).to(torch.uint8)


def encode_image_2d(
    tensor: Any, *, codec: Codec = "isal", compress_level: int | None = None, filter: str = "adaptive"
) -> Encoded:
    """A PNG of an image.

    Args:
        tensor: CHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool.
        codec: ``"isal"`` is many times as fast as ``"pillow"``, at nearly the size.
        compress_level: 0 to 3 for ``"isal"``, by default 1; 0 to 9 for ``"pillow"``, by default 6.
        filter: ``"adaptive"``, ``"average"``, ``"sub"``, ``"up"`` or ``"none"``; Pillow chooses for itself.

    Raises:
        ValueError: It is of another rank, has another number of channels, or no pixels; or an option is out of range.
        TypeError: The dtype has no one meaning as pixels, or it is no dense tensor or array.
    """
    tensor = _as_tensor(tensor)
    if tensor.ndim != 3:
        raise ValueError(
            f"write_image_2d expects a 3D tensor (CHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 2 else "")
            + ("; write_image_3d takes CDHW" if tensor.ndim == 4 else "")
        )
    return _png(tensor, codec, compress_level, filter)


def encode_image_3d(
    tensor: Any, *, codec: Codec = "isal", compress_level: int | None = None, filter: str = "adaptive"
) -> Encoded:
    """A PNG of a volume, its D slices stacked vertically: D * H pixels high, W wide.

    Args:
        tensor: CDHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool.
        codec: As for `encode_image_2d`, as are `compress_level` and `filter`.

    Raises:
        ValueError: It is of another rank, has another number of channels, or no pixels; or an option is out of range.
        TypeError: The dtype has no one meaning as pixels, or it is no dense tensor or array.
    """
    tensor = _as_tensor(tensor)
    if tensor.ndim != 4:
        raise ValueError(
            f"write_image_3d expects a 4D tensor (CDHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 3 else "")
        )
    channels, depth, height, width = tensor.shape
    return _png(tensor.reshape(channels, depth * height, width), codec, compress_level, filter)


def _encode_block_2d(block: Block, **options: Any) -> Encoded | None:
    return _encode_planes(block, block.shape, **options) if len(block.shape) == 3 else None


def _encode_block_3d(block: Block, **options: Any) -> Encoded | None:
    if len(block.shape) != 4:
        return None
    channels, depth, height, width = block.shape
    return _encode_planes(block, (channels, depth * height, width), **options)


def _encode_planes(
    block: Block,
    shape: tuple[int, ...],
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
) -> Encoded | None:
    """The same without a tensor; None for what is refused, which is told where there is one."""
    planes = _planes(block)
    if codec != "isal" or planes is None or shape[0] not in _CHANNELS:
        return None
    channels, height, width = shape
    pixels = np.empty((height, width, channels), np.uint8)
    for channel, plane in enumerate(planes.reshape(shape)):
        pixels[..., channel] = plane
    return encode_png(pixels, level=1 if compress_level is None else compress_level, filter=filter)


def _planes(block: Block) -> NDArray[np.uint8] | None:
    """`to_pixels` of a block."""
    if block.dtype == "uint8":
        return block.memory
    if block.dtype == "bool":
        return block.memory * np.uint8(255)
    if block.dtype == "bfloat16":  # the upper half of a float32
        values = (block.memory.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif block.dtype in ("float16", "float32", "float64"):
        with np.errstate(over="ignore"):  # infinite is what torch makes of it, too
            values = block.memory.view(block.dtype).astype(np.float32, copy=False)
    else:
        return None
    with np.errstate(invalid="ignore"):  # NaN, which becomes 0
        scaled = np.clip(values, 0, 1)
        scaled *= 255
        return scaled.astype(np.uint8)


def _as_tensor(value: Any) -> Any:
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
        raise TypeError(f"an image is a tensor or a numpy array, not {type(value).__name__}: {value!r:.80}")
    # Copied in the machine's byte order and without negative strides; arrays in a slot are read-only besides, and
    # tensors can be none of it.
    array = np.array(value, value.dtype.newbyteorder("="), order="C", subok=False)
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(f"an image cannot hold numpy's {value.dtype}; convert it to float32 or uint8") from error


def _png(image: Any, codec: Codec, compress_level: int | None, filter: str) -> Encoded:
    if codec not in ("isal", "pillow"):
        raise ValueError(f"codec is 'isal' or 'pillow', not {codec!r}")
    channels, height, width = image.shape
    if channels not in _CHANNELS:
        hint = "; tensor.movedim(-1, 0) makes CHW of HWC" if width in _CHANNELS else ""
        raise ValueError(f"an image has 1, 3 or 4 channels, got {channels} in shape {tuple(image.shape)}{hint}")
    if height == 0 or width == 0:
        raise ValueError(f"an image needs at least one pixel, got shape {tuple(image.shape)}")
    pixels = to_pixels(image).detach().cpu().movedim(0, -1).contiguous().numpy()
    if codec == "isal":
        return encode_png(pixels, level=1 if compress_level is None else compress_level, filter=filter)
    from PIL import Image

    buffer = io.BytesIO()
    level = 6 if compress_level is None else compress_level
    if level not in range(10):
        raise ValueError(f"compress_level of codec 'pillow' is 0 to 9, not {compress_level!r}")
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getbuffer()


write_image_2d = Encoder(encode_image_2d, suffix=".png", name="image_2d", encode_block=_encode_block_2d)
"""``write_image_2d(path, tensor, *, suffix=".png")``: write a CHW image as PNG."""

write_image_3d = Encoder(encode_image_3d, suffix=".png", name="image_3d", encode_block=_encode_block_3d)
"""``write_image_3d(path, tensor, *, suffix=".png")``: write a CDHW volume as PNG, its slices stacked vertically."""
