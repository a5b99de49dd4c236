"""Volumes as NIfTI-1 files, ``.nii.gz``: what a value means as voxels, and where they lie in space.

`nifti_header.py` makes the header and `nifti_axes.py` the order of the voxels; ISA-L and libdeflate compress, as for
PNG. MONAI's tensors are known by their attributes ``affine`` and ``meta``, so MONAI is never imported.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from lighter_async.errors import describe, shown
from lighter_async.plain_memory import Block
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import array_of, check_not_masked, is_tensor, without_class
from lighter_async.writers.nifti_axes import as_written, check_rank, copy_in_slices, in_file
from lighter_async.writers.nifti_header import DTYPES, HEADER_BYTES, MOST_DIMENSIONS, header, parse

__all__ = ["decode_nifti", "encode_nifti", "write_nifti"]

_WHAT = "a NIfTI image"
_IMAGE, _AFFINE, _ORDER = "image", "affine", "order"
_GZIP = 31  # zlib's word for gzip's format
_MOST_DEFLATED = 1032  # bytes that deflate packs into one, at most
_MOST_MILLIMETRES = 1e30  # of an affine's numbers, which are squared and stored as float32
_NOISE = 1e-6  # what an inverse leaves of a 0

LEVELS = range(13)
"""From the fastest to the smallest: 0 to 3 are ISA-L's levels, from 4 on they are libdeflate's."""


def encode_nifti(
    value: Any,
    *,
    affine: Any = None,
    channel_dim: int | None = 0,
    compress_level: int = 1,
    suffix: str = ".nii.gz",
) -> list[memoryview | bytes]:
    """A NIfTI-1 file of a volume or an image, in the layout of MONAI's ``SaveImage(resample=False)``.

    The first spatial axis is x, which varies fastest in the file, as nibabel has it. Channels come last: (C, X, Y, Z)
    becomes (X, Y, Z, C), and (C, X, Y) becomes (X, Y, 1, C). Axes of length 1 at the end are left out, so that one
    channel becomes (X, Y, Z).

    Args:
        value: A dense tensor or array (C, X, Y), (C, X, Y, Z) or of more dimensions, up to 7; a MONAI ``MetaTensor``,
            whose affine is stored; or a dict ``{"image": ..., "affine": ...}`` of them. Voxels keep their dtype, but
            bool becomes uint8, and float16 and bfloat16 become float32.
        affine: From indices to coordinates in millimetres (right, anterior, superior), for values that have none:
            (4, 4), or smaller for fewer dimensions. By default the identity.
        channel_dim: The axis of the channels; None for values without one.
        compress_level: 0 to 12: 0 to 3 are ISA-L's levels, from 4 on libdeflate's.
        suffix: ``.nii`` at the end leaves the file uncompressed.

    Raises:
        TypeError: The value is none of these, or NIfTI has no such dtype.
        ValueError: It has too few or too many dimensions, or one that is too long or of length 0; or the affine is no
            matrix of finite numbers, or its last row is not (0, 0, 0, 1).
    """
    image, own_affine, is_turned = _parts_of(value)
    matrix = _matrix(affine if own_affine is None else own_affine)
    voxels = _voxels(image)
    if is_turned:
        voxels = voxels.T
    check_rank(voxels.shape, channel_dim)
    voxels = in_file(voxels, channel_dim)
    file = np.empty(HEADER_BYTES + voxels.nbytes, np.uint8)
    file[:HEADER_BYTES] = np.frombuffer(header(voxels.dtype, voxels.shape, matrix), np.uint8)
    turned = file[HEADER_BYTES:].view(voxels.dtype.newbyteorder("<")).reshape(voxels.shape[::-1])
    copy_in_slices(voxels, turned.T, 0)
    return [file.data if not _is_compressed(suffix) else _compressed(file, compress_level)]


def decode_nifti(
    data: bytes | memoryview, *, shape: tuple[int, ...] | None = None, channel_dim: int | None = 0
) -> dict[str, NDArray[Any]]:
    """The voxels and the affine of a file that `encode_nifti` has written.

    Args:
        data: The file's content.
        shape: The value's shape, where it is known: the file does not tell whether an axis of length 1 was left out.
        channel_dim: As it was written. A shape that does not go with it tells the axis.

    Returns:
        A dict with ``"image"``, of the value's shape if that is known, else (C, X, Y, Z) (with ``channel_dim=None``
        (X, Y, Z)), and ``"affine"``, (4, 4), float64. Written again, it gives the same voxels.

    Raises:
        ValueError: It is no such file, is damaged, or claims more voxels than it can hold; or the shape does not fit.
    """
    is_compressed = bytes(data[:2]) == b"\x1f\x8b"
    start = isal_zlib.decompressobj(_GZIP).decompress(data, HEADER_BYTES) if is_compressed else data
    known = parse(start)
    nbytes = HEADER_BYTES + known.dtype.itemsize * math.prod(known.shape)
    if nbytes > (_MOST_DEFLATED * len(data) if is_compressed else len(data)):
        raise ValueError(f"a NIfTI file of {len(data)} bytes does not hold {known.dtype.name} {known.shape}")
    plain: Any = data
    if is_compressed:
        plain = isal_zlib.decompressobj(_GZIP).decompress(data, nbytes + 1)
    if len(plain) != nbytes:
        raise ValueError(f"it holds more or fewer voxels than its {known.dtype.name} {known.shape}")
    voxels = np.frombuffer(plain, known.dtype.newbyteorder("<"), offset=HEADER_BYTES).reshape(known.shape[::-1]).T
    return {_IMAGE: as_written(voxels, shape, channel_dim), _AFFINE: known.affine}


def _parts_of(value: Any) -> tuple[Any, Any, bool]:
    """The voxels, the affine or None, and whether the axes are in the file's order."""
    is_turned = False
    affine = None
    if isinstance(value, Mapping):
        strange = [key for key in value if key not in (_IMAGE, _AFFINE, _ORDER)]
        if strange or _IMAGE not in value:
            raise TypeError(
                f"a dict for a NIfTI image has the keys 'image' and 'affine', not {shown(list(value))}; outputs of "
                "several kinds each get a writer of their own, as in {'mask': 'nifti', 'logits': 'tensor'}"
            )
        affine, is_turned, value = value.get(_AFFINE), value.get(_ORDER) == "F", value[_IMAGE]
    if affine is None and _is_meta_tensor(value):
        affine = _affine_of(value)
    return value, affine, is_turned


