"""Numbers as text: of each the shortest that its dtype reads back, as Python and numpy write it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["NOT_FINITE", "texts_of"]

NOT_FINITE: Final = frozenset({"nan", "inf", "-inf"})
"""Texts of numbers that JSON has not."""

_encode = msgspec.json.Encoder().encode
# Between these, numpy and JSON's encoder write the same digits without an exponent, in any version.
_BOUNDS: Final = {"f8": (1.1e-4, 9.9e14), "f4": (1.1e-4, 9.9e5)}
_DIGITS: Final = (6, 7, 8, 9)  # six are always kept by float32, and nine always tell it from others
_TENS = 10.0 ** np.arange(15)
_NEAR = 1e-4


def texts_of(numbers: NDArray[Any]) -> list[str]:
    """The shortest text of each number that its dtype reads back.

    Args:
        numbers: 1-d.
    """
    if numbers.dtype.kind != "f":
        return _texts(numbers)
    values, is_usual = numbers.astype(np.float64), np.zeros(len(numbers), np.bool_)
    size = np.abs(values)
    least, most = _BOUNDS[numbers.dtype.str[1:]]
    is_usual = (size == 0) | ((size >= least) & (size <= most))
    if numbers.dtype.itemsize == 4:
        values, is_usual = _decimal(values, numbers, is_usual)
    values[~is_usual] = 0.0
    texts = _texts(values)
    others = np.flatnonzero(~is_usual)
    for place, text in zip(others.tolist(), numbers[others].astype(np.str_).tolist(), strict=True):
        texts[place] = text
    return texts


def _texts(numbers: NDArray[Any]) -> list[str]:
    return str(_encode(numbers.tolist()), "utf-8")[1:-1].split(",") if len(numbers) else []


def _decimal(
    values: NDArray[np.float64], numbers: NDArray[np.float32], is_usual: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The shortest decimal number that single precision reads back as each number, in double precision.

    That is the number rounded to as few digits as do: from `_BOUNDS` on, powers of ten and products with them are
    exact enough that only a number that lies just between two decimal ones may be rounded to the wrong one.

    Args:
        values: The numbers in double precision.
        numbers: The same in single precision.
        is_usual: Which lie in `_BOUNDS`, or are zero.

    Returns:
        The decimal numbers, and of which they are known.
    """
    found, is_known = values.copy(), is_usual.copy()
    places = np.flatnonzero(is_usual & (values != 0))
    some, single = values[places], numbers[places]
    exponents = np.floor(np.log10(np.abs(some))).astype(np.int64)
    for digits in _DIGITS:
        scale = _TENS[digits - 1 - exponents]
        scaled = some * scale
        rounded = np.rint(scaled)
        decimal = rounded / scale
        fits = decimal.astype(np.float32) == single
        found[places[fits]] = decimal[fits]
        is_near = np.abs(np.abs(scaled - rounded) - 0.5) < _NEAR
        is_known[places[fits & is_near]] = False
        rest = ~fits
        places, some, single, exponents = places[rest], some[rest], single[rest], exponents[rest]
        if not len(places):
            break
    is_known[places] = False
    return found, is_known
