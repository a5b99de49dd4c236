"""Images as WebP, by Pillow: smaller than JPEG or PNG, and slower to make."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.plain_memory import Block
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import without_class
from lighter_async.writers.eight_bit import pillow_image, planes_of, planes_of_block, reduce_image
from lighter_async.writers.image import remark_on_image
from lighter_async.writers.scaling import Scale, checked_scale

__all__ = ["decode_webp", "encode_webp", "write_webp"]

_CHANNELS = {1: None, 3: None, 4: None}
_LONGEST = 16383  # pixels on a side
_MOST_IN_BYTE = 1032  # pixels, of a large image whose size is not recorded; lossless WebP may pack more
_LARGE = 1 << 24  # pixels


def encode_webp(
    value: Any, *, quality: int = 80, lossless: bool = False, method: int = 4, scale: Scale = "unit"
) -> memoryview:
    """A WebP of an image.

    Args:
        value: CHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool, as for
            `encode_image_2d`. WebP has no grey, so that grey is stored as RGB.
        quality: 0 to 100; of a lossless file the effort for a small one.
        lossless: Whether the pixels are kept exactly, also where they are transparent.
        method: 0 (fast) to 6 (small).
        scale: What becomes black and what white, as for `encode_image_2d`.

    Raises:
        ValueError: The tensor has another rank or number of channels, no pixels, or more than 16,383 on a side.
        TypeError: The dtype has no single meaning as pixels, or the value is not a dense tensor or array.
    """
    return _encode(planes_of(value, "write_webp", _CHANNELS, _LONGEST, scale), quality, lossless, method)


def _encode_block(
    block: Block, *, quality: int = 80, lossless: bool = False, method: int = 4, scale: Scale = "unit"
) -> memoryview | None:
    planes = planes_of_block(block, _CHANNELS, _LONGEST, scale)
    return None if planes is None else _encode(planes, quality, lossless, method)


def _encode(planes: NDArray[np.uint8], quality: int, lossless: bool, method: int) -> memoryview:
    buffer = io.BytesIO()
    image = pillow_image(planes if len(planes) > 1 else np.repeat(planes, 3, 0))
    image.save(buffer, "WEBP", quality=quality, lossless=lossless, method=method, exact=lossless)
    return buffer.getbuffer()


def decode_webp(data: bytes | memoryview, *, shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """The pixels of a WebP: CHW, uint8, with memory of their own.

    Args:
        data: The file's content.
        shape: The image's shape, where it is known: an image of 1 channel is read as such, and else as RGB.

    Returns:
        1, 3 (RGB) or 4 (RGBA) channels. Of a lossless file they are those that were written, else close to them.

    Raises:
        ValueError: It is none, holds several images, is of another size than the shape, or claims many pixels in few
            bytes where the shape is not known.
        Exception: What Pillow raises if it is damaged.
    """
    from PIL.WebPImagePlugin import WebPImageFile

    width, height = _size_of(bytes(data[:30]))
    if shape is not None and tuple(shape[1:]) != (height, width):
        raise ValueError(f"a WebP of {width} x {height} pixels is no image of shape {shape}")
    if shape is None and width * height > max(_LARGE, _MOST_IN_BYTE * len(data)):
        raise ValueError(f"a WebP of {len(data)} bytes claims {width} x {height} pixels, and its shape is not recorded")
    with WebPImageFile(io.BytesIO(data)) as image:
        if image.mode not in ("RGB", "RGBA") or getattr(image, "n_frames", 1) != 1 or image.size != (width, height):
            raise ValueError("it is no WebP of one image")
        pixels = np.moveaxis(np.array(image, np.uint8), -1, 0)
    return np.ascontiguousarray(pixels[:1] if shape is not None and shape[0] == 1 else pixels)


def _size_of(start: bytes) -> tuple[int, int]:
    """The width and height that a file claims, before memory is taken for it.

    Format: RFC 9649, section 2.

    Raises:
        ValueError: It is no WebP.
    """
    if len(start) == 30 and start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        kind = start[12:16]
        if kind == b"VP8X":
            return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
        if kind == b"VP8 ":
            return int.from_bytes(start[26:28], "little") & 0x3FFF, int.from_bytes(start[28:30], "little") & 0x3FFF
        if kind == b"VP8L":
            bits = int.from_bytes(start[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ValueError("it is no WebP")


def _check(*, quality: int = 80, lossless: bool = False, method: int = 4, scale: Scale = "unit") -> None:
    """
    Raises:
        ValueError: An option is out of range.
        ImportError: Pillow was built without WebP.
    """
    from PIL import features

    checked_scale(scale)
    if type(quality) is not int or not 0 <= quality <= 100:
        raise ValueError(f"quality is 0 to 100, not {shown(quality)}")
    if type(lossless) is not bool:
        raise ValueError(f"lossless is True or False, not {shown(lossless)}")
    if type(method) is not int or not 0 <= method <= 6:
        raise ValueError(f"method is 0 to 6, not {shown(method)}")
    if not features.check("webp"):
        raise ImportError("this Pillow was built without WebP; one that has it: pip install --force-reinstall pillow")


def _remark(value: Any, **options: Any) -> str | None:
    return remark_on_image("webp", value, **options)


write_webp = Encoder(
    encode_webp,
    suffix=".webp",
    name="webp",
    encode_block=_encode_block,
    prepare=without_class,
    reduce=reduce_image,
    remark=_remark,
    check=_check,
    decode=decode_webp,
)
"""``write_webp(path, value, *, suffix=".webp")``: write a CHW image as WebP."""