def _is_meta_tensor(value: Any) -> bool:
    """Whether it is a MONAI ``MetaTensor``, or alike."""
    return is_tensor(value) and hasattr(value, "affine") and hasattr(value, "meta")


def _affine_of(value: Any, row: int | None = None) -> Any:
    """The affine of a `MetaTensor`, or of a row of a batch, to the coordinates that NIfTI has.

    Some of MONAI's readers leave it in coordinates of left and posterior, and note that in ``meta["space"]``.
    """
    affine, space = value.affine, value.meta.get("space") if isinstance(value.meta, Mapping) else None
    if row is not None and getattr(affine, "ndim", 2) == 3 and len(affine) == len(value):
        affine = affine[row]
    if isinstance(space, (list, tuple)) and len(space) == len(value):
        space = space[row or 0]
    if space != "LPS":
        return affine
    affine = affine.clone() if is_tensor(affine) else np.array(affine)
    affine[..., : min(2, affine.shape[-1] - 1), :] *= -1
    return affine


def _prepare(value: Any, *, is_batch: bool, **options: Any) -> Any:
    """Plain voxels and an affine for each `MetaTensor`, so that only tensors and arrays travel.

    What lies on a device is turned to the file's order there, by the copy to the host, which is many times as fast as
    on a core.
    """
    if isinstance(value, Mapping):
        if type(value) is not dict or not _is_meta_tensor(value.get(_IMAGE)):
            return without_class(value)
        affine = value.get(_AFFINE)
        return {**value, **_on_its_way(value[_IMAGE], _affine_of(value[_IMAGE]) if affine is None else affine)}
    if not is_tensor(value):
        return without_class(value, is_batch=is_batch)
    if not _is_meta_tensor(value):
        plain = without_class(value)
        if plain.device.type == "cpu" or not _is_dense(plain) or plain.ndim < 2:
            return plain
        return [_on_its_way(row, None) for row in plain] if is_batch else _on_its_way(plain, None)
    if not is_batch:
        return _on_its_way(value, _affine_of(value))
    return [_on_its_way(row, _affine_of(value, index)) for index, row in enumerate(without_class(value))]


def _on_its_way(image: Any, affine: Any) -> dict[str, Any]:
    image = without_class(image)
    if image.device.type == "cpu" or not _is_dense(image):
        return {_IMAGE: image, _AFFINE: affine}
    return {_IMAGE: image.permute(*range(image.ndim - 1, -1, -1)), _AFFINE: affine, _ORDER: "F"}


def _kind(parts: Mapping[str, Any]) -> tuple[str, tuple[int, ...]] | None:
    """The dtype and the shape of a dict's image, with its axes in the value's order."""
    found = parts.get(_IMAGE)
    if not isinstance(found, tuple):
        return None
    dtype, shape = found
    return dtype, tuple(reversed(shape)) if parts.get(_ORDER) == "F" else shape


