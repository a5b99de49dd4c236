"""The input: photographs that scikit-image ships inside its package, cut into overlapping patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from skimage import data
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["PATCH_PIXELS", "Patch", "Patches", "load_photographs"]

PATCH_PIXELS = 96
_STRIDE_PIXELS = 48

# All of these come with the package; scikit-image would have to download others.
_PHOTOGRAPHS = [
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "clock",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
    "stereo_motorcycle",  # the left one of two, and a map of the distances
    "text",
]


class Patch(TypedDict):
    """One sample.

    Attributes:
        image: Float tensor (3, 96, 96), RGB in [0, 1].
        name: The photograph and the pixel of the patch's upper left corner, such as ``"coffee/y0048_x0096"``.
    """

    image: Tensor
    name: str


def load_photographs() -> dict[str, Tensor]:
    """The photographs by name: uint8 tensors (3, H, W), RGB, the grey ones with three equal channels."""
    photographs = {}
    for name in _PHOTOGRAPHS:
        loaded = getattr(data, name)()
        pixels = torch.tensor(loaded[0] if isinstance(loaded, tuple) else loaded)
        photographs[name] = pixels.expand(3, *pixels.shape) if pixels.ndim == 2 else pixels.movedim(-1, 0).contiguous()
    return photographs


class Patches(Dataset[Patch]):
    """Overlapping patches that cover each photograph.

    Args:
        photographs: uint8 tensors (3, H, W) by name.
        limit: The most patches to take, spread evenly over all. None takes all.
    """

    def __init__(self, photographs: dict[str, Tensor], limit: int | None = None) -> None:
        self._photographs = photographs
        places = [
            (name, y, x)
            for name, photograph in photographs.items()
            for y in _starts(photograph.shape[1])
            for x in _starts(photograph.shape[2])
        ]
        count = len(places) if limit is None else min(limit, len(places))
        self._places: Sequence[tuple[str, int, int]] = [places[index * len(places) // count] for index in range(count)]

    def __len__(self) -> int:
        return len(self._places)

    def some(self, limit: int) -> Patches:
        """Fewer patches of the same photographs, spread evenly over all."""
        return Patches(self._photographs, limit)

    def __getitem__(self, index: int) -> Patch:
        photograph, y, x = self._places[index]
        pixels = self._photographs[photograph][:, y : y + PATCH_PIXELS, x : x + PATCH_PIXELS]
        return {"image": pixels.float() / 255, "name": self.name(index)}

    def name(self, index: int) -> str:
        """The name of one patch."""
        photograph, y, x = self._places[index]
        return f"{photograph}/y{y:04}_x{x:04}"

    def names(self) -> list[str]:
        """The names of all patches, in order."""
        return [self.name(index) for index in range(len(self))]


def _starts(pixels: int) -> list[int]:
    """The starts of patches along an axis; the last patch ends at the photograph's edge."""
    last = pixels - PATCH_PIXELS
    return [*range(0, last, _STRIDE_PIXELS), last]
