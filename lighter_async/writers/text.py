"""Texts as ``.txt`` files."""

from __future__ import annotations

from typing import Any

from lighter_async.errors import shown
from lighter_async.writers.base import Encoder

__all__ = ["decode_text", "encode_text", "write_text"]

_EXACT = frozenset({"utf-8", "utf-16", "utf-32", "ascii", "latin-1", "cp1252"})  # each text is read as it was written


def encode_text(value: Any, *, encoding: str = "utf-8") -> bytes:
    """``str(value)``, without a newline added.

    Raises:
        UnicodeEncodeError: The encoding lacks one of its characters.
        ValueError: It has another one in its place.
        LookupError: There is no such encoding.
    """
    text = str(value)
    data = text.encode(encoding)
    if encoding not in _EXACT and (found := data.decode(encoding)) != text:
        at = next((at for at, (one, other) in enumerate(zip(text, found, strict=False)) if one != other), len(found))
        raise ValueError(
            f"in encoding {encoding!r} the text is read as another one, from character {at} on: {shown(found[at:])} "
            f"instead of {shown(text[at:])}; encoding='utf-8' has all texts"
        )
    return data


def decode_text(data: bytes | memoryview, *, encoding: str = "utf-8") -> str:
    """The text of a file that `encode_text` wrote.

    Raises:
        UnicodeDecodeError: The file has another encoding.
    """
    try:
        return str(data, encoding)
    except UnicodeDecodeError as error:
        error.reason += "; decode=write_text.with_options(encoding=...) reads a text of another encoding"
        raise


def _check(*, encoding: str = "utf-8") -> None:
    """
    Raises:
        TypeError: It is no text.
        LookupError: There is no such encoding, or it is one of bytes.
    """
    if not isinstance(encoding, str):
        raise TypeError(f"encoding is the name of one, such as 'utf-8', not {shown(encoding)}")
    "".encode(encoding)


write_text = Encoder(encode_text, suffix=".txt", name="text", check=_check, decode=decode_text)
"""``write_text(path, value, *, suffix=".txt", encoding="utf-8")``: write ``str(value)``."""
