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

    Args:
        voxels: As in the file.
        shape: The value's, where it is known.
        channel_dim: Its axis of the channels. With a shape that does not go with it, it is the one that does.

    Raises:
        ValueError: They are not of that shape, or the shape goes with channels on several axes.
    """
    if shape is None:
        rank, last = voxels.ndim, voxels.shape
        if channel_dim is not None:
            last = (*last, *[1] * (4 - voxels.ndim))
    else:
        channel_dim = _channels_of(voxels.shape, shape, channel_dim)
        rank, last = len(shape), shape
        if channel_dim is not None:
            last = np.moveaxis(_alike(shape), channel_dim, -1).shape
    axis = 0 if channel_dim is None or channel_dim % rank else 1  # of x, in the value
    image = voxels.T.reshape(last[::-1]).T
    image = image if channel_dim is None else np.moveaxis(image, -1, channel_dim)
    made = np.empty(image.shape, image.dtype.newbyteorder("="))
    copy_in_slices(image, made, axis)
    return made


def _channels_of(file: tuple[int, ...], shape: tuple[int, ...], channel_dim: int | None) -> int | None:
    """The axis of the channels in a value of a shape, whose voxels have another shape in the file.

    Args:
        file: The shape in the file.
        shape: The value's.
        channel_dim: The axis that it is if that may be.

    Raises:
        ValueError: No axis may be it, or several, which would give different orders.
    """
    if _is_in_file(file, shape, channel_dim):
        return channel_dim
    orders: dict[tuple[int, ...], int | None] = {}  # of the axes that are longer than 1, in the file
    for axis in (None, *range(len(shape))):
        if _is_in_file(file, shape, axis):
            order = [one for one in range(len(shape)) if one != axis] + ([] if axis is None else [axis])
            orders.setdefault(tuple(one for one in order if shape[one] > 1), axis)
    if not orders:
        raise ValueError(f"a NIfTI file of {file} is no image of shape {shape}")
    if len(orders) > 1:
        raise ValueError(
            f"a NIfTI file of {file} may be an image of shape {shape} with its channels on one axis or on another; "
            "decode=write_nifti.with_options(channel_dim=AXIS) says on which"
        )
    return next(iter(orders.values()))


def _is_in_file(file: tuple[int, ...], shape: tuple[int, ...], channel_dim: int | None) -> bool:
    """Whether an image of a shape has such a shape in a file."""
    try:
        check_rank(shape, channel_dim)
    except ValueError:
        return False
    return in_file(_alike(shape), channel_dim).shape == file


def _alike(shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of a shape, without memory."""
    return np.broadcast_to(np.uint8(0), shape)


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
