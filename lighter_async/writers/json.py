"""Scalars, lists and dicts as ``.json`` files (RFC 8259); tensors and arrays in them become lists."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from lighter_async.errors import shown
from lighter_async.plain_memory import Block
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import array_of, is_tensor, without_class

__all__ = ["decode_json", "encode_json", "write_json"]

NotFinite = Literal["error", "null", "literal"]


def encode_json(value: Any, *, not_finite: NotFinite = "error", indent: int | None = None) -> bytes:
    """The JSON of a value, in UTF-8.

    Args:
        value: None, bool, numbers, texts, and lists, tuples and dicts of them, with texts as keys; dense tensors and
            arrays, also in them, as nested lists, and those of no dimension as numbers. Each number is written so
            that reading it gives the same one; a float32 is read as the float64 of that value. Texts and numbers of a
            class of their own, such as an enum's members, are what they equal.
        not_finite: What becomes of NaN and the infinities, which JSON lacks: ``"error"`` refuses the sample, ``"null"``
            writes null, and ``"literal"`` NaN, Infinity and -Infinity, which Python's `json` reads and others may not.
        indent: Spaces for each level, on lines of their own; by default all is one line without spaces.

    Raises:
        TypeError: It holds something else; the message says where.
        ValueError: It holds a number that is not finite, or has thousands of digits, or a text that is none, likewise;
            or it holds itself, or is nested hundreds of levels deep.
    """
    try:
        plain = _plain(value, _NOT_FINITE[not_finite])
        try:
            return _encoded(plain, not_finite, indent)
        except (UnicodeEncodeError, ValueError):
            _check_atoms(plain)
            raise
    except _Refused as refused:
        where = "".join(f"[{key!r:.100}]" for key in reversed(refused.path))
        raise refused.kind(f"value{where} {refused.text}" if where else f"the value {refused.text}") from None
    except RecursionError as error:
        raise ValueError(
            "the value holds itself, or has more levels of lists and dicts than can be written and read; write it flat"
        ) from error


def _encoded(plain: Any, not_finite: NotFinite, indent: int | None) -> bytes:
    if indent is None and not_finite != "literal":
        return msgspec.json.encode(plain)
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(plain, ensure_ascii=False, indent=indent, separators=separators).encode()


def _check_atoms(plain: Any) -> None:
    """Find what the encoder has refused, in a value of None, bool, int, float, str, list and dict alone.

    Raises:
        _Refused: It holds a text or a whole number that cannot be written.
    """
    if isinstance(plain, dict):
        for key, item in plain.items():
            _inside(key, key, _check_atoms)
            _inside(item, key, _check_atoms)
    elif isinstance(plain, list):
        for number, item in enumerate(plain):
            _inside(item, number, _check_atoms)
    elif isinstance(plain, str):
        try:
            plain.encode()
        except UnicodeEncodeError as error:
            raise _Refused(ValueError, f"is no valid text: {shown(plain)} ({error}); replace what is not") from error
    elif isinstance(plain, int):
        try:
            str(plain)
        except ValueError as error:
            raise _Refused(ValueError, f"is a number of too many digits ({error}); write hex(value)") from error


def decode_json(data: bytes | memoryview) -> Any:
    """The value of a file that `encode_json` has written: None, bool, numbers, texts, lists and dicts.

    NaN and Infinity are read, too.

    Raises:
        ValueError: It is no JSON.
    """
    return json.loads(bytes(data))


class _Refused(Exception):
    """Something in a value is refused.

    Args:
        kind: The exception to raise.
        text: Goes on after where it is.

    Attributes:
        path: The keys that lead there, the innermost first.
    """

    def __init__(self, kind: type[Exception], text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.path: list[Any] = []


def _refuse(number: float) -> Any:
    raise _Refused(
        ValueError,
        f"is {number}, which JSON lacks; the option not_finite='null' writes null, and not_finite='literal' what "
        "Python reads",
    )


_NOT_FINITE: dict[str, Callable[[float], Any]] = {"error": _refuse, "null": lambda _: None, "literal": lambda one: one}


def _plain(value: Any, not_finite: Callable[[float], Any]) -> Any:
    """A value of None, bool, int, float, str, list and dict alone.

    Raises:
        _Refused: It holds something else.
    """
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else not_finite(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, Mapping):
        found = {_name(key): _inside(item, key, _plain, not_finite) for key, item in value.items()}
        if len(found) < len(value):
            raise _Refused(ValueError, "has two keys of the same text; give them different ones")
        return found
    if isinstance(value, (list, tuple)):
        return [_inside(item, number, _plain, not_finite) for number, item in enumerate(value)]
    if isinstance(value, str):
        return str.__str__(value)  # of an enum's member the value, whatever it prints
    if kind is Block or isinstance(value, (np.ndarray, np.generic)) or is_tensor(value):
        return _list_of(value, not_finite)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return _plain(float.__float__(value), not_finite)
    if kind is bytes or kind is bytearray:
        raise _Refused(TypeError, "is bytes, which JSON lacks; write base64.b64encode(value).decode()")
    raise _Refused(
        TypeError,
        f"is {shown(value)}, which JSON lacks; write a dict, a list, a text or a number "
        "(vars(value) or dataclasses.asdict(value) make a dict of an object)",
    )


def _inside(value: Any, key: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function makes of an item; where it refuses it, the way there is noted."""
    try:
        return function(value, *arguments)
    except _Refused as refused:
        refused.path.append(key)
        raise


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise _Refused(
            TypeError,
            f"has the key {shown(key)}, and JSON's are texts, as which it would be read back; write "
            "{str(key): item for key, item in value.items()}",
        )
    return str.__str__(key)


def _list_of(value: Any, not_finite: Callable[[float], Any]) -> Any:
    """The nested list of a tensor or an array, or its number."""
    try:
        array = array_of(value, "a JSON list", widen=True)
    except TypeError as error:
        raise _Refused(TypeError, f"cannot be a list: {error}") from error
    if array.dtype.kind not in "biufU" or (array.dtype.itemsize > 8 and array.dtype.kind == "f"):
        raise _Refused(
            TypeError,
            f"is of dtype {array.dtype}, which JSON lacks; write array.real and array.imag of complex numbers, "
            "array.astype(str) of dates, and array.astype('f8') of longer floats",
        )
    found = array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _plain(found, not_finite)
    return found


def _check(*, not_finite: NotFinite = "error", indent: int | None = None) -> None:
    """
    Raises:
        ValueError: An option is out of range.
    """
    if not isinstance(not_finite, str) or not_finite not in _NOT_FINITE:
        raise ValueError(
            f"not_finite is {', '.join(map(repr, _NOT_FINITE))}, not {shown(not_finite)}"
            + ("; in YAML, null without quotes is none" if not_finite is None else "")
        )
    if indent is not None and (type(indent) is not int or not 0 <= indent <= 16):
        raise ValueError(f"indent is None or 0 to 16 spaces, not {shown(indent)}")


write_json = Encoder(
    encode_json,
    suffix=".json",
    name="json",
    encode_block=encode_json,
    encode_blocks=encode_json,
    prepare=without_class,
    check=_check,
    decode=decode_json,
)
"""``write_json(path, value, *, suffix=".json")``: write a value as JSON."""
