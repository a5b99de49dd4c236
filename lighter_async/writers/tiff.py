"""Arrays as TIFF, by tifffile; ISA-L and libdeflate compress, many times as fast as zlib at the same size."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from lighter_async.errors import describe, shown
from lighter_async.optional_packages import not_installed, optional
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import array_of, without_class

__all__ = ["decode_tiff", "encode_tiff", "write_tiff"]

Compression = Literal["zlib", "lzw", "zstd"]

_WHAT = "a TIFF"
_COMPRESSIONS = ("zlib", "lzw", "zstd")
_DTYPES = (
    *("bool", "complex64", "complex128", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_LACKING_IN_OME = ("int64", "uint64", "float16")
_MOST_BYTES = 0xF0000000  # of a file whose offsets have 32 bits
_MOST_DEFLATED = 1032  # bytes that deflate packs into one, at most
_LARGE = 1 << 26  # bytes
_SIZES = frozenset(f"Size{axis}" for axis in "TCZYX")
_UNSEEN = frozenset({"Name", "DimensionOrder", "Type"})  # as long as they are those that a file has without them

LEVELS = range(13)
"""Of zlib: 0 to 3 are ISA-L's levels, from 4 on libdeflate's."""


def encode_tiff(
    value: Any,
    *,
    compression: Compression | None = "zlib",
    compress_level: int | None = None,
    predictor: bool = True,
    axes: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> memoryview:
    """A TIFF of an array, which tifffile reads in its shape and dtype: the last two axes are pages of rows.

    Args:
        value: A dense tensor or array of two or more dimensions, such as (H, W), (C, H, W) or (Z, H, W); numbers of any
            dtype but bfloat16, float8 and longer floats than float64. Values are stored as they are, not scaled.
        compression: ``"zlib"``, ``"lzw"`` or ``"zstd"``, which all keep the values; or None. The last two need
            imagecodecs, also to be read.
        compress_level: Of zlib 0 to 12: 0 to 3 are ISA-L's levels, from 4 on libdeflate's; by default 1.
        predictor: Whether differences of neighbours are compressed, which are smaller: of whole numbers of up to 32
            bits, if they are compressed. Others are compressed as they are.
        axes: OME's letters for the axes, such as ``"CZYX"``: an OME-TIFF. It ends in ``"YX"``.
        metadata: Of an OME-TIFF what tifffile is told besides, such as ``{"PhysicalSizeX": 0.5}``.

    Raises:
        ValueError: The value has fewer than two dimensions, others than `axes` says, or one of length 0.
        TypeError: TIFF has no such dtype, or the value is no dense tensor or array.
        ImportError: tifffile is not installed, or imagecodecs, if it is needed.
    """
    tifffile = _tifffile()
    array = array_of(value, _WHAT)
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"a TIFF has no {array.dtype}; it has {', '.join(_DTYPES)}")
    if array.ndim < 2 or not array.size:
        raise ValueError(f"a TIFF is an array (H, W), (C, H, W) or of more dimensions, got shape {array.shape}")
    options: dict[str, Any] = {"photometric": "minisblack", "bigtiff": array.nbytes > _MOST_BYTES}
    if axes is not None:
        if len(axes) != array.ndim:
            raise ValueError(f"axes={axes!r} are {len(axes)}, got {array.ndim} dimensions of shape {array.shape}")
        if array.dtype.name in _LACKING_IN_OME:
            raise TypeError(f"an OME-TIFF has no {array.dtype}; without axes= a TIFF has it")
        import uuid

        # Equal values have one identifier, and others another.
        identifier = uuid.UUID(bytes=xxh3_128_digest(array.reshape(-1).view(np.uint8).data))
        options |= {"ome": True, "metadata": {**(metadata or {}), "axes": axes, "UUID": str(identifier)}}
    differences = predictor and compression is not None and array.dtype.kind in "iu" and array.itemsize <= 4
    options |= {"compression": compression, "predictor": differences or None}
    pages: Any = array
    if compression == "zlib" and (array.shape[-1] > 1 or array.ndim == 2):  # else tifffile makes a row of a column
        native = array.astype(array.dtype.newbyteorder("<"), copy=False)
        pages = _deflated(native, differences, 1 if compress_level is None else compress_level)
        options |= {"shape": array.shape, "dtype": native.dtype, "rowsperstrip": array.shape[-2], "byteorder": "<"}
    buffer = io.BytesIO()
    try:
        tifffile.imwrite(buffer, pages, **options)
    except (IndexError, ValueError) as error:
        if not metadata:
            raise
        raise ValueError(f"the metadata does not go with {axes} of shape {array.shape}: {describe(error)}") from error
    return buffer.getbuffer()


def decode_tiff(data: bytes | memoryview, *, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """The array of a TIFF that `encode_tiff` has written.

    Args:
        data: The file's content.
        shape: The array's shape, where it is known; an OME-TIFF may not tell axes of length 1.

    Raises:
        ValueError: It is no TIFF, of another size than the shape, or claims many more values than its bytes can hold.
        ImportError: tifffile is not installed, or imagecodecs, if it is needed.
        Exception: What tifffile raises if it is damaged.
    """
    tifffile = _tifffile()
    # Kinds of TIFF that others write may name further files. A kind that cannot be switched off, as that of Olympus in
    # earlier versions, names none.
    kinds = tifffile.TIFF.FILE_FLAGS - {"shaped", "ome", "virtual"}
    flags = {f"is_{name}": False for name in kinds if _can_be_set(getattr(tifffile.TiffFile, f"is_{name}", None))}
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False, **flags) as file:
        series = file.series[0]
        count = math.prod(series.shape)
        if shape is not None and count != math.prod(shape):
            raise ValueError(f"a TIFF of shape {series.shape} is no array of shape {shape}")
        if shape is None and count * series.dtype.itemsize > max(_LARGE, _MOST_DEFLATED * len(data)):
            raise ValueError(f"a TIFF of {len(data)} bytes claims shape {series.shape}, and its shape is not recorded")
        array: NDArray[Any] = series.asarray(maxworkers=1)
    if array.size != count:
        raise ValueError(f"a TIFF of shape {series.shape} holds {array.size} values")
    return array if shape is None else array.reshape(shape)


def _can_be_set(attribute: object) -> bool:
    return not (isinstance(attribute, property) and attribute.fset is None)


def _deflated(array: NDArray[Any], differences: bool, level: int) -> Iterator[bytes]:
    """The compressed bytes of each page."""
    pages = array.reshape(-1, *array.shape[-2:])
    if array.dtype == np.bool_:
        pages = np.packbits(pages, axis=-1)
    for page in pages:
        if differences:
            smaller = np.empty_like(page)
            smaller[:, 0] = page[:, 0]
            np.subtract(page[:, 1:], page[:, :-1], out=smaller[:, 1:])
            page = smaller
        if level < 4:
            yield isal_zlib.compress(page, level)
        else:
            import deflate

            yield bytes(deflate.zlib_compress(page.reshape(-1).view(np.uint8), level))


def _tifffile() -> Any:
    with optional("the format 'tiff' is written and read by tifffile", "tifffile"):
        import tifffile

    return tifffile


def _check(
    *,
    compression: Compression | None = "zlib",
    compress_level: int | None = None,
    predictor: bool = True,
    axes: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """
    Raises:
        ValueError, TypeError: An option is out of range.
        ImportError: tifffile is not installed, or imagecodecs, if it is needed.
    """
    _tifffile()
    if compression is not None and (not isinstance(compression, str) or compression not in _COMPRESSIONS):
        raise ValueError(f"compression is {', '.join(map(repr, _COMPRESSIONS))} or None, not {shown(compression)}")
    if compress_level is not None and (
        compression != "zlib" or type(compress_level) is not int or compress_level not in LEVELS
    ):
        raise ValueError(
            f"compress_level is {LEVELS[0]} to {LEVELS[-1]} with compression='zlib', not {shown(compress_level)} with "
            f"compression={compression!r}"
        )
    if type(predictor) is not bool:
        raise TypeError(f"predictor is True or False, not {shown(predictor)}")
    if axes is not None and (
        not isinstance(axes, str) or not axes.endswith("YX") or set(axes) - set("TCZYX") or len(set(axes)) < len(axes)
    ):
        raise ValueError(f"axes are OME's letters T, C, Z, Y and X, each once, with 'YX' at the end, not {shown(axes)}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a dict, not {shown(metadata)}")
    if metadata is not None and axes is None:
        raise TypeError("metadata is that of an OME-TIFF, which has axes, too: give them, as in axes='CYX'")
    if axes is not None:
        # Sizes are compared with those of each array.
        _check_metadata(axes, {name: one for name, one in (metadata or {}).items() if name not in _SIZES})
    try:
        encode_tiff(np.zeros((1, 1), np.uint8), compression=compression)
    except (KeyError, ImportError) as error:
        if compression not in ("lzw", "zstd"):
            raise
        raise ImportError(
            not_installed(f"compression={compression!r} is done by imagecodecs", "imagecodecs")
        ) from error


def _check_metadata(axes: str, metadata: dict[str, Any]) -> None:
    """
    Raises:
        ValueError, TypeError: tifffile does not take it, leaves something out, or makes something of it that is no XML.
    """
    if not all(isinstance(name, str) for name in metadata):
        raise TypeError(f"metadata of an OME-TIFF has texts as names, not {shown(list(metadata))}")
    if own := {"axes", "UUID"} & metadata.keys():
        raise ValueError(
            f"metadata of an OME-TIFF has no {min(own)!r} of the user's: the option axes and the values tell"
        )
    try:
        made = _ome_xml(axes, metadata)
        ElementTree.fromstring(made)
    except Exception as error:
        raise ValueError(f"tifffile makes no OME-TIFF of this metadata ({describe(error)})") from error
    for name, value in metadata.items():
        if (
            name in _UNSEEN
            or not value
            or made != _ome_xml(axes, {key: metadata[key] for key in metadata if key != name})
        ):
            continue
        raise ValueError(
            f"tifffile leaves {name!r} out of an OME-TIFF; help(tifffile.OmeXml.addimage) says what it takes, "
            "such as 'PhysicalSizeX'"
        )


def _ome_xml(axes: str, metadata: Mapping[str, Any]) -> str:
    """What an OME-TIFF says of the smallest array."""
    data = encode_tiff(np.zeros((1,) * len(axes), np.uint8), compression=None, axes=axes, metadata=metadata)
    with _tifffile().TiffFile(io.BytesIO(data)) as file:
        return str(file.pages[0].description)


write_tiff = Encoder(
    encode_tiff,
    suffix=".tif",
    name="tiff",
    encode_block=encode_tiff,
    prepare=without_class,
    check=_check,
    decode=decode_tiff,
)
"""``write_tiff(path, value, *, suffix=".tif")``: write an array as TIFF."""
