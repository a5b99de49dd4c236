"""The order of a NIfTI file's voxels: which axis comes where, and the copy between two orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.writers.nifti_header import MOST_DIMENSIONS

__all__ = ["as_written", "check_rank", "copy_in_slices", "in_file"]

_SLICES = 16  # along x, that are copied at once: they stay in a core's cache


def check_rank(shape: Sequence[int], channel_dim: int | None) -> None:
    """
    Raises:
        ValueError: There are too few or too many dimensions, or no voxels.
    """
    least = 2 if channel_dim is None else 3
    if not least <= len(shape) <= MOST_DIMENSIONS:
        wanted = "(X, Y[, Z])" if channel_dim is None else "(C, X, Y[, Z])"
        no_channel = "; tensor.unsqueeze(0) adds the channel, or channel_dim=None says that there is none"
        raise ValueError(
            f"write_nifti expects {wanted}, up to {MOST_DIMENSIONS} dimensions, got {len(shape)} of shape "
            f"{tuple(shape)}" + (no_channel if len(shape) == 2 else "")
        )
    if channel_dim is not None and not -len(shape) <= channel_dim < len(shape):
        raise ValueError(f"there is no channel_dim {channel_dim} in shape {tuple(shape)}")
    if 0 in shape:
        raise ValueError(f"a NIfTI image needs at least one voxel, got shape {tuple(shape)}")


def in_file(voxels: NDArray[Any], channel_dim: int | None) -> NDArray[Any]:
    """A view with the axes as in the file: channels last, behind three others, and none of length 1 at the end."""
    if channel_dim is not None:
        voxels = np.moveaxis(voxels, channel_dim, -1)
        while voxels.ndim < 4:
            voxels = voxels[..., None, :]
    while voxels.ndim > 1 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels


def as_written(voxels: NDArray[Any], shape: tuple[int, ...] | None, channel_dim: int | None) -> NDArray[Any]:
    """The voxels of a file in the order of the value, in memory of their own.

    Raises:
        ValueError: They are not of that shape.
    """
    rank = voxels.ndim if shape is None else len(shape)
    axis = 0 if channel_dim is None or channel_dim % rank else 1  # of x, in the value
    if shape is None:
        last = voxels.shape if channel_dim is None else (*voxels.shape, *[1] * (4 - voxels.ndim))
    else:
        check_rank(shape, channel_dim)
        alike = np.broadcast_to(np.uint8(0), shape)  # of the shape, without memory
        if in_file(alike, channel_dim).shape != voxels.shape:
            raise ValueError(f"a NIfTI file of {voxels.shape} is no image of shape {shape}")
        last = shape if channel_dim is None else np.moveaxis(alike, channel_dim, -1).shape
    image = voxels.T.reshape(last[::-1]).T
    image = image if channel_dim is None else np.moveaxis(image, -1, channel_dim)
    made = np.empty(image.shape, image.dtype.newbyteorder("="))
    copy_in_slices(image, made, axis)
    return made


def copy_in_slices(source: NDArray[Any], out: NDArray[Any], axis: int) -> None:
    """Copy between two orders of axes, some slices at a time, so that both sides' lines stay in a core's cache.

    Args:
        source: Where x varies slowest, or fastest.
        out: Where it is the other way round.
        axis: That of x.
    """
    whole = (slice(None),) * axis
    for start in range(0, source.shape[axis], _SLICES):
        some = (*whole, slice(start, start + _SLICES))
        out[some] = source[some]
