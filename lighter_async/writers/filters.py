"""Filter the rows of a PNG with numpy: each byte becomes its difference to a prediction from its neighbours.

Format: Portable Network Graphics (PNG) Specification, third edition, section 9. Planes are filtered, one for each byte
of a pixel, and are interleaved into rows afterwards: so a byte's neighbours are adjacent in its plane, and a few long
passes over a strip of all planes run at memory speed.
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
"""By name, the filter types of the specification that rows may have."""

# A strip of this size and its results stay in a core's cache, and few calls of numpy are needed.
_STRIP_BYTES = 192 * 1024
# A strip's filter is guessed from eight of its rows, or from every sixteenth row if that is more.
_GUESSED, _STEP = 8, 16
# By how much a filter must be better in smooth rows, on average over the bytes: predictions from the byte before break
# up repeated strings, which deflate would have found.
_HANDICAPS = {_NONE: 0, _SUB: 0.6, _UP: 0, _AVERAGE: 0.6, _PAETH: 0.6}

SMOOTH = 4.0
"""Rows are smooth if their filtered bytes are smaller on average: then repeated strings make a file small."""


def filter_rows(planes: NDArray[np.uint8], kinds: tuple[int, ...]) -> tuple[NDArray[np.uint8], float]:
    """The filtered rows of an image, each after the type of its filter, and the mean size of their bytes.

    Args:
        planes: One plane of H x W bytes for each byte of a pixel, in order.
        kinds: The filter types to choose from. Each strip of rows takes the one with the smallest bytes, in absolute
            value as signed numbers.

    Returns:
        H rows of bytes, and the estimated mean of their absolute values.
    """
    count, height, width = planes.shape
    rows = np.empty((height, 1 + count * width), np.uint8)
    pixels = rows[:, 1:].reshape(height, width, count)
    strips = -(-planes.size // _STRIP_BYTES)
    strip = -(-height // strips)
    # A row of zeros above and a column of zeros on the left are the neighbours of the first bytes: so in flat memory a
    # byte's neighbours are always at the same distances.
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
    """The best filter type, and the mean size of its bytes, judged by some rows and those above them."""
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
    """Apply one of the specification's filters: the difference to a prediction, modulo 256.

    Everything is done in eight bits, of which one instruction handles 16 to 64.
    """
    if kind == _NONE:
        out[...] = here
    elif kind == _SUB:
        np.subtract(here, left, out=out)
    elif kind == _UP:
        np.subtract(here, up, out=out)
    elif kind == _AVERAGE:
        # The mean rounded down: the common bits, and half of the differing ones.
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
