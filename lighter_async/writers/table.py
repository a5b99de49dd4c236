"""A sample as a row of a table: a dict from columns to numbers, texts, and lists or small arrays of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.plain_memory import Block
from lighter_async.table_row import DTYPES, decode_row, pack_row, packed_array
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import check_not_masked
from lighter_async.writers.table_columns import encode_columns, no_dtype, widened

__all__ = ["decode_table_row", "encode_table_row", "write_table_row"]

_MOST = 1 << 63


def encode_table_row(value: Any) -> bytes:
    """The row of a dict.

    Args:
        value: From columns to None, bool, int, float, str, lists and tuples of these, and tensors and arrays of numbers
            or bool. Half precision becomes float32.

    Raises:
        TypeError: It is no such dict, or a column has another value; the column is named.
        ValueError: A whole number takes more than 64 bits.
    """
    if not isinstance(value, Mapping):
        raise TypeError(
            f"a row of a table is a dict from columns to values, not {type(value).__name__}; write {{'column': value}}"
        )
    row = {}
    for key, one in value.items():
        if not isinstance(key, str):
            raise TypeError(f"columns have texts as names, not {shown(key)}; use str(key)")
        kind = type(one)
        row[key] = one if kind is float or (kind is str and one.isascii()) else _packed(one, key)
    return pack_row(row)


def _packed(value: Any, key: str) -> Any:
    """A value as `pack_row` takes it.

    Raises:
        TypeError, ValueError: As `encode_table_row`.
    """
    if isinstance(value, Block):
        return _packed_memory(value.dtype, value.shape, value.memory, key)
    if value is None or isinstance(value, (bool, float)):
        return value if value is None or type(value) in (bool, float) else float(value)
    if isinstance(value, np.generic):
        return _packed_array(np.asarray(value), key)
    if isinstance(value, int):
        if not -_MOST <= value < _MOST:
            raise ValueError(f"column {key!r}: {value} takes more than 64 bits; write str(value) or float(value)")
        return int(value)
    if isinstance(value, str):
        _check_text(value, f"column {key!r}")
        return str.__str__(value)  # of an enum's member the value, as JSON has it
    if isinstance(value, (list, tuple)):
        return [_packed(one, key) for one in value]
    if isinstance(value, np.ndarray):
        return _packed_array(value, key)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _packed_tensor(value, key)
    if isinstance(value, Mapping):
        raise TypeError(
            f"column {key!r} is a dict, and a table has columns alone; give each of its entries a column of its own, "
            f"such as {key!r} + '.' + entry, or write json.dumps(value)"
        )
    raise TypeError(
        f"column {key!r} is {type(value).__name__}, and a table holds numbers, texts, and lists or arrays of them; "
        "write str(value), or float(value)"
    )


def _check_text(text: str, what: str) -> None:
    """
    Raises:
        ValueError: It has half a surrogate pair, which no encoding of texts has.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}: {shown(text)} is no valid text ({error}); replace what is not") from error


def _packed_array(array: NDArray[Any], key: str) -> Any:
    try:
        check_not_masked(array)
    except TypeError as error:
        raise TypeError(f"column {key!r}: {error}") from None
    if array.dtype.kind == "U":
        return _packed(array.tolist(), key)
    if array.dtype.hasobject:
        return _packed(array.tolist(), key)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    name = array.dtype.name
    if name not in DTYPES:
        raise no_dtype(str(array.dtype), key)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    return packed_array(name, array.shape, array.tobytes())


def _packed_tensor(tensor: Any, key: str) -> Any:
    torch = sys.modules["torch"]
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided:
        raise TypeError(f"column {key!r} is no dense tensor; write tensor.to_dense(), or tensor.dequantize()")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().as_subclass(torch.Tensor)
    if plain.dtype in (torch.bfloat16, torch.float16):
        plain = plain.float()
    name = str(plain.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise no_dtype(name, key)
    return _packed_array(plain.contiguous().numpy(), key)


def _packed_memory(dtype: str, shape: tuple[int, ...], memory: NDArray[np.uint8], key: str) -> Any:
    dtype, memory = widened(dtype, memory, key)
    return packed_array(dtype, shape, memory.tobytes())


def decode_table_row(data: bytes | memoryview) -> dict[str, Any]:
    """The dict that `encode_table_row` has written: from tensors numpy's scalars and arrays, of the dtype they had.

    Raises:
        ValueError: These bytes are no row.
    """
    try:
        return decode_row(data)
    except Exception as error:
        raise ValueError(f"these bytes are no row of a table ({type(error).__name__}: {error})") from error


write_table_row = Encoder(
    encode_table_row,
    suffix="",
    name="table_row",
    encode_blocks=encode_table_row,
    encode_columns=encode_columns,
    decode=decode_table_row,
)
"""A row of a `TableTarget`, from a dict of columns."""
