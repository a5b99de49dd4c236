"""A sample as a row of a table: a dict from columns to numbers, texts, and lists or small arrays of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.block import Block, EncodedRows, Rows
from lighter_async.errors import shown
from lighter_async.table_row import DTYPES, decode_row, pack_row, packed_array, padded_row, template_of
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import check_not_masked

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
        raise TypeError(f"column {key!r} has dtype {array.dtype}, and a table holds {', '.join(DTYPES)}; convert it")
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
        raise _no_dtype(name, key)
    return _packed_array(plain.contiguous().numpy(), key)


def _packed_memory(dtype: str, shape: tuple[int, ...], memory: NDArray[np.uint8], key: str) -> Any:
    dtype, memory = widened(dtype, memory, key)
    return packed_array(dtype, shape, memory.tobytes())


def widened(dtype: str, memory: NDArray[np.uint8], key: str) -> tuple[str, NDArray[np.uint8]]:
    """Elements as a table holds them: half precision as float32, and what it has no dtype for refused.

    Args:
        dtype: The name of theirs.
        memory: The elements; along the last axis their bytes.
        key: The column, for messages.

    Raises:
        TypeError: There is no such column.
    """
    if dtype in DTYPES and sys.byteorder == "little":
        return dtype, memory
    if dtype == "float16":
        return "float32", memory.view(np.float16).astype("<f4").view(np.uint8)
    if dtype == "bfloat16":
        return "float32", (memory.view(np.uint16).astype("<u4") << np.uint32(16)).view(np.uint8)
    if dtype not in DTYPES:
        raise _no_dtype(dtype, key)
    element = np.dtype(dtype)
    return dtype, memory.view(element).astype(element.newbyteorder("<")).view(np.uint8)


def _no_dtype(name: str, key: str) -> TypeError:
    return TypeError(f"column {key!r} has dtype {name}, and a table holds {', '.join(DTYPES)}; convert it")


def decode_table_row(data: bytes | memoryview) -> dict[str, Any]:
    """The dict that `encode_table_row` has written: from tensors numpy's scalars and arrays, of the dtype they had.

    Raises:
        ValueError: These bytes are no row.
    """
    try:
        return decode_row(data)
    except Exception as error:
        raise ValueError(f"these bytes are no row of a table ({type(error).__name__}: {error})") from error


def _rows_of_columns(columns: Mapping[str, Rows | list[Any]]) -> EncodedRows | None:
    """The rows of several samples, each column of one type: all of one size, filled up with zeros if need be.

    None if a column has several types, or filling up would take more room than the rows do.
    """
    elements = {key: widened(one.dtype, one.memory, key) for key, one in columns.items() if isinstance(one, Rows)}
    if len(elements) < len(columns):
        return _packed_rows(columns, elements)
    about = {key: (dtype, _shape(columns[key]), memory.shape[1]) for key, (dtype, memory) in elements.items()}
    template, begins = template_of(about)
    row = np.frombuffer(template, np.uint8)

    def fill(out: NDArray[np.uint8]) -> None:
        out[:] = row
        for begin, (_, memory) in zip(begins, elements.values(), strict=True):
            out[:, begin : begin + memory.shape[1]] = memory

    return EncodedRows(len(template), fill)


def _packed_rows(
    columns: Mapping[str, Rows | list[Any]], elements: Mapping[str, tuple[str, NDArray[np.uint8]]]
) -> EncodedRows | None:
    values: list[list[Any]] = []
    for key, one in columns.items():
        if isinstance(one, list):
            kinds = set(map(type, one))
            if len(kinds) > 1 or (kinds == {int} and not (min(one) >= -_MOST and max(one) < _MOST)):
                return None  # one by one, so that each is told what is wrong with it
            values.append(one)
        else:
            dtype, memory = elements[key]
            values.append([packed_array(dtype, one.shape, data) for data in map(bytes, memory)])
    keys = list(columns)
    rows = [pack_row(dict(zip(keys, row, strict=True))) for row in zip(*values, strict=True)]
    sizes = set(map(len, rows))
    if len(sizes) > 1:
        longest = max(sizes)
        if longest * len(rows) > 2 * sum(map(len, rows)) + 1024:
            return None
        rows = [padded_row(row, longest) for row in rows]
    data = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)

    def fill(out: NDArray[np.uint8]) -> None:
        out[:] = data

    return EncodedRows(data.shape[1], fill, data)


def _shape(column: Rows | list[Any]) -> tuple[int, ...]:
    assert isinstance(column, Rows)
    return column.shape


write_table_row = Encoder(
    encode_table_row,
    suffix="",
    name="table_row",
    encode_blocks=encode_table_row,
    encode_columns=_rows_of_columns,
    decode=decode_table_row,
)
"""A row of a `TableTarget`, from a dict of columns."""
