"""The filters of PNG rows in numpy: each byte becomes its difference to a prediction from its neighbours.

Format: Portable Network Graphics (PNG) Specification, third edition, section 9. Planes are filtered, one for each byte
of a pixel, and become rows afterwards: so a byte's neighbours are the plane's, and the few long passes over a strip of
all planes run at memory speed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILTERS", "SMOOTH", "filter_rows"]

Bytes = NDArray[np.uint8]

_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)

FILTERS = {
    "none": (_NONE,),
    "sub": (_SUB,),
    "up": (_UP,),
    "average": (_AVERAGE,),
    "paeth": (_PAETH,),
    "adaptive": (_SUB, _UP, _AVERAGE, _PAETH),
}
"""By name, the specification's filter types that rows may have."""

# A strip of this size and what is made of it stay in a core's cache, and numpy's calls are few.
_STRIP_BYTES = 192 * 1024
# A strip's filter is guessed from eight rows of it, or from every sixteenth if that is more.
_GUESSED, _STEP = 8, 16
# What a filter must be better by in smooth rows, on average over the bytes: predictions from the byte before break up
# repeated strings, which deflate would have found.
_HANDICAPS = {_NONE: 0, _SUB: 0.6, _UP: 0, _AVERAGE: 0.6, _PAETH: 0.6}

SMOOTH = 4.0
"""Rows are smooth if their filtered bytes are smaller on average: then repeated strings are what makes a file small."""


def filter_rows(planes: NDArray[np.uint8], kinds: tuple[int, ...]) -> tuple[NDArray[np.uint8], float]:
    """The rows of an image, each behind the type of its filter and filtered by it, and how large their bytes are.

    Args:
        planes: One for each byte of a pixel, in their order, of H x W bytes.
        kinds: The filter types to choose from; each strip of rows takes the one whose bytes are smallest, as signed
            numbers without their sign.

    Returns:
        H rows of bytes, and the guessed mean of their bytes, as signed numbers without their sign.
    """
    count, height, width = planes.shape
    rows = np.empty((height, 1 + count * width), np.uint8)
    pixels = rows[:, 1:].reshape(height, width, count)
    strips = -(-planes.size // _STRIP_BYTES)
    strip = -(-height // strips)
    # Below a row above and beside a column of zeros, which are the neighbours of the first ones: so in flat memory a
    # byte's neighbours are everywhere at the same distance.
    here = np.zeros((count, 1 + strip, 1 + width), np.uint8)
    done = np.empty_like(here)
    total = 0.0
    for start in range(0, height, strip):
        some = min(strip, height - start)
        lead = min(start, 1)
        here[:, 1 - lead : 1 + some, 1:] = planes[:, start - lead : start + some]
        step = min(max(some // _GUESSED, 1), _STEP)
        kind, cost = _best(kinds, here[:, 1 + step // 2 : 1 + some : step], here[:, step // 2 : some : step])
        total += cost * some
        flat = here.reshape(-1)
        below, above = flat[width + 1 :], flat[: -width - 1]
        _apply(kind, below[1:], below[:-1], above[1:], above[:-1], done.reshape(-1)[width + 2 :])
        rows[start : start + some, 0] = kind
        for index, plane in enumerate(done):
            pixels[start : start + some, :, index] = plane[1 : 1 + some, 1:]
    return rows, total / height


def _best(kinds: tuple[int, ...], here: NDArray[np.uint8], above: NDArray[np.uint8]) -> tuple[int, float]:
    """The filter type to take, and how large the bytes are on average, by some rows and those above them."""
    below, above = here.reshape(-1), above.reshape(-1)
    tried = np.empty((len(kinds), below.size - 1), np.uint8)
    for kind, out in zip(kinds, tried, strict=True):
        _apply(kind, below[1:], below[:-1], above[1:], above[:-1], out)
    signed = tried.view(np.int8)
    np.abs(signed, out=signed)  # -128, which stays itself, is 128 in `tried`
    costs = dict(zip(kinds, (np.add.reduce(tried, axis=1, dtype=np.uint64) / tried.shape[1]).tolist(), strict=True))
    smooth = min(costs.values()) < SMOOTH
    best = min(costs, key=lambda kind: costs[kind] + smooth * _HANDICAPS[kind])
    return best, costs[best]


def _apply(kind: int, here: Bytes, left: Bytes, up: Bytes, corner: Bytes, out: Bytes) -> None:
    """One of the specification's filters: the difference to a prediction, modulo 256.

    Everything is done in eight bits, where one instruction handles 16 to 64 of them.
    """
    if kind == _NONE:
        out[...] = here
    elif kind == _SUB:
        np.subtract(here, left, out=out)
    elif kind == _UP:
        np.subtract(here, up, out=out)
    elif kind == _AVERAGE:
        # The mean rounded down: what both have, and half of what they differ in.
        mean = left ^ up
        mean >>= 1
        mean += np.bitwise_and(left, up, out=out)
        np.subtract(here, mean, out=out)
    else:
        # The specification takes whichever of left, up and corner is nearest to left + up - corner. With the corner
        # moved between the lower and the higher of the two, that is the lower one if the corner is at least twice as
        # far above it as it is below the higher, the higher one in the opposite case, and else the corner.
        low, high = np.minimum(left, up), np.maximum(left, up)
        middle = np.maximum(corner, low)
        np.minimum(middle, high, out=middle)
        np.subtract(middle, low, out=low)
        high -= middle
        np.subtract(here, middle, out=out)
        half = np.right_shift(low, 1, out=middle)
        to_low = high <= half
        half = np.right_shift(high, 1, out=middle)
        to_high = low <= half
        low *= to_low.view(np.uint8)
        high *= to_high.view(np.uint8)
        out += low
        out -= high
