"""Images as PNG.

Format: Portable Network Graphics (PNG) Specification, third edition, W3C Recommendation; encoded by Pillow.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from lighter_async.writers.base import Encoder

__all__ = ["encode_image_2d", "encode_image_3d", "to_pixels", "write_image_2d", "write_image_3d"]

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


def encode_image_2d(tensor: Any) -> memoryview:
    """A PNG of an image.

    Args:
        tensor: CHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool.

    Raises:
        ValueError: It is of another rank, has another number of channels, or no pixels.
        TypeError: The dtype has no one meaning as pixels, or it is no dense tensor or array.
    """
    tensor = _as_tensor(tensor)
    if tensor.ndim != 3:
        raise ValueError(
            f"write_image_2d expects a 3D tensor (CHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 2 else "")
            + ("; write_image_3d takes CDHW" if tensor.ndim == 4 else "")
        )
    return _png(tensor)


def encode_image_3d(tensor: Any) -> memoryview:
    """A PNG of a volume, its D slices stacked vertically: D * H pixels high, W wide.

    Args:
        tensor: CDHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool.

    Raises:
        ValueError: It is of another rank, has another number of channels, or no pixels.
        TypeError: The dtype has no one meaning as pixels, or it is no dense tensor or array.
    """
    tensor = _as_tensor(tensor)
    if tensor.ndim != 4:
        raise ValueError(
            f"write_image_3d expects a 4D tensor (CDHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 3 else "")
        )
    channels, depth, height, width = tensor.shape
    return _png(tensor.reshape(channels, depth * height, width))


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


def _png(image: Any) -> memoryview:
    from PIL import Image

    channels, height, width = image.shape
    if channels not in _CHANNELS:
        hint = "; tensor.movedim(-1, 0) makes CHW of HWC" if width in _CHANNELS else ""
        raise ValueError(f"an image has 1, 3 or 4 channels, got {channels} in shape {tuple(image.shape)}{hint}")
    if height == 0 or width == 0:
        raise ValueError(f"an image needs at least one pixel, got shape {tuple(image.shape)}")
    pixels = to_pixels(image).detach().cpu().movedim(0, -1).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
    return buffer.getbuffer()


write_image_2d = Encoder(encode_image_2d, suffix=".png", name="image_2d")
"""``write_image_2d(path, tensor, *, suffix=".png")``: write a CHW image as PNG."""

write_image_3d = Encoder(encode_image_3d, suffix=".png", name="image_3d")
"""``write_image_3d(path, tensor, *, suffix=".png")``: write a CDHW volume as PNG, its slices stacked vertically."""
