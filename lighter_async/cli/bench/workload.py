"""The batches that the loop hands over, made to resemble predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["Kind", "Workload", "make_batches"]

Kind = Literal["device", "launch"]

_DIFFERENT = 4  # batches that take turns
_MOST_BYTES = 256 << 20  # of them together
_LEAST_PIXELS = 8  # a side; smaller tensors are not taken for images
_COARSEST, _NOISE = 128, 0.05
_WORDS = (
    "a",
    "cat",
    "on",
    "the",
    "mat",
    "beside",
    "two",
    "small",
    "dogs",
    "under",
    "trees",
    "looks",
    "away",
    "quietly",
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The work of a loop.

    Attributes:
        kind: What a step is: ``"device"`` waits without the CPU, ``"launch"`` makes small calls on it.
        step_seconds: How long a step takes without writing.
        shape: The shape of a sample. For a text, the product is the number of characters.
        dtype: The dtype of a sample, by PyTorch's name.
        batch_size: Samples of a step.
        format: The writer: a registered name, or ``module:name``.
    """

    kind: Kind
    step_seconds: float
    shape: tuple[int, ...]
    dtype: str
    batch_size: int
    format: str

    @property
    def is_text(self) -> bool:
        """Whether samples are texts; else they are tensors."""
        return self.format == "text"

    def names(self, step: int) -> list[str]:
        """The names of a step's samples."""
        return [f"{step:06}-{row:03}" for row in range(self.batch_size)]

    def __str__(self) -> str:
        what = f"texts of {math.prod(self.shape)} characters"
        if not self.is_text:
            what = f"samples of {' x '.join(map(str, self.shape))} {self.dtype}"
        steps = "waiting for a device" if self.kind == "device" else "of small torch calls"
        return f"{self.batch_size} {what} as {self.format!r} after each step of {self.step_seconds * 1e3:g} ms {steps}"


def make_batches(workload: Workload) -> Sequence[Any]:
    """Different batches to hand over in turn, the same ones in every process.

    Images are smooth, with a little noise: as 8-bit PNGs they take about as many bytes as photographs. Constants or
    pure noise would say nothing about a compressing format.

    Returns:
        Tensors of shape ``(batch_size, *shape)``, or lists of texts.
    """
    generator = torch.Generator().manual_seed(20)
    if workload.is_text:
        return [[_text(workload, generator) for _ in range(workload.batch_size)] for _ in range(_DIFFERENT)]
    dtype: torch.dtype = getattr(torch, workload.dtype)
    shape = (workload.batch_size, *workload.shape)
    count = max(1, min(_DIFFERENT, _MOST_BYTES // max(1, math.prod(shape) * dtype.itemsize)))
    return [_converted(_smooth(shape, generator), dtype) for _ in range(count)]


def _smooth(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Values in [0, 1]. In images each octave of detail is half as strong as the one above it."""
    if len(shape) < 3 or min(shape[-2:]) < _LEAST_PIXELS:
        return torch.rand(shape, generator=generator)
    height, width = shape[-2:]
    planes = math.prod(shape[:-2])
    values = _NOISE * torch.randn(1, planes, height, width, generator=generator)
    cell = _COARSEST
    while cell > 1:
        coarse = torch.randn(1, planes, -(-height // cell) + 1, -(-width // cell) + 1, generator=generator)
        values += cell / _COARSEST * interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
        cell //= 2
    return (0.5 + values / 4).clamp_(0, 1).reshape(shape)


def _converted(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return values.to(dtype)
    if dtype is torch.bool:
        return values > 0.5
    return (values * (255 if dtype is torch.uint8 else 100)).to(dtype)


def _text(workload: Workload, generator: torch.Generator) -> str:
    length = math.prod(workload.shape)
    chosen = torch.randint(len(_WORDS), (length // 2 + 1,), generator=generator)
    return " ".join(_WORDS[index] for index in chosen)[:length]
