"""numpy's file format, as far as files are made of rows of one dtype and shape.

Version 1.0 of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html: a header, padded so that the
first dimension may grow in place, and then the elements in C order.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

__all__ = ["LONGEST_HEADER", "Header", "as_array", "header", "numpy_dtype", "parse", "read"]

LONGEST_HEADER = 1 << 16
"""Bytes that a header of version 1.0 may have."""

_MAGIC = b"\x93NUMPY\x01\x00"
_BEFORE = len(_MAGIC) + 2  # and the header's length
_KINDS = "biufcmMSU"


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        dtype: Of the elements.
        shape: Of the array.
        nbytes: Where the elements begin, in bytes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int


def numpy_dtype(name: str, what: str = "a numpy file") -> np.dtype[Any]:
    """numpy's dtype of a tensor's or an array's, by its name.

    Args:
        name: torch's name without ``torch.``, or numpy's.
        what: What is to hold it, in the error message.

    Raises:
        TypeError: numpy has none, or none whose elements a file can hold as they are.
    """
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.kind not in _KINDS or dtype.hasobject:
        raise TypeError(
            f"{what} cannot hold {name!r:.200}; convert it to a dtype that numpy has, such as float32 "
            "(tensor.float()), or take its bits as whole numbers (tensor.view(torch.int16) of bfloat16, torch.uint8 of "
            "float8)"
        )
    return dtype


@lru_cache(1024)
def header(dtype: np.dtype[Any], shape: tuple[int, ...], nbytes: int | None = None) -> bytes:
    """The bytes before the elements, as `numpy.save` writes them.

    Args:
        dtype: One that `numpy_dtype` gives.
        shape: Of the array.
        nbytes: How long they are to be; by default as long as numpy makes them.

    Raises:
        ValueError: They do not fit.
    """
    buffer = io.BytesIO()
    about = {"descr": numpy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    numpy_format.write_array_header_1_0(buffer, about)
    data = buffer.getvalue()
    if nbytes is None or nbytes == len(data):
        return data
    text = data[_BEFORE:].rstrip(b" \n").ljust(nbytes - _BEFORE - 1) + b"\n"
    if len(text) != nbytes - _BEFORE or nbytes > LONGEST_HEADER:
        raise ValueError(f"the header of an array of shape {shape} does not fit into {nbytes} bytes")
    return _MAGIC + (nbytes - _BEFORE).to_bytes(2, "little") + text


def parse(data: bytes | memoryview) -> Header:
    """What the beginning of a file says, which may be anybody's.

    Args:
        data: The file, or as much of its beginning as there may be of a header.

    Raises:
        ValueError: It is no file of version 1.0, of a dtype without objects and in C order.
    """
    start = bytes(data[:_BEFORE])
    length = int.from_bytes(start[-2:], "little")
    if len(start) < _BEFORE or not start.startswith(_MAGIC) or len(data) < _BEFORE + length:
        raise ValueError("it is no numpy file of version 1.0")
    return _parse(bytes(data[: _BEFORE + length]))


@lru_cache(1024)
def _parse(data: bytes) -> Header:
    try:
        shape, is_fortran, dtype = numpy_format.read_array_header_1_0(io.BytesIO(data[len(_MAGIC) :]))
    except Exception as error:  # it is read as Python's source, which may fail in many ways
        raise ValueError(f"its header is not valid ({type(error).__name__}: {error})") from error
    if is_fortran or dtype.hasobject or any(size < 0 for size in shape):
        raise ValueError("it holds objects, or its elements are not in C order")
    return Header(dtype, tuple(shape), len(data))


def read(data: bytes | memoryview) -> NDArray[Any]:
    """The array of a whole file, which may be anybody's. It has the file's memory, or its own if that is read-only.

    Raises:
        ValueError: It is no numpy file, is longer or shorter than it says, or holds objects.
    """
    try:
        found = parse(data)
    except ValueError:
        # Of another version, or with the first index running fastest.
        return np.ascontiguousarray(numpy_format.read_array(io.BytesIO(data), allow_pickle=False))
    return as_array(memoryview(data)[found.nbytes :], found.dtype, found.shape)


def as_array(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of some elements, in C order. It has their memory, or its own if that is read-only.

    Raises:
        ValueError: There are more or fewer of them.
    """
    view = memoryview(data)
    count = 1
    for size in shape:
        count *= size
    if view.nbytes != count * dtype.itemsize:
        raise ValueError(f"{view.nbytes} bytes are no array of shape {shape} and dtype {dtype}")
    if not view.nbytes:
        return np.empty(shape, dtype)
    array = np.frombuffer(view, dtype).reshape(shape)
    return array.copy() if view.readonly else array
