"""Tensors by name as ``.safetensors`` files, packed here: the format is a header in JSON and plain memory.

Format: https://github.com/huggingface/safetensors#format. The files are those of the ``safetensors`` package, byte for
byte; it is not needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.plain_memory import EncodedRows, Rows
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import block_of, without_class

__all__ = ["decode_safetensors", "encode_safetensors", "write_safetensors"]

_WHAT = "a safetensors file"
_METADATA = "__metadata__"
_ALIGNMENT = 8  # of the header's end
_LONGEST_HEADER = 100_000_000  # bytes, as the package has it

# By torch's names, from the first to the last in a file: wider elements come first, so that all are aligned.
_CODES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "bfloat16": "BF16",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_PLACES = {name: place for place, name in enumerate(_CODES)}
_NAMES = {code: name for name, code in _CODES.items()}


class _Kind(NamedTuple):
    """What a header says of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def encode_safetensors(
    value: Any, *, key: str = "value", metadata: Mapping[str, str] | None = None
) -> list[memoryview | bytes]:
    """What `safetensors.torch.save` writes for tensors by name.

    Args:
        value: A dict from names to dense tensors and arrays; or one tensor or array, which is stored under `key`. Each
            stores its own elements only.
        key: The name of a tensor that comes without one.
        metadata: Texts by name, which every file holds beside the tensors.

    Raises:
        TypeError: It is neither, a name is no text, or the format lacks a dtype.
        ValueError: A tensor is called ``__metadata__``.
    """
    named = value if isinstance(value, Mapping) else {key: value}
    blocks = {}
    for name, one in named.items():
        _check_name(name)
        if isinstance(one, (Mapping, list, tuple)):
            raise TypeError(
                f"a safetensors file holds tensors by name, and {shown(name)} is a {type(one).__name__}; give each "
                "tensor in it a name of its own, such as 'decoder.0.weight'"
            )
        try:
            blocks[name] = block_of(one, _WHAT)
            _code_of(blocks[name].dtype)
        except TypeError as error:
            if named is not value:
                raise
            raise TypeError(f"{shown(name)}: {error}") from error
    kinds = [_Kind(name, one.dtype, one.shape, one.memory.nbytes) for name, one in blocks.items()]
    kinds.sort(key=lambda kind: (_PLACES[kind.dtype], kind.name))
    return [_header(tuple(kinds), _hashable(metadata)), *[blocks[kind.name].memory.data for kind in kinds]]


def _rows_of(rows: Rows, *, key: str = "value", metadata: Mapping[str, str] | None = None) -> EncodedRows | None:
    if rows.dtype not in _CODES:
        return None  # to be refused, or brought into the machine's byte order
    size = rows.memory.shape[1]
    start = np.frombuffer(_header((_Kind(key, rows.dtype, rows.shape, size),), _hashable(metadata)), np.uint8)

    def fill(out: NDArray[np.uint8]) -> None:
        out[:, : start.size] = start
        out[:, start.size :] = rows.memory

    return EncodedRows(start.size + size, fill)


def decode_safetensors(data: bytes | memoryview, *, key: str = "value") -> Any:
    """The tensors of a file that `encode_safetensors`, or the package, has written.

    Args:
        data: The file's content.
        key: The name of a tensor that came without one.

    Returns:
        A dict from names to torch tensors, on the CPU, with memory of their own; the tensor itself if it is the only
        one and is called `key`.

    Raises:
        ValueError: It is no such file, or does not hold what it says.
    """
    import torch

    view = memoryview(data)
    begin = 8 + int.from_bytes(view[:8], "little")
    if not 8 < begin <= min(len(view), 8 + _LONGEST_HEADER):
        raise ValueError(f"{len(view)} bytes are no safetensors file")
    found = {}
    for name, about in json.loads(str(view[8:begin], "utf-8")).items():
        if name == _METADATA:
            continue
        code, shape, (start, stop) = about["dtype"], about["shape"], about["data_offsets"]
        if code not in _NAMES or not all(type(size) is int and size >= 0 for size in (*shape, start, stop)):
            raise ValueError(f"its header is not valid for {shown(name)}: {shown(about)}")
        dtype = getattr(torch, _NAMES[code])
        if stop - start != math.prod(shape) * dtype.itemsize or begin + stop > len(view):
            raise ValueError(f"{shown(name)} is no {code} of shape {shown(shape)} in bytes {start} to {stop}")
        memory = np.frombuffer(view[begin + start : begin + stop], np.uint8).copy()
        empty = torch.empty(shape, dtype=dtype)
        found[name] = torch.from_numpy(memory).view(dtype).view(shape) if memory.size else empty
    return found[key] if found.keys() == {key} else found


@lru_cache(1024)
def _header(kinds: tuple[_Kind, ...], metadata: tuple[tuple[str, str], ...]) -> bytes:
    """The bytes before the elements, of tensors in the order of their elements."""
    about: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    offset = 0
    for name, dtype, shape, nbytes in kinds:
        about[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": (offset, offset + nbytes)}
        offset += nbytes
    text = json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _code_of(dtype: str) -> str:
    """
    Raises:
        TypeError: The format lacks the dtype.
    """
    if dtype not in _CODES:
        raise TypeError(
            f"a safetensors file cannot hold {dtype!r:.200}; convert it to one of {', '.join(_CODES)}, or take "
            "torch.view_as_real(tensor) of complex numbers"
        )
    return _CODES[dtype]


def _hashable(metadata: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((metadata or {}).items()))


def _check_name(name: Any) -> None:
    """
    Raises:
        TypeError, ValueError: A tensor cannot be called so.
    """
    if not isinstance(name, str):
        raise TypeError(f"tensors have names in a safetensors file, which are texts, not {shown(name)}")
    if name == _METADATA:
        raise ValueError(f"no tensor of a safetensors file can be called {_METADATA!r}")
    _check_text(name)


def _check_text(text: str) -> None:
    """
    Raises:
        ValueError: It has half a surrogate pair, which no encoding of texts has.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(text)} is no valid text ({error}); replace what is not") from error


def _check(*, key: str = "value", metadata: Mapping[str, str] | None = None) -> None:
    """
    Raises:
        TypeError, ValueError: An option is not valid.
    """
    _check_name(key)
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a dict from texts to texts, not {shown(metadata)}")
    for one in (one for pair in metadata.items() for one in pair):
        if not isinstance(one, str):
            raise TypeError(f"metadata is a dict from texts to texts, and {shown(one)} in it is none; use str(value)")
        _check_text(one)


write_safetensors = Encoder(
    encode_safetensors,
    suffix=".safetensors",
    name="safetensors",
    encode_block=encode_safetensors,
    encode_rows=_rows_of,
    encode_blocks=encode_safetensors,
    prepare=without_class,
    check=_check,
    decode=decode_safetensors,
)
"""``write_safetensors(path, value, *, suffix=".safetensors")``: write what ``safetensors`` reads."""
