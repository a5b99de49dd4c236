"""The model: edges and textures by convolution, with weights that are formulas. Nothing is trained or random."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from lighter_async.cli.demo.lightning import lightning
from lighter_async.cli.demo.photographs import Patch

__all__ = ["ORIENTATIONS", "SCALES", "EdgesAndTextures", "Prediction"]

ORIENTATIONS = 8
SCALES = 2

_EDGE_GAIN = 4.0  # an edge as steep as a quarter of the range per pixel is white
_LUMA = (0.299, 0.587, 0.114)  # of R, G and B: Recommendation ITU-R BT.601
_CELL_PIXELS = 6


class Prediction(TypedDict):
    """What the model gives for a batch of B patches.

    Attributes:
        edges: Float tensor (B, 3, 96, 96) in [0, 1]: how steep each colour channel is at each pixel.
        textures: Float tensor (B, 16, 16, 16): in each cell of 6 x 6 pixels, the energy at eight orientations on a fine
            scale, and at the same ones on a coarse scale.
        name: The patches' names.
    """

    edges: Tensor
    textures: Tensor
    name: list[str]


class EdgesAndTextures(lightning.LightningModule):  # type: ignore[misc]
    """Finds edges in colour and textures in grey. All convolutions reflect the patch at its borders.

    - Edges: smoothing by the 5 x 5 binomial filter, the outer product of (1, 4, 6, 4, 1) / 16; then the length of the
      Sobel gradient, ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)) / 8 and its transpose, times 4, clamped to [0, 1].
    - Textures: the energy of Gabor filters, even and odd, at eight orientations, averaged over cells of 6 x 6 pixels.
      The fine ones have 11 x 11 pixels, wavelength 6 and standard deviation 2.5 pixels; the coarse ones 23 x 23, 12 and
      5. Energy of a quadrature pair: Adelson and Bergen, *Spatiotemporal energy models for the perception of motion*,
      1985.
    """

    smooth: Tensor
    sobel: Tensor
    luma: Tensor
    fine: Tensor
    coarse: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("smooth", torch.outer(row, row).expand(3, 1, 5, 5).contiguous())
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        # Per colour channel one filter across and one down.
        self.register_buffer("sobel", torch.stack([across, across.T]).unsqueeze(1).repeat(3, 1, 1, 1))
        self.register_buffer("luma", torch.tensor(_LUMA).view(1, 3, 1, 1))
        self.register_buffer("fine", _gabor_filters(pixels=11, wavelength=6.0, sigma=2.5))
        self.register_buffer("coarse", _gabor_filters(pixels=23, wavelength=12.0, sigma=5.0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Edges and textures of images (B, 3, 96, 96)."""
        smooth = conv2d(_reflect(image, 2), self.smooth, groups=3)
        gradient = conv2d(_reflect(smooth, 1), self.sobel, groups=3)
        across, down = gradient[:, 0::2], gradient[:, 1::2]
        edges = (_EDGE_GAIN * torch.hypot(across, down)).clamp(0, 1)
        grey = conv2d(image, self.luma)
        textures = torch.cat([_energy(grey, self.fine), _energy(grey, self.coarse)], dim=1)
        return edges, avg_pool2d(textures, _CELL_PIXELS)

    def predict_step(self, batch: Patch, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        """The prediction for one batch; `batch["name"]` is a list here."""
        edges, textures = self(batch["image"])
        return {"edges": edges, "textures": textures, "name": list(batch["name"])}


def _energy(grey: Tensor, filters: Tensor) -> Tensor:
    """The response of quadrature pairs of filters at each pixel: (B, 8, H, W)."""
    even, odd = conv2d(_reflect(grey, filters.shape[-1] // 2), filters).chunk(2, dim=1)
    return torch.hypot(even, odd)


def _gabor_filters(*, pixels: int, wavelength: float, sigma: float) -> Tensor:
    """The even filters of all orientations, then the odd ones: (16, 1, pixels, pixels)."""
    axis = torch.arange(pixels, dtype=torch.float32) - pixels // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    window /= window.sum()
    even, odd = [], []
    for number in range(ORIENTATIONS):
        angle = math.pi * number / ORIENTATIONS
        phase = 2 * math.pi / wavelength * (math.cos(angle) * x + math.sin(angle) * y)
        cosine = window * torch.cos(phase)
        even.append(cosine - window * cosine.sum())  # so that a flat patch has no energy
        odd.append(window * torch.sin(phase))
    return torch.stack(even + odd).unsqueeze(1)


def _reflect(image: Tensor, pixels: int) -> Tensor:
    return pad(image, (pixels, pixels, pixels, pixels), mode="reflect")
