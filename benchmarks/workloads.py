"""What is written: batches that look like predictions, made of photographs where they are images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

__all__ = ["PHOTOGRAPHS", "WORKLOADS", "Workload", "cutting"]

# All of them are in scikit-image's wheel.
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")

_DIFFERENT = 4  # batches that take turns


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One loop's output.

    Attributes:
        title: What a batch is.
        format: The registered writer: ``"tensor"`` or ``"image_2d"``.
        make: Makes different batches, the same ones in every process.
        step_seconds: A step's length for the loops: such that a disk keeps up, too, with at most 340 MB and 3,200
            files a second. The workers use a tenth to two thirds of a core then.
    """

    title: str
    format: str
    make: Callable[[], list[Tensor]]
    step_seconds: float

    @property
    def is_image(self) -> bool:
        return self.format == "image_2d"


@cache
def photograph(name: str) -> Tensor:
    """One of the photographs: uint8, CHW."""
    from skimage import data

    return torch.from_numpy(np.ascontiguousarray(getattr(data, name)()[..., :3])).movedim(-1, 0).contiguous()


def cutting(name: str, side: int, place: float = 0.5) -> Tensor:
    """A square of a photograph, which is mirrored where it is smaller: floats in [0, 1], (3, side, side).

    Args:
        name: The photograph.
        side: In pixels.
        place: From 0 to 1, from the upper left to the lower right.
    """
    pixels = photograph(name).numpy()
    short = [max(0, side - length) for length in pixels.shape[1:]]
    pixels = np.pad(pixels, [(0, 0), (0, short[0]), (0, short[1])], mode="reflect")
    y, x = (round(place * (length - side)) for length in pixels.shape[1:])
    return torch.from_numpy(pixels[:, y : y + side, x : x + side].astype(np.float32) / 255)


def images(count: int, side: int) -> list[Tensor]:
    """Batches of squares of photographs: floats in [0, 1], (count, 3, side, side)."""
    places = np.random.default_rng(20).random(_DIFFERENT * count)
    squares = [cutting(PHOTOGRAPHS[row % len(PHOTOGRAPHS)], side, place) for row, place in enumerate(places)]
    return list(torch.stack(squares).split(count))


def numbers(*shape: int) -> list[Tensor]:
    """Batches of random float32."""
    generator = torch.Generator().manual_seed(20)
    return [torch.randn(shape, generator=generator) for _ in range(_DIFFERENT)]


WORKLOADS = {
    "tensors": Workload(
        title="8 float32 tensors of 600 kB as .pt",
        format="tensor",
        make=partial(numbers, 8, 150_000),
        step_seconds=0.030,
    ),
    "embeddings": Workload(
        title="64 embeddings of 384 float32 (1.5 kB) as .pt",
        format="tensor",
        make=partial(numbers, 64, 384),
        step_seconds=0.020,
    ),
    "png224": Workload(
        title="16 RGB photographs of 224 x 224 as PNG",
        format="image_2d",
        make=partial(images, 16, 224),
        step_seconds=0.050,
    ),
    "png512": Workload(
        title="8 RGB photographs of 512 x 512 as PNG",
        format="image_2d",
        make=partial(images, 8, 512),
        step_seconds=0.100,
    ),
    "volume": Workload(
        title="one float32 volume of 33 MB as .pt",
        format="tensor",
        make=partial(numbers, 1, 1, 128, 256, 256),
        step_seconds=0.100,
    ),
}
