"""Images as JPEG, by Pillow, whose libjpeg-turbo is as fast as any: what remains is the way of the pixels to it."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.plain_memory import Block
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import without_class
from lighter_async.writers.eight_bit import pillow_image, planes_of, planes_of_block, reduce_image
from lighter_async.writers.image import remark_on_image
from lighter_async.writers.scaling import Scale, checked_scale

__all__ = ["decode_jpeg", "encode_jpeg", "write_jpeg"]

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]

_CHANNELS = {
    1: None,
    3: None,
    4: "JPEG has no alpha: write image[:3], or as 'webp' or 'image_2d', which have it",
}
_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_LONGEST = 65500  # pixels on a side, libjpeg's limit
_MOST_IN_BYTE = 512  # pixels: a block of 8 x 8 takes a bit at least


def encode_jpeg(
    value: Any, *, quality: int = 90, subsampling: Subsampling = "4:2:0", scale: Scale = "unit"
) -> memoryview:
    """A JPEG of an image.

    Args:
        value: CHW with 1 (grey) or 3 (RGB) channels; floats in [0, 1], uint8 or bool, as for `encode_image_2d`.
        quality: 1 to 100.
        subsampling: How much of the colours is kept: ``"4:4:4"`` all, ``"4:2:2"`` half, ``"4:2:0"`` a quarter.
        scale: What becomes black and what white, as for `encode_image_2d`.

    Raises:
        ValueError: The tensor has another rank or number of channels, no pixels, or more than 65,500 on a side.
        TypeError: The dtype has no single meaning as pixels, or the value is not a dense tensor or array.
    """
    return _encode(planes_of(value, "write_jpeg", _CHANNELS, _LONGEST, scale), quality, subsampling)


def _encode_block(
    block: Block, *, quality: int = 90, subsampling: Subsampling = "4:2:0", scale: Scale = "unit"
) -> memoryview | None:
    planes = planes_of_block(block, _CHANNELS, _LONGEST, scale)
    return None if planes is None else _encode(planes, quality, subsampling)


def _encode(planes: NDArray[np.uint8], quality: int, subsampling: Subsampling) -> memoryview:
    buffer = io.BytesIO()
    pillow_image(planes).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getbuffer()


def decode_jpeg(data: bytes | memoryview) -> NDArray[np.uint8]:
    """The pixels of a JPEG: CHW with 1 (grey) or 3 (RGB) channels, uint8, with memory of their own.

    They are close to those that were written, and not the same.

    Raises:
        ValueError: It is of another kind, or claims more pixels than it can hold.
        Exception: What Pillow raises if it is no JPEG, or damaged.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(io.BytesIO(data)) as image:
        width, height = image.size
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"a JPEG of Pillow's mode {image.mode!r}, which is neither 'L' nor 'RGB'")
        if width * height > _MOST_IN_BYTE * len(data):
            raise ValueError(f"a JPEG of {len(data)} bytes does not hold {width} x {height} pixels")
        pixels = np.array(image, np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _check(*, quality: int = 90, subsampling: Subsampling = "4:2:0", scale: Scale = "unit") -> None:
    """
    Raises:
        ValueError: An option is out of range.
    """
    checked_scale(scale)
    if type(quality) is not int or not 1 <= quality <= 100:
        raise ValueError(f"quality is 1 to 100, not {shown(quality)}")
    if not isinstance(subsampling, str) or subsampling not in _SUBSAMPLINGS:
        raise ValueError(
            f"subsampling is one of {', '.join(map(repr, _SUBSAMPLINGS))}, not {shown(subsampling)}"
            + ("; in YAML, 4:2:0 without quotes is a number" if isinstance(subsampling, int) else "")
        )


def _remark(value: Any, **options: Any) -> str | None:
    return remark_on_image("jpeg", value, **options)


write_jpeg = Encoder(
    encode_jpeg,
    suffix=".jpg",
    name="jpeg",
    encode_block=_encode_block,
    prepare=without_class,
    reduce=reduce_image,
    remark=_remark,
    check=_check,
    decode=decode_jpeg,
)
"""``write_jpeg(path, value, *, suffix=".jpg")``: write a CHW image as JPEG."""
