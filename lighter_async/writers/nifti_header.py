"""The header of a NIfTI-1 file, and what is read of one.

Format: the NIfTI-1 data format, https://nifti.nimh.nih.gov/nifti-1 (``nifti1.h``): 348 bytes, four bytes that say that
no extension follows, and the voxels, x fastest.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DTYPES", "HEADER_BYTES", "MOST_DIMENSIONS", "Header", "header", "parse"]

HEADER_BYTES = 352
"""Where the voxels begin."""

MOST_DIMENSIONS = 7

DTYPES = {
    "uint8": 2,
    "int16": 4,
    "int32": 8,
    "float32": 16,
    "complex64": 32,
    "float64": 64,
    "int8": 256,
    "uint16": 512,
    "uint32": 768,
    "int64": 1024,
    "uint64": 1280,
    "complex128": 1792,
}
"""The format's codes, by numpy's names."""

_LONGEST = 32767  # voxels of a dimension
_SCANNER = 1  # the code of an affine to the scanner's coordinates, as MONAI and ITK write it
_FORM = struct.Struct("<i36x8h3f4h8f3fh2B4f2i80s24s2h6f12f16s4s4x")


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        dtype: Of the voxels.
        shape: The number of voxels along x, y, z and so on.
        affine: From indices to coordinates in millimetres: (4, 4), float64.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    affine: NDArray[np.float64]


def header(dtype: np.dtype[Any], shape: tuple[int, ...], affine: NDArray[np.float64]) -> bytes:
    """The bytes before the voxels.

    The affine is stored in full (sform), and as far as it is a rotation (qform).

    Args:
        dtype: One of `DTYPES`.
        shape: The number of voxels along x, y, z and so on; 1 to 7 dimensions.
        affine: From indices to coordinates: (4, 4).

    Raises:
        ValueError: A dimension is too long, or there are too many.
    """
    if not 1 <= len(shape) <= MOST_DIMENSIONS:
        raise ValueError(f"a NIfTI image has 1 to {MOST_DIMENSIONS} dimensions, not {len(shape)}: {shape}")
    if max(shape) > _LONGEST or min(shape) < 1:
        raise ValueError(f"a dimension of a NIfTI image has 1 to {_LONGEST} voxels, got {shape}")
    sizes, sign, quaternion, has_shears = _rotation(affine[:3, :3].tobytes())
    rest = MOST_DIMENSIONS - len(shape)
    return _FORM.pack(
        348,
        *(len(shape), *shape, *[1] * rest),
        *(0.0, 0.0, 0.0),
        *(0, DTYPES[dtype.name], 8 * dtype.itemsize, 0),
        *(sign, *sizes, 1.0, 1.0, 1.0, 1.0),
        *(float(HEADER_BYTES), 1.0, 0.0),
        0,
        *(0, 0),
        *(0.0, 0.0, 0.0, 0.0, 0, 0),
        *(b"", b""),
        *(0 if has_shears else _SCANNER, _SCANNER),
        *(*quaternion, *affine[:3, 3]),
        *affine[:3].ravel(),
        *(b"", b"n+1\0"),
    )


def parse(data: bytes | memoryview) -> Header:
    """What the beginning of a file says, which may be anybody's.

    Raises:
        ValueError: It is no NIfTI file as this package writes them.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"{len(data)} bytes are no NIfTI file")
    known = _FORM.unpack(bytes(data[:HEADER_BYTES]))
    size, count, sizes, code, offset, slope = known[0], known[1], known[2:9], known[13], known[24], known[25:27]
    if size != 348 or known[-1] != b"n+1\0" or offset != HEADER_BYTES or bytes(data[348:352]) != bytes(4):
        raise ValueError("it is no NIfTI-1 file of one piece, little-endian and without extensions")
    if slope not in ((1.0, 0.0), (0.0, 0.0)) and not any(map(math.isnan, slope)):
        raise ValueError(f"its voxels are scaled (slope {slope[0]:g}, intercept {slope[1]:g})")
    shape = sizes[: max(count, 0)]
    dtype = next((name for name, one in DTYPES.items() if one == code), None)
    if not 1 <= count <= MOST_DIMENSIONS or min(shape) < 1 or dtype is None:
        raise ValueError(f"its header is not valid: {count} dimensions {tuple(sizes)} of datatype {code}")
    affine = np.eye(4)
    affine[:3] = np.reshape(known[-14:-2], (3, 4))
    return Header(np.dtype(dtype), tuple(shape), affine)


@lru_cache(256)  # scans of one protocol have one
def _rotation(linear_bytes: bytes) -> tuple[list[float], float, list[float], bool]:
    """The voxel sizes, the sign of the third axis, the quaternion's b, c and d, and whether more than that is in it.

    The nearest rotation is that of the polar decomposition, and its quaternion the eigenvector of the largest
    eigenvalue (Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000).
    """
    linear = np.frombuffer(linear_bytes, np.float64).reshape(3, 3)
    sizes = np.sqrt((linear * linear).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = linear / sizes
    if not np.isfinite(axes).all():
        return sizes.tolist(), 1.0, [0.0, 0.0, 0.0], True
    sign = 1.0
    if not np.linalg.det(axes) > 0:
        sign = -1.0
        axes[:, -1] *= -1
    left, _, right = np.linalg.svd(axes)
    rotation = left @ right
    xx, yx, zx, xy, yy, zy, xz, yz, zz = rotation.flat
    matrix = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [yz - zy, zx - xz, xy - yx, xx + yy + zz],
        ]
    )
    values, vectors = np.linalg.eigh(matrix / 3.0)
    quaternion = vectors[[3, 0, 1, 2], np.argmax(values)]
    if quaternion[0] < 0:
        quaternion *= -1
    has_shears = not np.allclose(axes, rotation, atol=1e-4)
    return sizes.tolist(), sign, quaternion[1:].tolist(), has_shears