def _is_dense(tensor: Any) -> bool:
    torch = sys.modules["torch"]
    return tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized


def _voxels(image: Any) -> NDArray[Any]:
    """
    Raises:
        TypeError: It is no tensor or array, or of a dtype that NIfTI does not have.
    """
    array = array_of(image, _WHAT, widen=True, in_c_order=False)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)  # not a view: True may be any byte but 0
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"a NIfTI image has no {array.dtype}; it has {', '.join(DTYPES)}")
    return array


def _matrix(affine: Any) -> NDArray[np.float64]:
    """
    Raises:
        ValueError: It is no affine, or one that the file cannot hold.
    """
    matrix = np.eye(4)
    if affine is None:
        return matrix
    try:
        if is_tensor(affine) or type(affine) is Block:
            numbers = array_of(affine, "an affine")
        else:
            check_not_masked(affine)
            numbers = np.asarray(affine)
        if numbers.dtype.kind == "c":
            raise TypeError("its numbers are complex")
        given = numbers.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"an affine is a matrix of numbers, not {shown(affine)} ({describe(error)})") from error
    if given.ndim != 2 or given.shape[0] != given.shape[1] or len(given) < 2 or not np.isfinite(given).all():
        raise ValueError(
            f"an affine is a matrix of (4, 4) finite numbers, not one of shape {given.shape}"
            + ("; a batch has one for each sample" if given.ndim == 3 else f": {shown(given.tolist())}")
        )
    size = min(len(given) - 1, 3)
    matrix[:size, :size] = given[:size, :size]
    matrix[:size, 3] = given[:size, -1]
    if given[-1].tolist() != [0.0, 0.0, 0.0, 1.0]:
        _check_complete(given, size)
    if np.abs(matrix).max() > _MOST_MILLIMETRES:
        raise ValueError(f"an affine of a NIfTI image has numbers up to {_MOST_MILLIMETRES:g}, got {given.tolist()}")
    return matrix


def _check_complete(given: NDArray[np.float64], size: int) -> None:
    """Check that what the file does not hold of an affine says nothing: the last row, and those of a fourth axis.

    Raises:
        ValueError: It says something.
    """
    rest = given.copy()
    rest[:size, :size] = np.eye(size)
    rest[:size, -1] = 0
    if np.abs(rest - np.eye(len(given))).max() <= _NOISE:
        return
    if np.abs(given[-1, :-1]).max() > _NOISE and np.abs(given[:-1, -1]).max() <= _NOISE:
        hint = "; it is the transpose of one, so hand over affine.T"
    elif size < len(given) - 1:
        hint = "; of more than three axes it holds nothing, so hand over the (4, 4) of the first three"
    else:
        hint = "; affine / affine[-1, -1] is one if its last row is (0, 0, 0, w)"
    raise ValueError(
        f"an affine has the last row (0, 0, 0, 1), and a NIfTI image holds its other rows alone, got {given.tolist()}"
        + hint
    )


def _is_compressed(suffix: str) -> bool:
    return suffix.endswith(".gz")


def _compressed(file: NDArray[np.uint8], level: int) -> bytes | memoryview:
    if level < 4:
        packed: bytes = isal_zlib.compress(file, level, _GZIP)
        return packed
    import deflate

    return memoryview(deflate.gzip_compress(file, level))


def _check(
    *, affine: Any = None, channel_dim: int | None = 0, compress_level: int = 1, suffix: str = ".nii.gz"
) -> None:
    """
    Raises:
        ValueError: An option is out of range.
    """
    _matrix(affine)
    if channel_dim is not None and (type(channel_dim) is not int or abs(channel_dim) > MOST_DIMENSIONS):
        raise ValueError(f"channel_dim is the number of an axis, or None, not {shown(channel_dim)}")
    if type(compress_level) is not int or compress_level not in LEVELS:
        raise ValueError(f"compress_level is {LEVELS[0]} to {LEVELS[-1]}, not {shown(compress_level)}")
    if not suffix.endswith((".nii", ".nii.gz")):
        raise ValueError(f"the suffix of a NIfTI file ends in '.nii.gz' or '.nii', not {shown(suffix)}")


write_nifti = Encoder(
    encode_nifti,
    suffix=".nii.gz",
    name="nifti",
    encode_block=encode_nifti,
    encode_blocks=encode_nifti,
    prepare=_prepare,
    kind_of_dict=_kind,
    check=_check,
    decode=decode_nifti,
)
"""``write_nifti(path, value, *, suffix=".nii.gz")``: write a volume as MONAI and nibabel read it."""
