"""Which values of an image become black and which white: `scale` of the image writers, on the host and on a device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown

__all__ = ["Scale", "black_and_span", "checked_scale", "finite_extremes", "precision_of", "remark_on_range", "scaled"]

Scale: TypeAlias = "Literal['unit', 'minmax'] | tuple[float, float]"

_CLEARLY = 0.1  # outside [0, 1], beyond what interpolation overshoots by
# Numbers that float32 does not have all of.
_WIDE = frozenset({"float64", "int32", "int64", "uint32", "uint64"})


def checked_scale(scale: Any) -> Scale:
    """A scale with its two values as a tuple of floats.

    Raises:
        ValueError: It is no scale, or black and white are one value in float32.
    """
    if isinstance(scale, str) and scale in ("unit", "minmax"):
        return "unit" if scale == "unit" else "minmax"
    if isinstance(scale, (tuple, list)) and len(scale) == 2:
        try:
            low, high = (float(one) for one in scale if not isinstance(one, (bool, str)))
        except (TypeError, ValueError):
            pass
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                span = float(np.float32(high) - np.float32(low))
            if math.isfinite(span) and span > 0:
                return low, high
    given = f"{scale!r:.60}" if isinstance(scale, (tuple, list)) else shown(scale)
    raise ValueError(
        "scale is 'unit' ([0, 1] is black to white), 'minmax' (the sample's minimum to its maximum), or two numbers "
        f"(low, high), low below high, not {given}"
    )


def precision_of(dtype: str, *, wide: bool) -> str:
    """The dtype that values are scaled in: double where float32 would lose some of them, or has too few for the pixels.

    Args:
        dtype: That of the values, without ``torch.``.
        wide: Whether pixels have sixteen bits.
    """
    return "float64" if wide or dtype in _WIDE else "float32"


def finite_extremes(pieces: Iterable[NDArray[Any]]) -> tuple[Any, Any]:
    """The least and greatest finite value in some arrays, so near that their difference is finite; 0 without any."""
    least, greatest = [], []
    for piece in pieces:
        low, high = piece.min(), piece.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = piece[np.isfinite(piece)]
            if not finite.size:
                continue
            low, high = finite.min(), finite.max()
        least.append(low)
        greatest.append(high)
    if not least:
        return 0, 0
    most = np.finfo(least[0].dtype).max / 2
    return max(min(least), -most), min(max(greatest), most)


def black_and_span(low: Any, high: Any, precision: str) -> tuple[Any, Any]:
    """The value that becomes black, and how much above it white is, as numpy's numbers of a precision.

    If all values are one, they become black.
    """
    number = np.dtype(precision).type
    black = number(low)
    return black, (number(high) - black) or number(1)


def scaled(values: Any, scale: Scale, highest: int, dims: tuple[int, ...], *, own: bool) -> Any:
    """Floats as pixel values, still as floats: ``((x - low) / (high - low)).clamp(0, 1) * highest``.

    Args:
        values: A float32 or float64 tensor, on any device. It must not be empty.
        scale: A checked one, and not ``"unit"``.
        highest: The greatest pixel value.
        dims: The dimensions of one sample, over which ``"minmax"`` looks for the extremes.
        own: Whether the tensor may be overwritten.
    """
    import torch

    if scale == "minmax":
        finite = values.isfinite()
        low = torch.where(finite, values, math.inf).amin(dims, keepdim=True)
        high = torch.where(finite, values, -math.inf).amax(dims, keepdim=True)
        has_none = low > high
        most = torch.finfo(values.dtype).max / 2
        low = torch.where(has_none, 0.0, low).clamp_(min=-most)
        high = torch.where(has_none, 0.0, high).clamp_(max=most)
    else:
        # Tensors, since a device divides by a plain number less exactly.
        low, high = (torch.full((), float(one), dtype=values.dtype, device=values.device) for one in scale)
    span = high - low
    span = torch.where(span == 0, 1.0, span)
    above = values.sub_(low) if own else values - low
    return above.div_(span).clamp_(0, 1).mul_(highest)


def remark_on_range(value: Any, writer: str) -> str | None:
    """What a person should know of floats that are clearly not in [0, 1] and are clamped to it; None if they are not.

    Args:
        value: One sample or several, as a tensor or an array.
        writer: The writer's name.
    """
    extremes = _extremes(value)
    if extremes is None or (extremes[0] >= -_CLEARLY and extremes[1] <= 1 + _CLEARLY):
        return None
    return (
        f"{writer} got floats from {extremes[0]:.4g} to {extremes[1]:.4g}, and [0, 1] becomes black to white: what is "
        "below or above is clamped. writer_options={'scale': 'minmax'} takes each sample's own minimum and maximum, "
        "{'scale': (low, high)} those, and {'scale': (0, 1)} says that clamping is meant"
    )


def _extremes(value: Any) -> tuple[float, float] | None:
    """The extremes of floats, infinities included; None if it holds none, or is no dense tensor or array."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f" or not value.size:
            return None
        with np.errstate(invalid="ignore"):
            low, high = value.min(), value.max()
            if np.isnan(low):
                if np.isnan(value).all():
                    return None
                low, high = np.nanmin(value), np.nanmax(value)
        return float(low), float(high)
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    if value.is_nested or value.layout is not torch.strided or value.is_meta or not value.numel():
        return None
    plain = value.detach()
    if plain.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        plain = plain.float()
    low, high = map(float, torch.stack(torch.aminmax(plain)).tolist())  # one transfer from a device
    if math.isnan(low):
        plain = plain[~plain.isnan()]
        if not plain.numel():
            return None
        low, high = map(float, torch.stack(torch.aminmax(plain)).tolist())
    return low, high
