"""PNG at memory speed: numpy filters, ISA-L or libdeflate deflates, with the interpreter's lock released.

Format: Portable Network Graphics (PNG) Specification, third edition, W3C Recommendation: the signature, an IHDR chunk,
the zlib stream of the filtered rows in IDAT chunks, and an IEND chunk.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import deflate
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.writers.filters import FILTERS, SMOOTH, filter_rows

__all__ = ["FILTERS", "LEVELS", "check_png", "decode_png", "encode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # grey, grey and alpha, RGB, RGBA
_MOST_IN_CHUNK = 1 << 30  # bytes, of the 2**31 - 1 that a chunk may have

_MODES = {"L": np.uint8, "LA": np.uint8, "RGB": np.uint8, "RGBA": np.uint8, "I;16": np.uint16}
_MOST_DEFLATED = 1032  # bytes that deflate packs into one, at most

LEVELS = range(13)
"""From the fastest to the smallest: 0 to 3 are ISA-L's levels, from 4 on they are libdeflate's."""

# Smooth rows have repeated strings, which ISA-L looks for in few places: its files are 10 to 50 % larger than Pillow's.
# libdeflate's level 2 finds them in two to three times the time; in textured rows there are none, and the time is lost.
# If nearly all bytes are equal, as in masks, ISA-L is ten times as fast, and the file fits a block of the disk.
_PLAIN = 0.2


def check_png(level: int | None, filter: str) -> None:
    """
    Raises:
        ValueError: There is no such level or filter.
    """
    if level is not None and (type(level) is not int or level not in LEVELS):
        raise ValueError(
            f"compress_level is {LEVELS[0]} to {LEVELS[-1]}, not {shown(level)}; codec='pillow' takes 0 to 9"
        )
    if not isinstance(filter, str) or filter not in FILTERS:
        raise ValueError(f"filter is one of {', '.join(map(repr, FILTERS))}, not {shown(filter)}")


def encode_png(planes: NDArray[Any], *, level: int | None = None, filter: str = "adaptive") -> list[bytes | bytearray]:
    """The parts of a PNG file.

    Args:
        planes: CHW with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA) channels of uint8 or uint16; at least one
            pixel.
        level: One of `LEVELS`; None chooses between a fast and a middle one, depending on the rows.
        filter: One of `FILTERS`.

    Raises:
        ValueError: There is no such level or filter.
    """
    check_png(level, filter)
    channels, height, width = planes.shape
    depth = planes.itemsize
    if depth == 2:  # the upper bytes come first, and are a plane of their own
        pairs = planes.astype(">u2").view(np.uint8).reshape(channels, height, width, depth)
        planes = pairs.transpose(0, 3, 1, 2).reshape(-1, height, width)
    rows, activity = filter_rows(planes, FILTERS[filter])
    if level is None:
        data = _deflate(rows, 2) if _PLAIN <= activity < SMOOTH else isal_zlib.compress(rows, 1)
    else:
        data = isal_zlib.compress(rows, level) if level < 4 else _deflate(rows, level)
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [_SIGNATURE, *_chunk(b"IHDR", header)]
    for start in range(0, len(data), _MOST_IN_CHUNK):
        parts += _chunk(b"IDAT", data[start : start + _MOST_IN_CHUNK])
    return [*parts, *_chunk(b"IEND", b"")]


def decode_png(data: bytes | memoryview) -> NDArray[Any]:
    """The pixels of a PNG that `encode_png` or Pillow has made: CHW, with memory of their own.

    Raises:
        ValueError: It is of another kind, or claims more pixels than it can hold.
        Exception: What Pillow raises if it is not a PNG, or damaged.
    """
    from PIL.PngImagePlugin import PngImageFile

    # Not Image.open, which refuses large images as bombs; more pixels than the file can hold are refused below.
    with PngImageFile(io.BytesIO(data)) as image:
        width, height = image.size
        if image.mode not in _MODES:
            raise ValueError(f"a PNG of Pillow's mode {image.mode!r}, which is none of {', '.join(_MODES)}")
        if width * height * len(image.getbands()) > _MOST_DEFLATED * len(data):
            raise ValueError(f"a PNG of {len(data)} bytes does not hold {width} x {height} pixels")
        pixels = np.array(image, _MODES[image.mode])
    if pixels.ndim == 2:
        return pixels[None]
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _deflate(rows: NDArray[np.uint8], level: int) -> bytearray:
    data: bytearray = deflate.zlib_compress(rows, level)
    return data


def _chunk(kind: bytes, data: bytes | bytearray) -> tuple[bytes, bytes | bytearray, bytes]:
    return struct.pack(">I", len(data)) + kind, data, struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind)))
