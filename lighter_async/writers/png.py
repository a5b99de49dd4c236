"""PNG at memory speed: rows filtered by numpy, deflated by ISA-L, both with the interpreter's lock released.

Format: Portable Network Graphics (PNG) Specification, third edition, W3C Recommendation: the signature, an IHDR chunk,
the zlib stream of the filtered rows in IDAT chunks, and an IEND chunk.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

__all__ = ["FILTERS", "LEVELS", "encode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # grey, grey and alpha, RGB, RGBA
_NONE, _SUB, _UP, _AVERAGE = 0, 1, 2, 3
_MOST_IN_CHUNK = 1 << 30  # of the 2**31 - 1 that a chunk may have

LEVELS = range(4)
"""Of ISA-L's deflate: 0 is the fastest, 3 the slowest, 1 nearly as small as it gets."""

FILTERS = {
    "none": (_NONE,),
    "sub": (_SUB,),
    "up": (_UP,),
    "average": (_AVERAGE,),
    "adaptive": (_SUB, _UP, _AVERAGE),
}
"""By name, the specification's filter types that a row may have."""

# Rows are filtered in strips of this size, which stay in a core's cache from one step to the next.
_STRIP_BYTES = 96 * 1024
# The best filter of a row is guessed from every fourth byte.
_SAMPLED = 4


def encode_png(pixels: NDArray[Any], *, level: int = 1, filter: str = "adaptive") -> list[bytes]:
    """The parts of a PNG file.

    Args:
        pixels: HW or HWC with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA) channels of uint8 or uint16; at least
            one pixel.
        level: One of `LEVELS`.
        filter: One of `FILTERS`; ``"adaptive"`` takes for each row the one whose bytes are smallest in sum.

    Raises:
        ValueError: Another level or filter.
    """
    if level not in LEVELS:
        raise ValueError(f"compress_level is {LEVELS[0]} to {LEVELS[-1]}, not {level!r}; codec='pillow' takes 0 to 9")
    if filter not in FILTERS:
        raise ValueError(f"filter is one of {', '.join(map(repr, FILTERS))}, not {filter!r}")
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    depth = pixels.itemsize
    rows = np.ascontiguousarray(pixels if depth == 1 else pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    data = isal_zlib.compress(_filtered(rows, channels * depth, FILTERS[filter]), level)
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [_SIGNATURE, *_chunk(b"IHDR", header)]
    for start in range(0, len(data), _MOST_IN_CHUNK):
        parts += _chunk(b"IDAT", data[start : start + _MOST_IN_CHUNK])
    return [*parts, *_chunk(b"IEND", b"")]


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    return struct.pack(">I", len(data)) + kind, data, struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind)))


def _filtered(rows: NDArray[np.uint8], distance: int, kinds: tuple[int, ...]) -> NDArray[np.uint8]:
    """The rows, each behind the type of its filter and filtered by it.

    Args:
        rows: The pixels' bytes.
        distance: Bytes of a pixel.
        kinds: The filter types to choose from.
    """
    height, length = rows.shape
    filtered = np.empty((height, 1 + length), np.uint8)
    strip = max(1, _STRIP_BYTES // length)
    candidates = np.empty((len(kinds), min(strip, height), length), np.uint8)
    above = np.zeros((1, length), np.uint8)
    for start in range(0, height, strip):
        here = rows[start : start + strip]
        count = len(here)
        above = np.concatenate([above[-1:], here[:-1]])
        costs = np.zeros((len(kinds), count), np.uint32)
        for index, kind in enumerate(kinds):
            candidate = candidates[index, :count]
            _apply(kind, here, above, distance, candidate)
            if len(kinds) > 1:
                some = candidate[:, ::_SAMPLED]
                np.sum(np.minimum(some, 0 - some), axis=1, dtype=np.uint32, out=costs[index])
        best = costs.argmin(axis=0)
        filtered[start : start + count, 0] = np.take(kinds, best)
        filtered[start : start + count, 1:] = candidates[best, np.arange(count)]
        above = here
    return filtered


def _apply(kind: int, here: NDArray[np.uint8], above: NDArray[np.uint8], distance: int, out: NDArray[np.uint8]) -> None:
    """One of the specification's filters: the difference to a prediction, modulo 256."""
    if kind == _NONE:
        out[...] = here
    elif kind == _SUB:
        out[:, :distance] = here[:, :distance]
        np.subtract(here[:, distance:], here[:, :-distance], out=out[:, distance:])
    elif kind == _UP:
        np.subtract(here, above, out=out)
    else:
        out[:, :distance] = here[:, :distance] - (above[:, :distance] >> 1)
        left, up = here[:, :-distance], above[:, distance:]
        # The mean rounded down, in eight bits: what both have, and half of what they differ in.
        mean = left ^ up
        mean >>= 1
        mean += left & up
        np.subtract(here[:, distance:], mean, out=out[:, distance:])
